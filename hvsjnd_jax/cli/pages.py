"""The pages that `eval --save` and `compare --save` write: index.html, beside the pictures."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hvsjnd_jax.cli.command import UsageError
from hvsjnd_jax.cli.jsonl import Record, Settings
from hvsjnd_jax.cli.outputs import check_output, writing
from hvsjnd_jax.cli.saved_comparison import SAVED, name_pictures
from hvsjnd_jax.cli.saved_images import (
  ATTENTION,
  DISTORTED,
  JND,
  ORIGINAL,
  THUMBNAIL,
  VISION_MAPS,
  format_lmbda,
  name_output,
)
from hvsjnd_jax.data.atomic import whole_file
from hvsjnd_jax.data.paths import parse_path
from hvsjnd_jax.evaluation.comparison import CASES, Case
from hvsjnd_jax.evaluation.scores import CHANNEL_PSNR, ImageScores, ScoreTable, list_scores
from hvsjnd_jax.evaluation.tables import DIGITS
from hvsjnd_jax.metrics import METRICS
from hvsjnd_jax.viz.viewer.page import (
  MARK,
  Entry,
  Layer,
  Overlay,
  Page,
  Score,
  Setting,
  draw_page,
)

_PAGE = "index.html"

# For readers.
_NAMES = {
  **{name: f"PSNR {name[-1].upper()}" for name in CHANNEL_PSNR},
  **{"psnr": "PSNR", "ssim": "SSIM", "ms_ssim": "MS-SSIM", "gmsd": "GMSD", "fsim": "FSIM"},
  **{"ms_ssim_reference": "MS-SSIM reference", "dists": "DISTS", "ssimulacra2": "SSIMULACRA 2"},
  **{"butteraugli_3norm": "Butteraugli 3-norm", "butteraugli_max": "Butteraugli max"},
  **{"cvvdp": "ColorVideoVDP", "cvvdp_fhd": "ColorVideoVDP full HD"},
}

# Of a comparison: the models of vision first, and last PSNR, which is that asked for.
_COMPARED = (
  *("ssimulacra2", "butteraugli_3norm", "butteraugli_max", "cvvdp"),
  *("ssim", "ms_ssim", "gmsd", "fsim", "psnr", *CHANNEL_PSNR),
)

_OVERLAYS = {
  JND: "JND map, brightened",
  ATTENTION: "attention, blue to red",
  **{
    name: f"{title}, 0 to {VISION_MAPS[name].full_scale}"
    for name, title in (
      ("butteraugli.png", "Butteraugli"),
      ("cvvdp.png", "ColorVideoVDP"),
      ("cvvdp_fhd.png", "ColorVideoVDP full HD"),
    )
  },
}


def list_copies(record: Record) -> list[dict[str, Any]]:
  """Lists what a record of `eval` says of each copy of its image: lmbda and scores."""
  return [record, *record.get("others", ())]


def check_page(folder: Path, *, inputs: Sequence[Path]) -> None:
  """Refuses a folder whose index.html is one of the images, or not a page of ours.

  Raises:
    UsageError: If it is.
  """
  file = folder / _PAGE
  check_output("--save", file, inputs=inputs)
  if file.exists():
    with writing(file), file.open("rb") as opened:
      ours = MARK in opened.read(4096)
    if not ours:
      raise UsageError(
        f"{file}: exists, and was not written by this command; choose another folder for --save"
      )


def write_page(folder: Path, page: Page) -> None:
  """Writes a page, whole or not at all.

  Raises:
    UsageError: If it cannot be written.
  """
  file = folder / _PAGE
  with writing(file), whole_file(file) as partial:
    partial.write_text(draw_page(page), encoding="utf-8")


def describe_evaluation(
  folder: Path, model: str, settings: Settings, records: Sequence[Record]
) -> Page:
  """Describes the page of an evaluation.

  Args:
    folder: Where the pictures are.
    model: The model's name.
    settings: The run's settings.
    records: Its records, of which those with errors are left out.
  """
  target = settings["target_psnr"]
  lmbdas = settings["lmbda"] if isinstance(settings["lmbda"], list | tuple) else [settings["lmbda"]]
  scores = list_scores(settings["metrics"])
  if target is None:
    values = [format_lmbda(lmbda) for lmbda in lmbdas]
    setting = Setting("lmbda", values, "slider")
    noise = f"Noise of lmbda {', '.join(values)}"
  else:
    setting = Setting("PSNR", [f"{target:g} dB"], "slider")
    noise = f"Noise of {target:g} dB"
    scores = [*scores, "lmbda"]

  def name_files(output: str) -> list[str]:
    return [name_output(output, lmbda) for lmbda in (None, *lmbdas[1:])]

  return Page(
    title=f"Just-noticeable differences: {model}",
    facts=f"{noise}, scaled by the JND map of the model {model}; seed {settings['seed']}.",
    original=ORIGINAL,
    thumbnail=THUMBNAIL,
    copies=[Layer("distorted", name_files(DISTORTED))],
    overlays=[
      Overlay(title, [name_files(name)])
      for name, title in _OVERLAYS.items()
      if name in settings["outputs"]
    ],
    setting=setting,
    scores=[_describe_score(name) for name in scores],
    entries=[
      Entry(
        parse_path(record["saved"]).relative_to(folder),
        *(record["path"], record["width"], record["height"]),
        [[[copy[name] for name in scores]] for copy in list_copies(record)],
      )
      for record in records
      if "error" not in record
    ],
  )


def describe_comparison(
  folder: Path,
  models: Sequence[str],
  outputs: Sequence[str],
  attentive: Collection[str],
  images: Mapping[Path, tuple[Path, int, int]],
  scores: Mapping[Case, Sequence[ScoreTable]],
  *,
  psnr_db: float,
  seed: int,
) -> Page:
  """Describes the page of a comparison.

  Args:
    folder: Where the pictures are.
    models: The models' names, in order.
    outputs: What was written of each image.
    attentive: The models that have attention.
    images: By path: the stem of its pictures, and its height and width.
    scores: The models' scores on each image.
    psnr_db: The PSNR of the noise.
    seed: The seed of its signs.
  """
  return Page(
    title=f"JND models at {psnr_db:g} dB",
    facts=f"Noise of {psnr_db:g} dB in each of R, G and B, scaled by the JND map of each model. "
    f"The channels of a pixel share one sign, or each has its own; seed {seed}.",
    original=ORIGINAL,
    thumbnail=THUMBNAIL,
    copies=[Layer(model, files) for model, files in name_pictures(models).items()],
    overlays=[
      Overlay(
        title,
        [
          files if name != ATTENTION or model in attentive else None
          for model, files in name_pictures(models, name).items()
        ],
      )
      for name, title in _OVERLAYS.items()
      if name in outputs
    ],
    setting=Setting("Signs", [CASES[case].signs for case in SAVED], "choice"),
    scores=[_describe_score(name) for name in _COMPARED],
    entries=[
      Entry(
        stem.relative_to(folder),
        *(str(path), width, height),
        [[_select(scores[case][index].get(model)) for model in models] for case in SAVED],
      )
      for index, (path, (stem, height, width)) in enumerate(images.items())
    ],
  )


def _select(scores: ImageScores | None) -> list[float | None] | None:
  return None if scores is None else [scores[name] for name in _COMPARED]


def _describe_score(name: str) -> Score:
  if name == "lmbda":
    return Score(name, digits=None)
  unit = "dB" if name in CHANNEL_PSNR else METRICS[name].unit
  return Score(_NAMES[name], unit, 2 if unit == "dB" else DIGITS.get(name, 3 if unit else 4))

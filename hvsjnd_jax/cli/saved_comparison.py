"""The pictures that `compare --save` writes: an image, and every model's copies and maps of it."""

import re
from collections.abc import Sequence
from pathlib import Path

from hvsjnd_jax.cli.command import UsageError
from hvsjnd_jax.cli.outputs import writing
from hvsjnd_jax.cli.saved_images import (
  ATTENTION,
  DISTORTED,
  JND,
  ORIGINAL,
  THUMBNAIL,
  VISION_MAPS,
  has_page,
  output,
  write_thumbnail,
)
from hvsjnd_jax.data import paths
from hvsjnd_jax.data.images import write_png
from hvsjnd_jax.evaluation.comparison import CASES, SCORED, Case, Comparison
from hvsjnd_jax.evaluation.estimators import has_attention
from hvsjnd_jax.evaluation.vision_maps import find_models
from hvsjnd_jax.ops.types import Pixels

# The cases whose copies are written. They differ in the signs of the noise alone.
SAVED: tuple[Case, ...] = ("channels", "channels_own")

OUTPUTS = (ORIGINAL, DISTORTED, JND, ATTENTION, *VISION_MAPS)


def choose_outputs(asked: Sequence[str] | None, models: Sequence[str]) -> tuple[str, ...]:
  """Chooses what to write for each image: what is asked for, or all but maps that no score is of.

  Raises:
    UsageError: If attention is asked for, and none of the models has HVS-SD.
  """
  attention = any(map(has_attention, models))
  if asked:
    if ATTENTION in asked and not attention:
      raise UsageError(f"--outputs {ATTENTION}: no model has HVS-SD, and so none has attention")
    return tuple(asked)
  lacking = {name for name, vision in VISION_MAPS.items() if vision not in find_models(SCORED)}
  return tuple(name for name in OUTPUTS if name not in lacking and (attention or name != ATTENTION))


def find_maps(outputs: Sequence[str]) -> list[str]:
  """Lists the maps among the outputs, by the names that `compare` has for them."""
  return [name.removesuffix(".png") for name in outputs if name not in (ORIGINAL, DISTORTED)]


def name_pictures(models: Sequence[str], kind: str = DISTORTED) -> dict[str, list[str]]:
  """Names each model's pictures of one kind, one for each of the cases in `SAVED`.

  Models that are folders are called by their path's letters and digits, with a number where two
  would be called the same. Maps that do not depend on the noise are one file for all cases.

  Args:
    models: All models, in order.
    kind: One of `OUTPUTS`, without the original.

  Examples:
    >>> name_pictures(["wu_2017", "out/wu_2017", "out/wu-2017"])["out/wu-2017"]
    ['out-wu-2017-2@shared.png', 'out-wu-2017-2@own.png']
    >>> name_pictures(["fast"], "jnd.png")
    {'fast': ['fast@jnd.png', 'fast@jnd.png']}
    >>> name_pictures(["fast"], "cvvdp_fhd.png")
    {'fast': ['fast@cvvdp-fhd@shared.png', 'fast@cvvdp-fhd@own.png']}
  """
  words: dict[str, str] = {}
  for model in models:
    word = plain = re.sub(r"[^A-Za-z0-9]+", "-", model).strip("-") or "model"
    count = 1
    while word in words.values():
      count += 1
      word = f"{plain}-{count}"
    words[model] = word
  # Without underscores, so that no name ends in one and another name.
  of_kind = "" if kind == DISTORTED else "@" + kind.removesuffix(".png").replace("_", "-")
  of_case = [f"@{CASES[case].signs}" if kind not in (JND, ATTENTION) else "" for case in SAVED]
  return {
    model: [f"{word}{of_kind}{signs}.png" for signs in of_case] for model, word in words.items()
  }


def list_names(models: Sequence[str], outputs: Sequence[str]) -> list[str]:
  """Lists the names of all that is written for an image."""
  kinds = [kind for kind in outputs if kind != ORIGINAL]
  files = [
    name for kind in kinds for names in name_pictures(models, kind).values() for name in names
  ]
  plain = [ORIGINAL] if ORIGINAL in outputs else []
  return [*plain, *([THUMBNAIL] if has_page(outputs) else []), *dict.fromkeys(files)]


def save_comparison(
  stem: Path,
  models: Sequence[str],
  outputs: Sequence[str],
  pixels: Pixels,
  compared: Comparison,
) -> None:
  """Writes pictures of one image.

  Args:
    stem: What `make_stems` returned for it.
    models: All models, in order; one that failed on this image has no pictures.
    outputs: Which pictures, of `OUTPUTS`.
    pixels: The image.
    compared: What was computed of it, with the pictures of the cases in `SAVED`.

  Raises:
    UsageError: If one cannot be written.
  """
  pictures = {ORIGINAL: pixels} if ORIGINAL in outputs else {}
  for kind in outputs:
    for model, names in name_pictures(models, kind).items():
      for case, name in zip(SAVED, names, strict=True):
        if (picture := _find_picture(compared, case, model, kind)) is not None:
          pictures[name] = picture
  with writing(stem):
    paths.make_folder(stem.parent)
    for name, picture in pictures.items():
      write_png(output(stem, name), picture)
    if has_page(outputs):
      write_thumbnail(stem, pixels)


def _find_picture(compared: Comparison, case: Case, model: str, kind: str) -> Pixels | None:
  if kind == DISTORTED:
    return compared.noisy[case].get(model)
  return compared.maps[case].get(model, {}).get(kind.removesuffix(".png"))

"""Folders that `eval --save` and `compare --save` could have written, drawn without a model."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hvsjnd_jax.cli.jsonl import Record, Settings
from hvsjnd_jax.cli.pages import describe_comparison, describe_evaluation, write_page
from hvsjnd_jax.cli.saved_comparison import SAVED, save_comparison
from hvsjnd_jax.cli.saved_images import list_names, make_stems, save_outputs, write_thumbnail
from hvsjnd_jax.data.images import Picture
from hvsjnd_jax.evaluation.comparison import SCORED, Case, Comparison
from hvsjnd_jax.evaluation.evaluate import Copy, Evaluation
from hvsjnd_jax.evaluation.scores import ALL_PSNR, ImageScores, ScoreTable

LMBDAS = (5.0, 10.0, 20.0)

MODELS = ("default", "out/my <b>weights</b>", "uniform")

_COMPARED = ("original.png", "distorted.png", "jnd.png", "attention.png", "butteraugli.png")

_OUTPUTS = ("original.png", "distorted.png", "jnd.png", "attention.png", "butteraugli.png")


def paint(seed: int, height: int = 24, width: int = 40) -> np.ndarray:
  """Draws an image whose every pixel differs from its neighbours."""
  return np.random.default_rng(seed).integers(40, 216, (height, width, 3)).astype(np.uint8)


def distort(pixels: np.ndarray, lmbda: float) -> np.ndarray:
  """Draws the copy of an image that its page shows: lighter by so many gray levels."""
  return (pixels + np.uint8(lmbda)).astype(np.uint8)


def write_evaluation(folder: Path, paths: Sequence[Path], *, drawn: int | None = None) -> None:
  """Writes the page of an evaluation, whose PSNR falls with lmbda and from one image to the next.

  Args:
    folder: Where to.
    paths: The images' names.
    drawn: How many of them have all pictures, the others having thumbnails; None means all.
  """
  stems = make_stems(list(paths), folder, list_names(_OUTPUTS, LMBDAS[1:]))
  records: list[Record] = [{"path": "broken.png", "error": "not an image that Pillow can read"}]
  for index, path in enumerate(paths):
    pixels = paint(index)
    copies = [_copy(pixels, lmbda, index) for lmbda in LMBDAS]
    first, *others = [{"lmbda": copy.lmbda, **copy.scores} for copy in copies]
    height, width, _ = pixels.shape
    record: dict[str, Any] = {"path": str(path), "height": height, "width": width, **first}
    records.append({**record, "others": others, "saved": str(stems[path])})
    if drawn is None or index < drawn:
      jnd, attention = np.full(pixels.shape, 0.01), np.full((height, width), 1.0)
      evaluated = Evaluation(jnd, attention, copies)
      save_outputs(stems[path], _OUTPUTS, Picture(pixels), evaluated)
    else:
      write_thumbnail(stems[path], pixels)
  settings: Settings = {
    **{"lmbda": LMBDAS, "target_psnr": None, "seed": 0, "metrics": ("psnr", "ssimulacra2")},
    **{"outputs": _OUTPUTS},
  }
  write_page(folder, describe_evaluation(folder, "default", settings, records))


def _copy(pixels: np.ndarray, lmbda: float, index: int) -> Copy:
  scores: ImageScores = dict.fromkeys(ALL_PSNR, 50 - lmbda - index)
  # With the second lmbda the images' order is the other way round.
  step = -1 if lmbda == LMBDAS[1] else 1
  scores["ssimulacra2"] = 80.0 + step * (index % 3) if index else None
  maps = {"butteraugli": np.full(pixels.shape[:2], lmbda / 10)}
  return Copy(distort(pixels, lmbda).astype(np.float32) / 255, lmbda, scores, maps)


def write_comparison(folder: Path, paths: Sequence[Path]) -> None:
  """Writes the page of a comparison, in which the last model failed on the second image.

  Only the first model has attention. A map is as light as the number of its model, and that of
  Butteraugli lighter for signs of the channels' own.
  """
  stems = make_stems(list(paths), folder, [])
  tables: dict[Case, list[ScoreTable]] = {case: [] for case in SAVED}
  images: dict[Path, tuple[Path, int, int]] = {}
  for index, path in enumerate(paths):
    pixels = paint(index)
    models = MODELS[:-1] if index == 1 else MODELS
    noisy: dict[Case, dict[str, np.ndarray]] = {
      case: {model: distort(pixels, 20 * k + 2 + j) for j, model in enumerate(models)}
      for k, case in enumerate(SAVED)
    }
    for case in SAVED:
      scored: ImageScores = dict.fromkeys((*SCORED, *ALL_PSNR), 30.0 + index)
      tables[case].append(dict.fromkeys(models, scored))
    maps: dict[Case, dict[str, dict[str, np.ndarray]]] = {
      case: {model: _draw_maps(pixels, j, k) for j, model in enumerate(models)}
      for k, case in enumerate(SAVED)
    }
    save_comparison(stems[path], MODELS, _COMPARED, pixels, Comparison({}, noisy, [], maps))
    images[path] = (stems[path], *pixels.shape[:2])
  written = (MODELS, _COMPARED, MODELS[:1])
  write_page(folder, describe_comparison(folder, *written, images, tables, psnr_db=30, seed=0))


def _draw_maps(pixels: np.ndarray, model: int, case: int) -> dict[str, np.ndarray]:
  maps = {"jnd": 10 + model, "butteraugli": 100 + 20 * case + model}
  if not model:
    maps["attention"] = 50
  return {name: np.full_like(pixels, level) for name, level in maps.items()}


def find_data(text: str) -> str:
  """Finds the JSON in a page's text."""
  [encoded] = re.findall(r'id="data">(.*?)</script>', text)
  return encoded


def read_page(file: str) -> dict[str, Any]:
  """Reads what a page shows, whose pictures must all be there."""
  data = json.loads(find_data(Path(file).read_text()))
  layers = [copy["files"] for copy in data["copies"]]
  layers += [files for overlay in data["overlays"] for files in overlay["files"] if files]
  files = [name for names in layers for name in names]
  for image in data["images"]:
    for name in (data["original"], data["thumbnail"], *files):
      assert Path(file).parent.joinpath(image["url"] + name).is_file()
  return data

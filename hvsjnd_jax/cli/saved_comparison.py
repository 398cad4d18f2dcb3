"""The pictures that `compare --save` writes of an image: itself, and every model's noisy copies."""

import re
from collections.abc import Sequence
from pathlib import Path

from hvsjnd_jax.cli.outputs import writing
from hvsjnd_jax.cli.saved_images import ORIGINAL, THUMBNAIL, output, write_thumbnail
from hvsjnd_jax.data import paths
from hvsjnd_jax.data.images import write_png
from hvsjnd_jax.evaluation.comparison import CASES, Case, Comparison
from hvsjnd_jax.ops.types import Pixels

# The cases whose copies are written. They differ in the signs of the noise alone.
SAVED: tuple[Case, ...] = ("channels", "channels_own")


def name_copies(models: Sequence[str]) -> dict[str, list[str]]:
  """Names each model's copies, one for each of the cases in `SAVED`.

  Models that are folders are called by their path's letters and digits, with a number where two
  would be called the same.

  Examples:
    >>> name_copies(["wu_2017", "out/wu_2017", "out/wu-2017"])["out/wu-2017"]
    ['out-wu-2017-2@shared.png', 'out-wu-2017-2@own.png']
  """
  words: dict[str, str] = {}
  for model in models:
    word = plain = re.sub(r"[^A-Za-z0-9]+", "-", model).strip("-") or "model"
    count = 1
    while word in words.values():
      count += 1
      word = f"{plain}-{count}"
    words[model] = word
  return {
    model: [f"{word}@{CASES[case].signs}.png" for case in SAVED] for model, word in words.items()
  }


def list_names(models: Sequence[str]) -> list[str]:
  """Lists the names of all that is written for an image."""
  return [ORIGINAL, THUMBNAIL, *(name for names in name_copies(models).values() for name in names)]


def save_comparison(
  stem: Path, models: Sequence[str], pixels: Pixels, compared: Comparison
) -> None:
  """Writes an image and its noisy copies.

  Args:
    stem: What `make_stems` returned for it.
    models: All models, in order; one that failed on this image has no copy.
    pixels: The image.
    compared: What was computed of it, with the pictures of the cases in `SAVED`.

  Raises:
    UsageError: If one cannot be written.
  """
  with writing(stem):
    paths.make_folder(stem.parent)
    write_png(output(stem, ORIGINAL), pixels)
    for model, names in name_copies(models).items():
      for case, name in zip(SAVED, names, strict=True):
        if model in compared.noisy[case]:
          write_png(output(stem, name), compared.noisy[case][model])
    write_thumbnail(stem, pixels)

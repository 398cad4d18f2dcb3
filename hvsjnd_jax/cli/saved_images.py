"""The pictures that `eval --save` writes of an image, and where they lie."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from hvsjnd_jax.cli.command import UsageError
from hvsjnd_jax.cli.outputs import make_folder, writing
from hvsjnd_jax.data.images import Picture, place, to_uint8, write_npy, write_png
from hvsjnd_jax.evaluation.evaluate import Evaluation
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.viz import sheets

_ATTENTION = "attention.png"

OUTPUTS = ("distorted.png", "jnd.png", "jnd.npy", _ATTENTION, "sheet.png")


def parse_outputs(text: str) -> tuple[str, ...]:
  """Parses names of outputs, separated by commas, as the type of an option.

  Raises:
    ArgumentTypeError: If one is unknown; the message lists those that are known.
  """
  names = {name.strip() for name in text.split(",")}
  if unknown := names - set(OUTPUTS):
    raise argparse.ArgumentTypeError(
      f"unknown output {min(unknown)!r}; known: {', '.join(OUTPUTS)}"
    )
  return tuple(name for name in OUTPUTS if name in names)


def choose_outputs(asked: Sequence[str] | None, model: JNDModel) -> tuple[str, ...]:
  """Chooses what to write for each image: what is asked for, or all that there is.

  Raises:
    UsageError: If attention is asked for, and the model has no HVS-SD.
  """
  possible = tuple(name for name in OUTPUTS if model.hvs_sd or name != _ATTENTION)
  if asked and not set(asked) <= set(possible):
    raise UsageError(f"--outputs {_ATTENTION}: the model has no HVS-SD, and so no attention")
  return tuple(asked or possible)


def make_stems(files: list[Path], folder: Path) -> dict[Path, Path]:
  """Maps each image to where its pictures go, less their suffixes.

  The pictures lie below the folder as the images lie below their common one. Where two images
  differ in the extension only, all of them keep theirs, so that the names depend on the set of
  files, not on their order.

  Raises:
    UsageError: If the folder cannot be made, or a picture would replace one of the images.
  """
  make_folder(folder)
  places = {file: place(file) for file in files}
  root = os.path.commonpath([path.parent for path in places.values()])
  stems = {file: folder / path.relative_to(root).with_suffix("") for file, path in places.items()}
  if len(set(stems.values())) < len(files):
    stems = {file: folder / path.relative_to(root) for file, path in places.items()}
  inputs = set(places.values())
  for stem in stems.values():
    placed = place(stem)
    for name in OUTPUTS:
      if _output(placed, name) in inputs:
        raise UsageError(
          f"{_output(stem, name)} is an image to evaluate; choose another folder for --save"
        )
  return stems


def _output(stem: Path, name: str) -> Path:
  return stem.with_name(f"{stem.name}_{name}")


def save_outputs(stem: Path, names: Sequence[str], picture: Picture, evaluated: Evaluation) -> None:
  """Writes pictures of one image.

  Args:
    stem: What `make_stems` returned for it.
    names: Which pictures, of `OUTPUTS`.
    picture: The image. Where it has alpha, so has the distorted copy.
    evaluated: What was computed of it.

  Raises:
    UsageError: If one cannot be written.
  """
  distorted, jnd, attention, lmbda, scores = evaluated
  draw: dict[str, Callable[[], np.ndarray]] = {
    "distorted.png": lambda: _add_alpha(distorted, picture.alpha),
    "jnd.png": lambda: sheets.visible_jnd(jnd)[0],
    "jnd.npy": lambda: jnd,
    _ATTENTION: lambda: sheets.jet(np.asarray(attention)),
    "sheet.png": lambda: sheets.analysis_sheet(
      picture.pixels,
      attention=attention,
      jnd=jnd,
      distorted=distorted,
      note=f"lmbda {lmbda:g}: {scores['psnr']:.2f} dB",
    ),
  }
  with writing(stem):
    stem.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
      write = write_npy if name.endswith(".npy") else write_png
      write(_output(stem, name), draw[name]())


def _add_alpha(
  distorted: Float[np.ndarray, "h w 3"], alpha: UInt8[np.ndarray, "h w"] | None
) -> UInt8[np.ndarray, "h w channels"]:
  """Returns the colours that with this alpha show the distorted image over white."""
  if alpha is None:
    return to_uint8(distorted)
  opacity = np.maximum(alpha, 1)[..., None].astype(np.float32) / 255
  colors = np.where(alpha[..., None] > 0, 1 - (1 - distorted) / opacity, 1)
  return np.concatenate([to_uint8(colors), alpha[..., None]], axis=-1)

"""The pictures that `eval --save` writes of an image, and where they lie."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hvsjnd_jax.cli.command import UsageError
from hvsjnd_jax.cli.outputs import make_folder, writing
from hvsjnd_jax.data.images import place, to_uint8, write_npy, write_png
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.viz import sheets

OUTPUTS = ("distorted.png", "jnd.png", "jnd.npy", "attention.png", "sheet.png")


def parse_outputs(text: str) -> tuple[str, ...]:
  """Names of outputs, separated by commas; the type of an option.

  Raises:
    ArgumentTypeError: If one is unknown; the message lists those that are.
  """
  names = {name.strip() for name in text.split(",")}
  if unknown := names - set(OUTPUTS):
    raise argparse.ArgumentTypeError(
      f"unknown output {min(unknown)!r}; known: {', '.join(OUTPUTS)}"
    )
  return tuple(name for name in OUTPUTS if name in names)


def make_stems(files: list[Path], folder: Path) -> dict[Path, Path]:
  """Where each image's pictures go, less their suffixes: the inputs' own tree and names.

  Which names depends on the set of files, not on their order: where two files differ in
  the extension only, all names keep theirs.

  Raises:
    UsageError: If the folder cannot be made, or a picture would lie on one of the files.
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


def save_outputs(
  stem: Path,
  names: Sequence[str],
  pixels: Pixels,
  *,
  distorted: np.ndarray,
  jnd: np.ndarray,
  attention: np.ndarray,
  note: str,
) -> None:
  """Writes pictures of one image.

  Args:
    stem: What `make_stems` gave.
    names: Which, of `OUTPUTS`.
    pixels: The image.
    distorted: With its noise, in [0, 1], [H, W, 3].
    jnd: Its map, [H, W, 3].
    attention: Its attention map, [H, W].
    note: What the sheet says of the distorted image.

  Raises:
    UsageError: If one cannot be written.
  """
  draw: dict[str, Callable[[], np.ndarray]] = {
    "distorted.png": lambda: to_uint8(distorted),
    "jnd.png": lambda: sheets.visible_jnd(jnd)[0],
    "jnd.npy": lambda: jnd,
    "attention.png": lambda: sheets.jet(attention),
    "sheet.png": lambda: sheets.analysis_sheet(
      pixels, attention=attention, jnd=jnd, distorted=distorted, note=note
    ),
  }
  with writing(stem):
    stem.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
      write = write_npy if name.endswith(".npy") else write_png
      write(_output(stem, name), draw[name]())

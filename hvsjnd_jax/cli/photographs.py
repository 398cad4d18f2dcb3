"""Finds a command's photographs, and plans the window that they are computed through."""

import logging
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from hvsjnd_jax.cli.command import UsageError
from hvsjnd_jax.data.images import EXTENSIONS, Picture, find_images, read_picture, read_size
from hvsjnd_jax.model import windows
from hvsjnd_jax.model.jnd_model import MIN_SIDE_PX

# Returns the picture, or raises ImageError.
Read = Callable[[Path], Picture]

# Returns height and width without decoding; None if they cannot be read.
ReadSize = Callable[[Path], tuple[int, int] | None]

# CC0 and public-domain photographs that come with scikit-image.
_SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


class Photographs(NamedTuple):
  """Images by path, or by what stands for one in a dataset, and how they are read."""

  paths: list[Path]
  read: Read = read_picture
  read_size: ReadSize = read_size


def find_photographs(paths: list[Path] | None, *, leave_out: Path | None = None) -> Photographs:
  """Finds the images under `--path`, by default those of scikit-image.

  Prints how many files were passed over.

  Args:
    paths: Images and folders.
    leave_out: A folder that is not searched.

  Raises:
    UsageError: If a path does not exist, or there is no image.
  """
  paths = paths or _locate_samples()
  try:
    files, skipped = find_images(paths, leave_out=leave_out)
  except FileNotFoundError as error:
    raise UsageError(str(error)) from None
  if skipped:
    print(f"Files skipped, having no image's extension: {skipped}")
  if not files:
    where = ", ".join(map(str, paths))
    raise UsageError(f"no image under {where}: looked for {' '.join(sorted(EXTENSIONS))}")
  return Photographs(files)


def _locate_samples() -> list[Path]:
  folder = Path(str(resources.files("skimage") / "data"))
  return [folder / name for name in _SAMPLES]


def open_dataset(name: str, split: str) -> Photographs:
  """Opens a TensorFlow dataset, whose images are called NAME/SPLIT/000000 and so on.

  Raises:
    DataError: If there is no such dataset or split, or it holds no RGB images.
  """
  from hvsjnd_jax.data.sources import PhotoDataset  # TFDS and Grain take seconds

  logging.getLogger("absl").setLevel(logging.ERROR)  # it would recommend OpenCV
  photos = PhotoDataset(name, split)
  return Photographs(
    [Path(name, split, f"{i:06d}") for i in range(len(photos))],
    lambda path: photos.read(int(path.name)),
    lambda path: photos.read_size(int(path.name)),
  )


def plan_window(photographs: Photographs) -> windows.Window:
  """Plans one window for all these images, by the sizes that their headers give."""
  paths, _, read_size = photographs
  sizes = [size for path in paths if (size := read_size(path)) is not None]
  return windows.plan_window(sizes or [(MIN_SIDE_PX, MIN_SIDE_PX)])

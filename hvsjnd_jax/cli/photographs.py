"""The photographs of a command: which files, how they are read, and which do not fit."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import jax

from hvsjnd_jax.cli.command import UsageError
from hvsjnd_jax.data.images import EXTENSIONS, ImageError, find_images, read_image, read_size
from hvsjnd_jax.model import windows
from hvsjnd_jax.model.jnd_model import MIN_SIDE_PX
from hvsjnd_jax.ops.types import Pixels

# Gives the pixels, or raises ImageError.
Read = Callable[[Path], Pixels]

# Gives height and width without decoding; None if they cannot be read.
ReadSize = Callable[[Path], tuple[int, int] | None]

# CC0 and public-domain photographs that come with scikit-image.
_SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


class Photographs(NamedTuple):
  """Images by path, or by what stands for one in a dataset, and how they are read."""

  paths: list[Path]
  read: Read = read_image
  read_size: ReadSize = read_size


def open_dataset(name: str, split: str) -> Photographs:
  """The images of a TensorFlow dataset, as NAME/SHARDED/000000 and so on.

  Raises:
    UsageError: If there is no such dataset or split, or it holds no RGB images.
  """
  from hvsjnd_jax.data.sources import DataError, PhotoDataset  # TFDS and Grain take seconds

  logging.getLogger("absl").setLevel(logging.ERROR)  # it would recommend OpenCV
  try:
    photos = PhotoDataset(name, split)
  except DataError as error:
    raise UsageError(str(error)) from None

  return Photographs(
    [Path(name, split, f"{i:06d}") for i in range(len(photos))],
    lambda path: photos.read(int(path.name)),
    lambda path: photos.read_size(int(path.name)),
  )


def find_photographs(paths: list[Path] | None, *, leave_out: Path | None = None) -> list[Path]:
  """The images under `--path`; without it those of scikit-image. Says what was passed over.

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
  return files


def _locate_samples() -> list[Path]:
  folder = Path(str(resources.files("skimage") / "data"))
  return [folder / name for name in _SAMPLES]


def plan_window(files: list[Path], *, read_size: ReadSize = read_size) -> windows.Window:
  """The window for all these images, by the sizes that their heads give."""
  sizes = [size for file in files if (size := read_size(file)) is not None]
  return windows.plan_window(sizes or [(MIN_SIDE_PX, MIN_SIDE_PX)])


def check_size(pixels: Pixels, *, bytes_per_pixel: int) -> None:
  """Refuses what the estimator cannot take, or what would make the system end the run.

  Args:
    pixels: The image.
    bytes_per_pixel: Memory that the command needs for it.

  Raises:
    ImageError: If the image is too small, or needs more memory than there is.
  """
  height, width = pixels.shape[:2]
  if min(height, width) < MIN_SIDE_PX:
    raise ImageError(f"{width}x{height} pixels; at least {MIN_SIDE_PX}x{MIN_SIDE_PX} are needed")
  need = height * width * bytes_per_pixel
  memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  if jax.default_backend() == "cpu" and need > memory:
    raise ImageError(
      f"{width}x{height} pixels need about {need / 1e9:.0f} GB of memory, and this machine "
      f"has {memory / 1e9:.0f} GB; reduce the image"
    )


@contextlib.contextmanager
def blame_image(pixels: Pixels) -> Iterator[None]:
  """Turns the end of a device's or the host's memory into an `ImageError`."""
  try:
    yield
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    height, width = pixels.shape[:2]
    reason = str(error).partition("\n")[0]
    raise ImageError(f"{width}x{height} pixels cannot be computed here: {reason}") from None

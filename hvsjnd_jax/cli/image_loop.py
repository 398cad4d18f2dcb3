"""The loop of every command over its photographs; what fails on one image ends no run."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import jax
from tqdm import tqdm

from hvsjnd_jax.cli.photographs import Photographs
from hvsjnd_jax.cli.prefetch import read_ahead
from hvsjnd_jax.data.images import ImageError, Picture
from hvsjnd_jax.model.jnd_model import MIN_SIDE_PX
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.ops.types import Pixels

_Result = TypeVar("_Result")

# An image and what was computed of its pixels, or the error that stood in the way.
Outcome = tuple[Picture, _Result] | HVSJNDError


@contextlib.contextmanager
def computing(
  command: str,
  photographs: Photographs,
  compute: Callable[[Pixels], _Result],
  *,
  bytes_per_pixel: int,
  smallest_px: int = MIN_SIDE_PX,
) -> Iterator[Iterator[tuple[Path, Outcome[_Result]]]]:
  """Computes a result for each photograph, and prints a line for each that fails.

  What was remarkable about reading one is printed, too.

  Args:
    command: The command's name, which opens the lines.
    photographs: Which ones, and how they are read; or pairs of them, [2, H, W, 3].
    compute: Computes a result from pixels. An error of ours that it raises is the image's.
    bytes_per_pixel: The memory that it needs, for each pixel.
    smallest_px: The shortest side that it can use.

  Yields:
    An iterator over the paths and their outcomes.
  """

  def compute_one(path: Path, picture: Picture | ImageError) -> Outcome[_Result]:
    try:
      if isinstance(picture, ImageError):
        raise picture
      for remark in picture.remarks:
        report_error(command, str(path), remark)
      check_size(picture.pixels, bytes_per_pixel=bytes_per_pixel, smallest_px=smallest_px)
      with _blaming_image(picture.pixels):
        return picture, compute(picture.pixels)
    except HVSJNDError as error:
      report_error(command, str(path), error)
      return error

  with read_ahead(photographs.paths, photographs.read) as images:
    yield ((path, compute_one(path, picture)) for path, picture in images)


def report_error(command: str, subject: str, error: object) -> None:
  """Prints an error, or a remark, on stderr, above the progress bar."""
  tqdm.write(f"{command}: {subject}: {error}", file=sys.stderr)


def check_size(pixels: Pixels, *, bytes_per_pixel: int, smallest_px: int = MIN_SIDE_PX) -> None:
  """Refuses an image that is too small, or that takes more memory than there is.

  The system would end the whole run, not the image, if it ran out of memory.

  Args:
    pixels: The image, or a pair.
    bytes_per_pixel: The memory that the command needs, for each pixel.
    smallest_px: The shortest side that it can use.

  Raises:
    ImageError: If it does not fit.
  """
  height, width = pixels.shape[-3:-1]
  if min(height, width) < smallest_px:
    raise ImageError(f"{width}x{height} pixels; at least {smallest_px}x{smallest_px} are needed")
  need = height * width * bytes_per_pixel
  memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  if jax.default_backend() == "cpu" and need > memory:
    raise ImageError(
      f"{width}x{height} pixels need about {need / 1e9:.0f} GB of memory, and this machine "
      f"has {memory / 1e9:.0f} GB; reduce the image"
    )


@contextlib.contextmanager
def _blaming_image(pixels: Pixels) -> Iterator[None]:
  """Turns running out of memory, the device's or the host's, into an `ImageError`."""
  try:
    yield
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    height, width = pixels.shape[-3:-1]
    reason = str(error).partition("\n")[0]
    raise ImageError(f"{width}x{height} pixels cannot be computed here: {reason}") from None

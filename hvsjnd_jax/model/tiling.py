"""Tiles: how windows of one shape cover a batch of images.

Neighbouring windows overlap by the reach of what is computed in them on either side, and each
keeps its inner part. Everything here is NumPy on the host.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hvsjnd_jax.ops.samples import to_unit

Sides = tuple[int, int]  # height and width of a window


class Tile(NamedTuple):
  """The place of a window over an image, and the part of the image that the window gives."""

  image: int
  top: int
  left: int
  rows: slice  # of the image
  columns: slice

  @property
  def place(self) -> tuple[int, slice, slice]:
    """Where the kept part lies in the batch."""
    return self.image, self.rows, self.columns

  @property
  def inner(self) -> tuple[slice, slice]:
    """Where the kept part lies in the window."""
    return _move(self.rows, self.top), _move(self.columns, self.left)

  def scale_down(self, stride: int) -> "Tile":
    """Gives the tile of maps that are smaller by `stride`, sides rounded up."""
    rows, columns = (slice(s.start // stride, -(-s.stop // stride)) for s in self[3:])
    return Tile(self.image, self.top // stride, self.left // stride, rows, columns)


def _move(part: slice, origin: int) -> slice:
  return slice(part.start - origin, part.stop - origin)


def cover(shape: tuple[int, ...], sides: Sides, reach: int) -> Iterator[Tile]:
  """Covers a batch of images with windows.

  Args:
    shape: Shape of the batch, (B, H, W, ...).
    sides: Height and width of the windows.
    reach: How far a pixel of the result sees; inner parts lie so far from a window's edge.
  """
  b, h, w, *_ = shape
  for image in range(b):
    for top, rows in _cover_axis(h, sides[0], reach):
      for left, columns in _cover_axis(w, sides[1], reach):
        yield Tile(image, top, left, rows, columns)


def _cover_axis(length: int, side: int, reach: int) -> Iterator[tuple[int, slice]]:
  """Gives the start of every window along one axis, and the part of the axis that it keeps."""
  for start in range(0, length, side - 2 * reach):
    last = start + side >= length
    yield start, slice(start + reach if start else 0, length if last else start + side - reach)
    if last:
      return


def read(batch: np.ndarray, tile: Tile, sides: Sides, dtype: np.dtype) -> np.ndarray:
  """Reads what the window sees of its image; samples of 8 or 16 bits become values in [0, 1]."""
  part = batch[tile.image, tile.top : tile.top + sides[0], tile.left : tile.left + sides[1]]
  return to_unit(part, dtype) if np.issubdtype(part.dtype, np.integer) else part.astype(dtype)


def fill(part: np.ndarray, sides: Sides) -> np.ndarray:
  """Fills a part up to the size of the window with zeros."""
  filled = np.zeros((*sides, part.shape[-1]), part.dtype)
  filled[: part.shape[0], : part.shape[1]] = part
  return filled

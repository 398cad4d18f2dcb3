"""Bilinear resizing with half-pixel centres; past an edge, the edge is repeated."""

import jax
import jax.numpy as jnp
from jax import lax

from hvsjnd_jax.model.extents import Extent, extend_past
from hvsjnd_jax.ops.types import AnyArray, Images


def upsample_2x(maps: Images, *, extent: Extent | None = None) -> Images:
  """Doubles height and width."""
  for axis in (1, 2):
    padded = jnp.pad(maps, [(1, 1) if i == axis else (0, 0) for i in range(4)], mode="edge")
    padded = extend_past(padded, extent, axis, step=1)
    before, after = (
      lax.slice_in_dim(padded, start, start + maps.shape[axis], axis=axis) for start in (0, 2)
    )
    # The even and the odd rows (columns) of the result.
    halves = (0.75 * maps + 0.25 * before, 0.75 * maps + 0.25 * after)
    shape = [size * (2 if i == axis else 1) for i, size in enumerate(maps.shape)]
    maps = jnp.stack(halves, axis=axis + 1).reshape(shape)
  return maps


def resize(maps: AnyArray, size: tuple[int, int]) -> AnyArray:
  """Resizes to any size, without antialiasing even when shrinking (as PyTorch).

  NumPy arrays are resized on the host, where a new size compiles nothing.

  Args:
    maps: Float maps, [..., H, W, C].
    size: Height and width of the result.

  Returns:
    Maps of the same type, [..., *size, C].
  """
  *batch, h, w, c = maps.shape
  rows, columns = (_interpolate(maps, *lengths) for lengths in zip((h, w), size, strict=True))
  with jax.default_matmul_precision("highest"):  # accelerators would multiply in bfloat16
    wide = (columns @ maps).reshape(*batch, h, size[1] * c)
    return (rows @ wide).reshape(*batch, *size, c)


def _interpolate(maps: AnyArray, old: int, new: int) -> AnyArray:
  """Builds the matrix that interpolates one axis, [new, old].

  Position i of the result lies at p = (i + 1/2) old / new - 1/2, and the weight of j is
  max(0, 1 - |p - j|). Positions count in units of 1 / (2 new), where they are whole numbers.
  """
  namespace = maps.__array_namespace__()
  unit = 2 * new
  positions = (2 * namespace.arange(new) + 1) * old - new
  targets = unit * namespace.arange(old)[None]
  distances = abs(positions.clip(0, unit * (old - 1))[:, None] - targets)
  return (1 - distances / unit).clip(0).astype(maps.dtype)

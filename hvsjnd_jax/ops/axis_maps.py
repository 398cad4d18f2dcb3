"""Linear maps along one axis of an image: blurs, halvings, expansions, with any border.

A map is a matrix [outputs, inputs], made once in NumPy, whose nonzeros lie near a diagonal.
It is applied tile by tile as small dense products. On a CPU these take a tenth to a thirtieth
of the time of a convolution with one channel, and they suit a matrix unit.

The transpose of a map is the same product with the transposed matrix (`linear_maps`).
"""

import functools
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from hvsjnd_jax.ops.linear_maps import linear

Border = Literal["zero", "renormalize", "symmetric", "reflect"]
Matrix = Float[np.ndarray, "outputs inputs"]

# Rows of the matrix in one product: of 32, 64 and 128 the fastest, with its gradient.
_TILE_ROWS = 64

# Of the products, on every device: the models of vision are made of differences of blurs.
PRECISION: lax.Precision | None = lax.Precision.HIGHEST


class AxisMap:
  """A matrix that acts on one axis. It is hashed by identity, so make it once and keep it.

  Only the tiles around the diagonal are kept, of the matrix and of its transpose.

  Args:
    matrix: [outputs, inputs].

  Attributes:
    outputs: Length of the axis that a call returns.
    inputs: Length of the axis that it takes.
    tiles: For every 64 rows, the first input that they use, and their block of the matrix.
    transposed: The map of the transposed matrix.
  """

  def __init__(self, matrix: Matrix, *, _transposed: "AxisMap | None" = None):
    self.outputs, self.inputs = matrix.shape
    self.tiles = _cut_tiles(matrix)
    self.transposed: AxisMap = _transposed or AxisMap(matrix.T, _transposed=self)

  def __call__(self, arrays: Float[Array, "..."], *, axis: int) -> Float[Array, "..."]:
    """Applies the map along an axis of `inputs` entries; `outputs` entries take their place."""
    return _axis_map(arrays, map=self, axis=axis % arrays.ndim)

  def to_matrix(self) -> Matrix:
    """Returns the matrix, dense."""
    matrix = np.zeros((self.outputs, self.inputs))
    for i, (low, block) in enumerate(self.tiles):
      start = i * _TILE_ROWS
      matrix[start : start + len(block), low : low + block.shape[1]] = block
    return matrix


def filter_matrix(taps: Float[np.ndarray, " n"], size: int, *, border: Border) -> Matrix:
  """Makes the matrix that filters `size` entries with an odd number of taps.

  Args:
    taps: Weights of the entries around each one, the middle one being its own.
    size: Length of the axis.
    border: What lies past the ends: "zero"; "renormalize", nothing, the taps inside being
      scaled to the sum of all; "symmetric", the entries mirrored, the last one twice; or
      "reflect", the entries mirrored about the last one.
  """
  radius = len(taps) // 2
  rows = np.arange(size)
  matrix = np.zeros((size, size))
  for offset, tap in zip(range(-radius, radius + 1), taps, strict=True):
    columns = rows + offset
    if border in ("zero", "renormalize"):
      inside = (columns >= 0) & (columns < size)
      matrix[rows[inside], columns[inside]] += tap
    else:
      np.add.at(matrix, (rows, _mirror(columns, size, twice=border == "symmetric")), tap)
  if border == "renormalize":
    matrix *= taps.sum() / matrix.sum(axis=1, keepdims=True)
  return matrix


def halve(arrays: Float[Array, "..."]) -> Float[Array, "..."]:
  """Halves the last two axes by means of two entries; an odd last entry stays as it is."""
  h, w = arrays.shape[-2:]
  return _halving(h)(_halving(w)(arrays, axis=-1), axis=-2)


@functools.lru_cache(maxsize=64)
def _halving(size: int) -> AxisMap:
  matrix = np.zeros((-(-size // 2), size))
  matrix[np.arange(size) // 2, np.arange(size)] = 0.5
  return AxisMap(matrix / matrix.sum(axis=1, keepdims=True))


def _mirror(indices: np.ndarray, size: int, *, twice: bool) -> np.ndarray:
  period = 2 * size if twice else max(2 * size - 2, 1)
  indices = indices % period
  return np.where(indices < size, indices, period - indices - int(twice))


def _cut_tiles(matrix: Matrix) -> list[tuple[int, Matrix]]:
  tiles = []
  for start in range(0, len(matrix), _TILE_ROWS):
    rows = matrix[start : start + _TILE_ROWS]
    used = np.flatnonzero(rows.any(axis=0))
    low, high = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 1)
    tiles.append((low, rows[:, low:high].copy()))  # a view would keep the whole matrix
  return tiles


def _apply(arrays: Array, *, map: AxisMap, axis: int) -> Array:
  moved = axis < arrays.ndim - 2
  if moved:
    arrays = jnp.moveaxis(arrays, axis, -1)
  is_last = moved or axis == arrays.ndim - 1
  equation = "...j,ij->...i" if is_last else "...jk,ij->...ik"
  place = arrays.ndim - (1 if is_last else 2)
  parts = []
  for low, block in map.tiles:
    part = lax.slice_in_dim(arrays, low, low + block.shape[1], axis=place)
    factor = jnp.asarray(block, arrays.dtype)
    parts.append(jnp.einsum(equation, part, factor, precision=PRECISION))
  result = jnp.concatenate(parts, axis=place)
  return jnp.moveaxis(result, -1, axis) if moved else result


_axis_map = linear(
  _apply,
  lambda cotangent, *, map, axis: map.transposed(cotangent, axis=axis),
  static=("map", "axis"),
  batch=lambda arrays, *, map, axis: map(arrays, axis=axis + 1),
)

"""Linear maps along one axis of an image: blurs, halvings, expansions, with any border.

A map is a matrix [outputs, inputs], made once in NumPy, whose nonzeros lie near a diagonal.
It is applied tile by tile as small dense products, which on a CPU takes a tenth to a thirtieth
of the time of a one-channel convolution (`tests/benchmarks`), and suits a matrix unit.

The map is a primitive of its own, so that its transpose is the same product with the
transposed matrix: forward mode, reverse mode of any order and `jax.vmap` all work on it.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

Border = Literal["zero", "renormalize", "symmetric", "reflect"]
Matrix = Float[np.ndarray, "outputs inputs"]

# Rows of the matrix in one product. Of 32, 64 and 128 the fastest, value and gradient together.
_TILE = 64


class AxisMap:
  """A matrix that acts on one axis. Hashed by identity: make it once and keep it.

  Args:
    matrix: [outputs, inputs].
  """

  def __init__(self, matrix: Matrix):
    self.matrix = matrix
    self._transposed: AxisMap | None = None

  @property
  def transposed(self) -> "AxisMap":
    """The map of the transposed matrix."""
    if self._transposed is None:
      self._transposed = AxisMap(self.matrix.T)
      self._transposed._transposed = self
    return self._transposed

  def __call__(self, arrays: Float[Array, "..."], *, axis: int) -> Float[Array, "..."]:
    """Applies the map along an axis, of `inputs` entries; `outputs` are left."""
    return _axis_map.bind(arrays, map=self, axis=axis % arrays.ndim)


def filter_matrix(taps: Float[np.ndarray, " n"], size: int, *, border: Border) -> Matrix:
  """The matrix that filters `size` entries with an odd number of taps.

  Args:
    taps: Weights of the entries around each one, the middle one being its own.
    size: Length of the axis.
    border: What lies past the ends: "zero"; "renormalize", nothing, the taps inside being
      scaled to the sum of all; "symmetric", the entries mirrored, the last one twice; or
      "reflect", mirrored about the last one.
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


def _mirror(indices: np.ndarray, size: int, *, twice: bool) -> np.ndarray:
  period = 2 * size if twice else max(2 * size - 2, 1)
  indices = indices % period
  return np.where(indices < size, indices, period - indices - int(twice))


def _apply(arrays: Array, *, map: AxisMap, axis: int) -> Array:
  arrays = jnp.moveaxis(arrays, axis, -1) if axis < arrays.ndim - 2 else arrays
  last = axis != arrays.ndim - 2 or arrays.ndim == 1
  equation = "...j,ij->...i" if last else "...jk,ij->...ik"
  place = arrays.ndim - (1 if last else 2)
  parts = []
  for start in range(0, len(map.matrix), _TILE):
    rows = map.matrix[start : start + _TILE]
    used = np.flatnonzero(rows.any(axis=0))
    low, high = (used[0], used[-1] + 1) if used.size else (0, 1)
    part = jax.lax.slice_in_dim(arrays, int(low), int(high), axis=place)
    block = jnp.asarray(rows[:, low:high], arrays.dtype)
    parts.append(jnp.einsum(equation, part, block, precision=jax.lax.Precision.HIGHEST))
  result = jnp.concatenate(parts, axis=place)
  return jnp.moveaxis(result, -1, axis) if axis < arrays.ndim - 2 else result


def _abstract(arrays: Any, *, map: AxisMap, axis: int) -> Any:
  shape = (*arrays.shape[:axis], len(map.matrix), *arrays.shape[axis + 1 :])
  return ShapedArray(shape, arrays.dtype)


def _transpose(cotangent: Any, arrays: Any, *, map: AxisMap, axis: int) -> list[Any]:
  del arrays
  if type(cotangent) is ad.Zero:
    return [cotangent]
  return [map.transposed(cotangent, axis=axis)]


def _batch(arguments: Any, axes: Any, *, map: AxisMap, axis: int) -> tuple[Any, int]:
  arrays = jnp.moveaxis(arguments[0], axes[0], 0)
  return map(arrays, axis=axis + 1), 0


_axis_map = Primitive("axis_map")
_axis_map.def_impl(jax.jit(_apply, static_argnames=("map", "axis")))
_axis_map.def_abstract_eval(_abstract)
ad.deflinear2(_axis_map, _transpose)
batching.primitive_batchers[_axis_map] = _batch
mlir.register_lowering(_axis_map, mlir.lower_fun(_apply, multiple_results=False))

"""Malta: the sums of an image along sixteen short lines through each pixel, squared.

Butteraugli's detector of differences that lie along an edge.

A line is the same read from either end, so that summing along it is its own transpose.
With L_k the sums along line k, zeros outside the image, two bilinear maps are thus closed
under every derivative:

  P(u, v) = sum_k (L_k u) (L_k v)        dP/dv, transposed:  g -> Q(u, g)
  Q(u, c) = sum_k L_k (c L_k u)          dQ/dc, transposed:  g -> P(u, g)
                                         dQ/du, transposed:  g -> Q(g, c)

They are primitives for a CPU's sake, each one pass over its planes. Of six planes of
512x768 a product and then its gradient took 8 and 24 ms of one core; slices, as JAX derives
their gradient, 4 and 154, and ten times that where XLA computes the planes again for every
slice; a convolution with sixteen kernels, 250 and 610.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

Planes = Float[Array, "*n h w"]
Offset = tuple[int, int]
# One half of each line, as offsets (dx, dy) from the pixel, which itself belongs to the
# line, as does the other half, mirrored.
Lines = tuple[tuple[Offset, ...], ...]

_REACH = 4

SPARSE: Lines = (
  *(((2, 0), (4, 0)), ((0, 2), (0, 4)), ((2, 2), (3, 3)), ((-2, 2), (-3, 3))),
  *(((-1, 2), (-1, 4)), ((1, 2), (1, 4)), ((2, 1), (4, 1)), ((2, -1), (4, -1))),
  *(((1, 2), (2, 3)), ((-1, 2), (-2, 3)), ((2, 1), (3, 2)), ((-2, 1), (-3, 2))),
  *(((-2, 1), (-4, 2)), ((2, 1), (4, 2)), ((1, 2), (2, 4)), ((-1, 2), (-2, 4))),
)
_BENT: Lines = (
  *(((0, 1), (-1, 2), (-1, 3), (-1, 4)), ((0, 1), (1, 2), (1, 3), (1, 4))),
  *(((1, 0), (2, 1), (3, 1), (4, 1)), ((1, 0), (2, -1), (3, -1), (4, -1))),
)
DENSE: Lines = (
  *(((1, 0), (2, 0), (3, 0), (4, 0)), ((0, 1), (0, 2), (0, 3), (0, 4))),
  *(((1, 1), (2, 2), (3, 3)), ((-1, 1), (-2, 2), (-3, 3))),
  *(((1, 1), (1, 2), (2, 3)), ((-1, 1), (-1, 2), (-2, 3))),
  *(((1, 1), (2, 1), (3, 2)), ((-1, 1), (-2, 1), (-3, 2))),
  *(*_BENT, *_BENT),  # sixteen: these four count twice
)


def malta(planes: Planes, lines: Lines) -> Planes:
  """Adds up, at each pixel, the squares of the sums along the lines through it.

  Args:
    planes: Any values, taken as 0 outside.
    lines: `SPARSE`, five pixels each, or `DENSE`, seven or nine.

  Returns:
    sum_k (L_k planes)², of the same shape.
  """
  return _product.bind(planes, planes, lines=lines)


Reader = Callable[[int, int], Array]


def _multiply(u: Planes, v: Planes, *, lines: Lines) -> Planes:
  """P."""

  def multiply(read_u: Reader, read_v: Reader) -> Array:
    return _add(
      count * _add(read_u(*p) for p in points) * _add(read_v(*p) for p in points)
      for points, count in _count(lines)
    )

  return _plane_by_plane(multiply, (u, _REACH), (v, _REACH))


def _gather(u: Planes, c: Planes, *, lines: Lines) -> Planes:
  """Q, with the inner sums taken anew where they are read: memory costs more than additions."""

  def gather(read_u: Reader, read_c: Reader) -> Array:
    return _add(
      count * read_c(dx, dy) * _add(read_u(dx + px, dy + py) for px, py in points)
      for points, count in _count(lines)
      for dx, dy in points
    )

  return _plane_by_plane(gather, (u, 2 * _REACH), (c, _REACH))


def _count(lines: Lines) -> Iterable[tuple[list[Offset], int]]:
  """All points of each line, and how often it counts."""
  for half, count in Counter(lines).items():
    yield [(0, 0), *half, *((-dx, -dy) for dx, dy in half)], count


def _add(arrays: Iterable[Array]) -> Array:
  return functools.reduce(jnp.add, arrays)


def _plane_by_plane(function: Callable[..., Array], *stacks: tuple[Planes, int]) -> Planes:
  """Applies a function of readers, each of which gives a plane shifted by an offset.

  The loop is there for its border: XLA does not fuse across it. Without it what computes
  the planes is computed again for every offset at which they are read.
  """
  shape = stacks[0][0].shape
  h, w = shape[-2:]
  framed = tuple(
    jnp.pad(planes.reshape(-1, h, w), ((0, 0), (reach, reach), (reach, reach)))
    for planes, reach in stacks
  )

  def apply(planes: tuple[Array, ...]) -> Array:
    def reader(plane: Array, reach: int) -> Reader:
      return functools.cache(
        lambda dx, dy: plane[reach + dy : reach + dy + h, reach + dx : reach + dx + w]
      )

    readers = (reader(plane, reach) for plane, (_, reach) in zip(planes, stacks, strict=True))
    return function(*readers)

  return lax.map(apply, framed).reshape(shape)


def _make_primitive(name: str, function: Callable[..., Planes]) -> Primitive:
  primitive = Primitive(name)
  primitive.def_impl(jax.jit(function, static_argnames="lines"))
  primitive.def_abstract_eval(lambda u, _, *, lines: ShapedArray(u.shape, u.dtype))
  batching.primitive_batchers[primitive] = functools.partial(_batch, primitive)
  mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
  return primitive


def _batch(primitive: Primitive, arguments: Any, axes: Any, *, lines: Lines) -> tuple[Any, int]:
  stacks = (
    stack[None] if axis is None else jnp.moveaxis(stack, axis, 0)
    for stack, axis in zip(arguments, axes, strict=True)
  )
  return primitive.bind(*jnp.broadcast_arrays(*stacks), lines=lines), 0


_product = _make_primitive("malta_product", _multiply)
_adjoint = _make_primitive("malta_adjoint", _gather)
ad.defbilinear(
  _product,
  lambda g, u, v, *, lines: _adjoint.bind(v, g, lines=lines),
  lambda g, u, v, *, lines: _adjoint.bind(u, g, lines=lines),
)
ad.defbilinear(
  _adjoint,
  lambda g, u, c, *, lines: _adjoint.bind(g, c, lines=lines),
  lambda g, u, c, *, lines: _product.bind(u, g, lines=lines),
)

"""Linear and bilinear maps whose transposes are given, not derived.

JAX derives the transpose of a linear function from those of its parts. A transpose that is
written for the function as a whole may be many times as fast, and `jax.custom_vjp` takes one,
but stops forward mode; `jax.custom_derivatives.linear_call` stops `jax.vmap`, and with it
`jax.jacfwd` (jax 0.10.2). So every map made here is a primitive of its own: forward mode,
reverse mode of any order and `jax.vmap` all work on it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array


def linear(
  apply: Callable[..., Array],
  transpose: Callable[..., Array],
  *,
  static: tuple[str, ...] = (),
  batch: Callable[..., Array] | None = None,
) -> Callable[..., Array]:
  """Makes a linear map of one array.

  Args:
    apply: Computes the map, from an array and the static keywords.
    transpose: Computes the transposed map, from a cotangent and the same keywords.
    static: Names of the keywords.
    batch: Computes the maps of arrays that are stacked along a new first axis. None means that
      the first axis of an array is a batch itself, which then gets longer.

  Examples:
    >>> total = linear(lambda x: x.sum(1), lambda t: jnp.stack([t, t], axis=1))
    >>> jax.linearize(total, jnp.ones((1, 2)))[1](jnp.ones((1, 2))).tolist()
    [2.0]
    >>> jax.grad(lambda x: total(x)[0])(jnp.ones((1, 2))).tolist()
    [[1.0, 1.0]]
  """
  primitive = _make_primitive(apply, static, batch)

  def transpose_rule(cotangent: Array, _: Any, **params: Any) -> list[Array]:
    return [transpose(cotangent, **params)]

  ad.deflinear2(primitive, transpose_rule)
  return primitive.bind


def bilinear(
  apply: Callable[[Array, Array], Array],
  transpose_first: Callable[[Array, Array], Array],
  transpose_second: Callable[[Array, Array], Array],
) -> Callable[[Array, Array], Array]:
  """Makes a map of two arrays that is linear in each.

  Args:
    apply: Computes the map. The first axis of the first array is a batch, which `jax.vmap`
      lengthens.
    transpose_first: Computes the cotangent of the first array, from that of the result and the
      second array.
    transpose_second: Computes the cotangent of the second array, from that of the result and
      the first array.
  """
  primitive = _make_primitive(apply)
  ad.defbilinear(
    primitive,
    lambda cotangent, _, second: transpose_first(cotangent, second),
    lambda cotangent, first, _: transpose_second(cotangent, first),
  )
  return primitive.bind


def _make_primitive(
  apply: Callable[..., Array],
  static: tuple[str, ...] = (),
  batch: Callable[..., Array] | None = None,
) -> Primitive:
  primitive = Primitive(apply.__name__.strip("_"))

  def describe(*operands: Any, **params: Any) -> ShapedArray:
    result = jax.eval_shape(functools.partial(apply, **params), *operands)
    return ShapedArray(result.shape, result.dtype)

  def lengthen_batch(first: Array, *others: Array, **params: Any) -> Array:
    count, size, *shape = first.shape
    result = primitive.bind(first.reshape(count * size, *shape), *others, **params)
    return result.reshape(count, size, *result.shape[1:])

  def apply_to_stacks(operands: Any, axes: Any, **params: Any) -> tuple[Array, int]:
    if any(axis is not None for axis in axes[1:]):
      return jax.vmap(functools.partial(apply, **params), in_axes=tuple(axes))(*operands), 0
    first = jnp.moveaxis(operands[0], axes[0], 0)
    return (batch or lengthen_batch)(first, *operands[1:], **params), 0

  primitive.def_impl(jax.jit(apply, static_argnames=static))
  primitive.def_abstract_eval(describe)
  batching.primitive_batchers[primitive] = apply_to_stacks
  mlir.register_lowering(primitive, mlir.lower_fun(apply, multiple_results=False))
  return primitive

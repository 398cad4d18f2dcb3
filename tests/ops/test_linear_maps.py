"""Maps with transposes of their own: derivatives, batches, and that the given transpose is used."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvsjnd_jax.ops.linear_maps import bilinear, linear

# Sums of a few float64 products in another order.
F64 = 1e-14

FACTORS = np.random.default_rng(0).random((4, 5))
X = np.random.default_rng(1).random((2, 5))
Y = np.random.default_rng(2).random((5, 3))

double = linear(
  lambda x, *, factor: factor * x @ FACTORS.T,
  lambda t, *, factor: factor * t @ FACTORS,
  static=("factor",),
)
product = bilinear(lambda x, y: x @ y, lambda t, y: t @ y.T, lambda t, x: x.T @ t)


@pytest.mark.usefixtures("x64")
def test_derivatives(check_gradient: Callable[..., None]):
  def first(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.grad(lambda x, y: jnp.sin(product(x, y)).sum(), argnums=(0, 1))(x, y)

  check_gradient(lambda x: jnp.sin(double(x, factor=2.0)), X)
  check_gradient(lambda x: jax.grad(lambda x: jnp.sin(double(x, factor=2.0)).sum())(x), X)
  check_gradient(product, X, Y)
  check_gradient(first, X, Y)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("axes", [(0, None), (1, None), (None, 0), (1, 2), (2, 0)])
def test_vmap_is_one_by_one(axes: tuple[int | None, int | None]):
  x, y = (
    one if axis is None else np.stack([one, -2 * one, 3 * one], axis)
    for one, axis in zip((X, Y), axes, strict=True)
  )
  got = jax.jit(jax.vmap(product, in_axes=axes))(x, y)
  np.testing.assert_allclose(got, jax.vmap(jnp.matmul, in_axes=axes)(x, y), rtol=F64)


@pytest.mark.usefixtures("x64")
def test_jacobians_and_hessian():
  def total(x: jax.Array) -> jax.Array:
    return jnp.sin(double(x, factor=2.0)).sum()

  want = np.einsum("ij,bi,ik->bjk", 2 * FACTORS, -np.sin(2 * X @ FACTORS.T), 2 * FACTORS)
  for got in (jax.hessian(total)(X), jax.jacrev(jax.jacrev(total))(X)):
    for i, block in enumerate(want):
      np.testing.assert_allclose(got[i, :, i], block, rtol=F64)
      np.testing.assert_array_equal(got[i, :, 1 - i], 0)
  linear_map = jax.jacfwd(lambda x: double(x, factor=2.0))(X)
  np.testing.assert_allclose(linear_map[0, :, 0], 2 * FACTORS, rtol=F64)


def test_the_given_transpose_is_used():
  """One that is wrong shows itself, in vmapped gradients and gradients of vmap alike."""
  marked = linear(lambda x: x, lambda t: 7 * t)

  def total(x: jax.Array) -> jax.Array:
    return marked(x).sum()

  x = jnp.ones((3, 2))
  np.testing.assert_array_equal(jax.grad(total)(x), 7)
  np.testing.assert_array_equal(jax.vmap(jax.grad(total))(x[None]), 7)
  np.testing.assert_array_equal(jax.grad(lambda x: jax.vmap(marked)(x).sum())(x[None]), 7)
  np.testing.assert_array_equal(jax.jvp(marked, (x,), (x,))[1], 1)

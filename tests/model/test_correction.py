"""The correction network and its convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from hvsjnd_jax.model.correction import CellConv, CellTranspose

# The same sums in another order.
SELF = 1e-5


def convolve_by_2(images: jax.Array, kernel: jax.Array) -> jax.Array:
  """A 6x6 convolution of stride 2, by XLA."""
  return lax.conv_general_dilated(
    images, kernel, (2, 2), ((2, 2), (2, 2)), dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def test_cell_conv_is_a_convolution_of_stride_2():
  conv = CellConv(3, 5, rngs=nnx.Rngs(0))
  conv.bias[...] = jnp.arange(5.0)
  images = jax.random.normal(jax.random.key(0), (2, 12, 18, 3))
  want = convolve_by_2(images, conv.kernel[...]) + jnp.arange(5.0)
  np.testing.assert_allclose(conv(images), want, atol=SELF)


def test_cell_conv_fills_odd_sides_with_zeros():
  conv = CellConv(3, 5, rngs=nnx.Rngs(0))
  images = jax.random.normal(jax.random.key(0), (2, 11, 17, 3))
  filled = jnp.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)))
  np.testing.assert_array_equal(conv(images), conv(filled))


def test_cell_transpose_is_the_transpose():
  """<A x, y> = <x, A' y>."""
  transpose = CellTranspose(5, 3)
  keys = jax.random.split(jax.random.key(0), 3)
  kernel = jax.random.normal(keys[0], (6, 6, 3, 5))
  transpose.kernel[...] = kernel
  images = jax.random.normal(keys[1], (1, 12, 18, 3))
  cells = jax.random.normal(keys[2], (1, 6, 9, 5))
  forward = jnp.vdot(convolve_by_2(images, kernel), cells)
  np.testing.assert_allclose(jnp.vdot(images, transpose(cells)), forward, rtol=SELF)


@pytest.mark.parametrize("width", [8, 32])
def test_turned_kernels_turn_the_map(width: int):
  """What `windows` relies on for upright images."""
  conv, transpose = CellConv(3, width, rngs=nnx.Rngs(0)), CellTranspose(width, 3)
  transpose.kernel[...] = jax.random.normal(jax.random.key(1), (6, 6, 3, width))
  images = jax.random.normal(jax.random.key(0), (1, 12, 18, 3))
  want = transpose(conv(images))
  turned = jax.tree.map(
    lambda leaf: leaf.swapaxes(0, 1) if leaf.ndim == 4 else leaf, (conv, transpose)
  )
  got = turned[1](turned[0](images.swapaxes(1, 2))).swapaxes(1, 2)
  np.testing.assert_allclose(got, want, atol=1e-4)

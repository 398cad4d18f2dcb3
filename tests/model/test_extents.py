"""Layers end where the image does, wherever the array ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hvsjnd_jax.model.extents import mask_outside
from hvsjnd_jax.model.layers import ReflectingConv
from hvsjnd_jax.model.resizing import upsample_2x

# A few float32 roundings.
F32 = 1e-6


@pytest.mark.parametrize("layer", ["conv", "strided conv", "upsample_2x"])
def test_layers_end_where_the_image_does(layer: str):
  """Each of two images of a batch as it would be alone, whatever lies past its end."""
  apply = {
    "conv": ReflectingConv(3, 4, rngs=nnx.Rngs(0)),
    "strided conv": ReflectingConv(3, 4, stride=2, rngs=nnx.Rngs(0)),
    "upsample_2x": upsample_2x,
  }[layer]
  x = jax.random.normal(jax.random.key(0), (2, 8, 10, 3))
  extent = np.asarray([(5, 7), (8, 6)])
  got = jax.jit(lambda x, extent: apply(x, extent=extent))(x, extent)
  for image, inside, (h, w) in zip(x, got, extent, strict=True):
    want = apply(image[None, :h, :w])
    inside = inside[None, : want.shape[1], : want.shape[2]]
    np.testing.assert_allclose(inside, want, rtol=F32, atol=F32)


def test_mask_is_zero_outside():
  x = jnp.ones((2, 4, 5, 3))
  masked = np.asarray(mask_outside(x, jnp.asarray([(2, 5), (4, 3)])))
  assert masked[0, :2].all()
  assert masked[1, :, :3].all()
  assert masked.sum() == 3 * (2 * 5 + 4 * 3)
  assert mask_outside(x, None) is x

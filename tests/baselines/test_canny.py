"""Canny's edges, against scikit-image and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage
from scipy import ndimage
from skimage import morphology

from hvsjnd_jax.baselines import canny
from tests.baselines import oracles


@pytest.mark.parametrize("picture", ["astronaut", "coffee", "camera"])
def test_canny_agrees_with_scikit_image(picture: str):
  luma = np.asarray(getattr(skimage.data, picture)()[::2, ::2], float)
  luma = luma @ [0.299, 0.587, 0.114] if luma.ndim == 3 else luma
  thresholds = np.asarray([0.2, 0.5, 0.8], np.float32)
  stack = jnp.asarray(np.stack([luma] * 3), jnp.float32)
  found = np.asarray(jax.jit(canny.canny)(stack, jnp.asarray(thresholds)))
  for one, high in zip(found, thresholds.tolist(), strict=True):
    want = oracles.canny(luma, high)
    assert want.any()
    # Measured: all pixels. A tie could go the other way in float32.
    assert (one != want).sum() <= 2


def test_canny_of_a_step_and_of_nothing():
  step = jnp.zeros((20, 20)).at[:, 10:].set(200.0)
  flat = jnp.full((20, 20), 0.1 + 0.2)
  found = np.asarray(
    jax.jit(canny.canny)(jnp.stack([step, 0.01 * step, flat, 255 + 0 * flat]), 0.8)
  )
  for one in found[:2]:  # relative to the maximum: contrast does not count
    assert one[1:-1, 9:11].any(axis=1).all()
    assert one.sum() == one[1:-1, 9:11].sum()
  assert not found[2:].any()


def test_canny_keeps_what_hangs_together():
  """An edge that fades below the high threshold, and one as weak that stands alone."""
  luma = np.zeros((60, 40))
  luma[:, 10:] = np.linspace(100, 40, 60)[:, None]  # 1 to 0.4 of the maximum
  luma[:, 25:] += 50  # 0.5
  found = np.asarray(jax.jit(canny.canny)(jnp.asarray(luma, jnp.float32)[None], 0.8))[0]
  assert found[1:-1, 9:11].any(axis=1).all()
  assert not found[:, 20:].any()


def test_growth_follows_the_allowed_to_its_end():
  allowed = np.random.default_rng(0).random((2, 40, 50)) < 0.4  # long and winding
  seeds = allowed & (np.random.default_rng(1).random(allowed.shape) < 0.01)
  want = [
    ndimage.binary_propagation(seed, np.ones((3, 3)), mask)
    for seed, mask in zip(seeds, allowed, strict=True)
  ]
  np.testing.assert_array_equal(
    jax.jit(canny._grow)(jnp.asarray(seeds), jnp.asarray(allowed)), want
  )


@pytest.mark.parametrize("radius", [1, 3, 6])
def test_dilation_by_a_disk(radius: int):
  masks = np.random.default_rng(radius).random((2, 17, 23)) < 0.02
  want = [ndimage.binary_dilation(mask, morphology.disk(radius)) for mask in masks]
  np.testing.assert_array_equal(canny.dilate(jnp.asarray(masks), canny.disk(radius)), want)

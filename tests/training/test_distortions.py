"""Distorted copies: of one PSNR, of many kinds, from the key alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from hvsjnd_jax.metrics import psnr
from hvsjnd_jax.training.distortions import draw_copies

DrawImages = Callable[..., jax.Array]

COPIES = 12


def test_copies(draw_images: DrawImages):
  images = 0.3 + 0.4 * draw_images(2, 32, 40)
  keys = jax.vmap(jax.random.key)(jnp.asarray([0, 1], jnp.uint32))
  draw = jax.jit(lambda keys, images: draw_copies(keys, images, copies=COPIES))
  copies = draw(keys, images)
  assert copies.shape == (2, COPIES, 32, 40, 3)
  for image, each in zip(images, copies, strict=True):
    got = psnr(each, jnp.broadcast_to(image, each.shape))
    assert (got > 27.9).all()
    # All copies of an image have one PSNR; a few values at most are clipped.
    assert np.ptp(np.asarray(got)) < 0.2
    assert len({np.asarray(copy).tobytes() for copy in each}) == COPIES
  # The same sums for a batch of another size.
  np.testing.assert_allclose(draw(keys[1:], images[1:]), copies[1:], atol=1e-6)


def test_flat_and_black_images_stay_finite():
  images = jnp.stack([jnp.full((16, 16, 3), value) for value in (0.0, 0.5, 1.0)])
  keys = jax.vmap(jax.random.key)(jnp.arange(3, dtype=jnp.uint32))
  copies = jax.jit(draw_copies, static_argnames="copies")(keys, images, copies=COPIES)
  assert ((copies >= 0) & (copies <= 1)).all()

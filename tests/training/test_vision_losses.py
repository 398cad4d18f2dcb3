"""The losses of the models of vision, and noise of a drawn PSNR."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvsjnd_jax.metrics import butteraugli, cvvdp, psnr, ssimulacra2_distance
from hvsjnd_jax.training.vision_losses import inject_at_psnr, vision_losses

DrawImages = Callable[..., jax.Array]

# The same sums, compiled alone.
SAME = 1e-3


def test_noise_has_its_psnr_in_each_channel(draw_images: DrawImages):
  images = 0.3 + 0.4 * draw_images(2, 32, 40)  # nothing is clipped
  maps = 0.01 + draw_images(2, 32, 40, seed=1) * jnp.asarray([1.0, 5.0, 0.1])
  signs = jnp.where(jax.random.bernoulli(jax.random.key(0), shape=images.shape), 1.0, -1.0)
  noisy = inject_at_psnr(images, maps, signs, psnr_db=jnp.asarray([30.0, 36.0]))
  for channel in range(3):
    got = psnr(noisy[..., channel : channel + 1], images[..., channel : channel + 1])
    np.testing.assert_allclose(got, [30, 36], atol=1e-3)
  again = inject_at_psnr(images, 7 * maps, signs, psnr_db=jnp.asarray([30.0, 36.0]))
  np.testing.assert_allclose(again, noisy, atol=1e-6)


@pytest.mark.usefixtures("optimized")
def test_losses_are_logarithms_of_what_the_models_see(draw_images: DrawImages):
  reference = draw_images(2, 128, 128)
  distorted = jnp.clip(reference + 0.02 * draw_images(2, 128, 128, seed=1), 0, 1)
  want = {
    "butteraugli": butteraugli(distorted, reference),
    "peaks": butteraugli(distorted, reference, norm=16.0),
    "ssimulacra2": ssimulacra2_distance(distorted, reference, border="symmetric"),
    "jod": 10 - cvvdp(distorted, reference),
  }
  losses = jax.jit(vision_losses)(distorted, reference)
  assert losses.keys() == want.keys()
  for name, seen in want.items():
    np.testing.assert_allclose(losses[name], jnp.log(seen + 1e-3), atol=SAME)
  for name, loss in jax.jit(vision_losses)(reference, reference).items():
    np.testing.assert_allclose(loss, [np.log(1e-3)] * 2, atol=SAME, err_msg=name)

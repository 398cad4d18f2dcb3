"""The losses of the models of vision."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvsjnd_jax.metrics import butteraugli, cvvdp, ssimulacra2_distance
from hvsjnd_jax.training.vision_losses import vision_losses

DrawImages = Callable[..., jax.Array]

# The same sums, compiled alone.
SAME = 1e-3


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

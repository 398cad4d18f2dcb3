"""How visible a picture's noise is, by three models of vision, as losses."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hvsjnd_jax.metrics import cvvdp, ssimulacra2
from hvsjnd_jax.metrics.butteraugli import butteraugli_map, pool
from hvsjnd_jax.ops.types import Pixels

VISION_LOSSES = ("Butteraugli", "its max", "SSIMULACRA 2", "JOD")


def measure_losses(noisy: Pixels, reference: Pixels) -> Float[np.ndarray, " loss"]:
  """Measures Butteraugli's 3-norm and maximum, 100 - SSIMULACRA 2, and 10 - JOD."""
  return measure_image_losses(*(pixels.astype(np.float32) / 255 for pixels in (noisy, reference)))


def measure_image_losses(
  noisy: Float[np.ndarray, "h w 3"], reference: Float[np.ndarray, "h w 3"]
) -> Float[np.ndarray, " loss"]:
  """Measures the same of images in [0, 1]."""
  return np.asarray(_measure(noisy[None], reference[None]))


@jax.jit
def _measure(distorted: Array, reference: Array) -> Array:
  seen = butteraugli_map(distorted, reference)
  losses = (
    pool(seen),
    pool(seen, norm="max"),
    100 - ssimulacra2(distorted, reference),
    10 - cvvdp(distorted, reference),
  )
  return jnp.concatenate(losses)

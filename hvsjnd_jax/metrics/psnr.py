"""Peak signal-to-noise ratio. Images are float in [0, 1], NHWC."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hvsjnd_jax.metrics._pairs import check_pair
from hvsjnd_jax.ops.types import Images, Scores


def psnr(distorted: Images, reference: Images) -> Scores:
  """Peak signal-to-noise ratio in dB; higher is better, 100 for equal images.

    -10 log10(MSE)

  with the mean over all pixels and channels. Values are not rounded to 8 bits.

  Args:
    distorted: Images in [0, 1], [B, H, W, C]; for one channel pass `[..., c : c + 1]`.
    reference: Originals, same shape.

  Returns:
    PSNR of each image, [B].

  Raises:
    TypeError: If an image is neither float32 nor float64.
    ValueError: If the two differ in shape or are not [B, H, W, C], if a side is too short, or
      if values are not finite or are outside [0, 1], such as 0..255.

  The 100 dB of equal images are the published JND code's convention.

  Examples:
    >>> image = jnp.full((1, 8, 8, 3), 0.5)
    >>> round(float(psnr(image + 0.1, image)[0]), 3)
    20.0
  """
  distorted, reference = check_pair("psnr", distorted, reference)
  return to_decibels(jnp.square(distorted - reference).mean(axis=(1, 2, 3)))


def to_decibels(error: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
  """Converts a mean squared error of values in [0, 1] to PSNR; 0 becomes 100 dB."""
  return jnp.where(error > 0, -10 * jnp.log10(jnp.where(error > 0, error, 1)), 100)

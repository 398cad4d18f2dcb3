"""Peak signal-to-noise ratio. Images are float in [0, 1], NHWC."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hvsjnd_jax.metrics._pairs import check_pair
from hvsjnd_jax.ops.types import Images, Scores


def psnr(distorted: Images, reference: Images) -> Scores:
  """Peak signal-to-noise ratio in dB; higher is better, 100 for equal images.

  -10 · log10(MSE), the mean over all pixels and channels, of values as they are: nothing
  is rounded to 8 bits.

  Args:
    distorted: Images in [0, 1]; for one channel pass `[..., c : c + 1]`.
    reference: Same shape.

  Returns:
    PSNR of each image in dB, [B].

  Raises:
    TypeError, ValueError: As every metric here, if the two are no float arrays of one
      shape [B, H, W, C].

  Source: 100 for equal images is the published code's convention.

  Examples:
    >>> image = jnp.full((1, 8, 8, 3), 0.5)
    >>> round(float(psnr(image + 0.1, image)[0]), 3)
    20.0
  """
  distorted, reference = check_pair("psnr", distorted, reference)
  return to_decibels(jnp.square(distorted - reference).mean(axis=(1, 2, 3)))


def to_decibels(error: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
  """The PSNR of a mean squared error of values in [0, 1]; 100 for none."""
  return jnp.where(error > 0, -10 * jnp.log10(jnp.where(error > 0, error, 1)), 100)

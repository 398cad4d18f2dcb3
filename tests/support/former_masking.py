"""The masking threshold as of commit e282939, which maps are judged against.

It is frozen, so that figures of different times can be compared.
"""

import numpy as np
import scipy.ndimage
from jaxtyping import Float

from hvsjnd_jax.ops.color import LUMA
from hvsjnd_jax.ops.types import Pixels

_GRAY_LEVEL = 1 / 255


def former_threshold(pixels: Pixels) -> Float[np.ndarray, "h w 3"]:
  """Computes t (1 + (s / t)²)^0.35 ((m + 3d) / (1/2 + 3d))^(-1/4) exp(-1.8 tanh(z / 2)).

  With d one gray level, t = 2 d, s and m the deviation and the mean of luma in 5x5 pixels, and
  z = (x - mean of x) / sqrt(s² + d²).
  """
  image = pixels.astype(np.float64) / 255
  luma = image @ np.asarray(LUMA)
  mean, square = _average(luma), _average(luma**2)
  variance = np.maximum(square - mean**2, 0)[..., None]
  light = mean[..., None]
  own = np.stack([_average(channel) for channel in np.moveaxis(image, -1, 0)], axis=-1)
  contrast = (1 + variance / (2 * _GRAY_LEVEL) ** 2) ** 0.35
  adaptation = ((light + 3 * _GRAY_LEVEL) / (0.5 + 3 * _GRAY_LEVEL)) ** -0.25
  z = (image - own) / np.sqrt(variance + _GRAY_LEVEL**2)
  return 2 * _GRAY_LEVEL * contrast * adaptation * np.exp(-1.8 * np.tanh(z / 2))


def _average(plane: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
  """Averages over those of 5x5 pixels that lie within the image."""
  sums, counts = (
    scipy.ndimage.uniform_filter(values, 5, mode="constant") for values in (plane, plane * 0 + 1)
  )
  return sums / counts

"""What an image's own luminance and contrast hide: a model of masking, without weights.

Images are float in [0, 1], NHWC, RGB. Luma is .299 R + .587 G + .114 B. Local means are over
those pixels of a window that the image has. What is proportional to a threshold says where
noise is seen less than elsewhere, not how much of it.

The forms are from the literature; their constants were chosen on the training photographs,
for noise of a given PSNR in each channel, by Butteraugli: see the default weights' card.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from hvsjnd_jax.layers import Extent, keep

Images = Float[Array, "b h w 3"]
Luma = Float[Array, "b h w 1"]

LUMA = (0.299, 0.587, 0.114)
_GRAY_LEVEL = 1 / 255
# Contrast below which nothing is masked, and the exponent by which thresholds grow with it.
_CONTRAST_FLOOR = 2 * _GRAY_LEVEL
_CONTRAST_EXPONENT = 0.7
_CONTRAST_WINDOW_PX = 3
# Thresholds fall with luma to the power of this, which gamma-coded values do not wholly undo.
_ADAPTATION_EXPONENT = 0.25
_DARK_LIGHT = 3 * _GRAY_LEVEL
# Of `shading`: logarithm of its range to either side of 1, and where it bends.
_SHADING_RANGE = 1.8
_SHADING_BEND = 2.0
_SHADING_WINDOW_PX = 5


def threshold(images: Images) -> Luma:
  """How much noise contrast and luminance mask: (s² + c²)^(0.7/2) · (2 (m + d))^(-1/4).

  s is the standard deviation of luma in 3x3 pixels and m its mean; c is two gray levels
  and d three.

  Args:
    images: Images in [0, 1].

  Returns:
    Amplitudes, proportional to thresholds, > 0.

  Source: Legge & Foley, "Contrast masking in human vision", 1980, for the power of contrast.
  """
  _, mean, variance = _local_statistics(images, _CONTRAST_WINDOW_PX)
  contrast = (variance + _CONTRAST_FLOOR**2) ** (_CONTRAST_EXPONENT / 2)
  return contrast * (2 * (mean + _DARK_LIGHT)) ** -_ADAPTATION_EXPONENT


def shading(images: Images, *, extent: Extent | None = None) -> Images:
  """How the dark sides of fine detail hide more: exp(-1.8 tanh(z / 2)), of each channel.

  z = (x - m) / sqrt(s² + p²), where m is the channel's mean in 5x5 pixels, s luma's standard
  deviation there and p one gray level. About 1 in the mean of its logarithm.

  Args:
    images: Images in [0, 1].
    extent: Where the images end (see `layers`).

  Returns:
    Factors in [1/6.05, 6.05], 1 where an image is flat.

  Source: ours. Light adds up in the eye before it is compared, and the same step of a
  gamma-coded value is less light on a darker pixel.
  """
  mean, _, variance = _local_statistics(images, _SHADING_WINDOW_PX, extent=extent)
  z = (images - mean) * lax.rsqrt(variance + _GRAY_LEVEL**2)
  return jnp.exp(-_SHADING_RANGE * jnp.tanh(z / _SHADING_BEND))


def _local_statistics(
  images: Images, window_px: int, *, extent: Extent | None = None
) -> tuple[Images, Luma, Luma]:
  """The mean of the channels, and mean and variance of luma."""
  weights = jnp.asarray(LUMA, images.dtype)[:, None]
  # Values about the middle: less is lost when squares are subtracted.
  centred = images - 0.5
  squares = jnp.square(centred @ weights)
  parts = jnp.concatenate([centred, squares, jnp.ones_like(squares)], axis=-1)
  *mean, square, count = jnp.split(_sum_windows(keep(parts, extent), window_px), 5, axis=-1)
  centred_mean = jnp.concatenate(mean, axis=-1) / count
  luma = centred_mean @ weights
  variance = jnp.maximum(square / count - luma**2, 0)
  return centred_mean + 0.5, luma + 0.5, variance


def _sum_windows(maps: Float[Array, "b h w c"], window_px: int) -> Float[Array, "b h w c"]:
  """Sums over windows, zeros being past the edge."""
  for axis in (1, 2):
    padded = jnp.pad(maps, [(window_px // 2,) * 2 if i == axis else (0, 0) for i in range(4)])
    maps = sum(
      lax.slice_in_dim(padded, start, start + maps.shape[axis], axis=axis)
      for start in range(window_px)
    )
  return maps

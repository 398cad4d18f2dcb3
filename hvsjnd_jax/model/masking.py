"""The masking threshold: how much noise an image's own luminance and contrast hide.

It is a model without weights. Images are float in [0, 1], NHWC, RGB. Luma is .299 R + .587 G +
.114 B. Local means are over those pixels of a 5x5 window that lie within the image.
"""

import functools
import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from hvsjnd_jax.model.extents import Extent, mask_outside
from hvsjnd_jax.ops.checks import check_images
from hvsjnd_jax.ops.color import LUMA, clip, mix_channels
from hvsjnd_jax.ops.types import RGBImages, RGBImagesLike

Luma = Float[Array, "b h w 1"]

_WINDOW_PX = 5

_GRAY_LEVEL = 1 / 255

_FLAT_THRESHOLD = 4 * _GRAY_LEVEL

_CONTRAST_EXPONENT = 0.94

_LIGHT_EXPONENT = 0.34

_DARK_LIGHT = 3.3 * _GRAY_LEVEL

_COLOR_EXPONENT = 0.56

_DARK_COLOR = 6 * _GRAY_LEVEL

_DETAIL_FLOOR = 1.4 * _GRAY_LEVEL

_DETAIL_RANGE = 2.75


def threshold(images: RGBImagesLike) -> RGBImages:
  """Computes the amplitude of noise that contrast, luminance and detail mask in each channel.

    T = t · (1 + s²/t²)^0.47 · ((m + d) / (1/2 + d))^(-0.34) · ((m_c + e) / (m + e))^(-0.56)
      · exp(-2.75 tanh(z / 2))

  with t = 4 gray levels, the threshold on flat mid-gray; s the standard deviation of luma, m
  its mean and m_c that of the channel; d = 3.3 and e = 6 gray levels; and
  z = (x - m_c) / sqrt(s² + p²), where x is the channel's value and p = 1.4 gray levels. So
  contrast masks almost in proportion (Weber's law); dark regions bear more noise than bright
  ones, and a channel more the less of it there is; and within fine detail the dark side bears
  more.

  Only proportions matter: they say where noise hides, not how much of it goes unseen.

  Args:
    images: Images in [0, 1], float32 or float64; what lies beyond is clipped.

  Returns:
    Amplitudes, > 0, in units of the images.

  Raises:
    TypeError, ValueError: If the images are others (see `ops.checks`).

  Source: Legge & Foley, "Contrast masking in human vision", 1980, for masking by contrast; the
  rest is ours. The constants were fitted to training photographs, by three models of vision
  (`training.vision_losses`) and two measures of structure; docs/experiments.md describes the fit.

  Examples:
    >>> gray = jnp.full((1, 8, 8, 3), 0.5)
    >>> round(255 * float(threshold(gray).mean()), 3)
    4.0
  """
  check_images("threshold", images)
  return jnp.exp(log_threshold(jnp.asarray(images)))


def log_threshold(images: RGBImages, extent: Extent | None = None) -> RGBImages:
  """Computes log T, for images of any float type that end at the extent, unchecked."""
  images = clip(images)  # local means below 0 have no logarithm
  mean, luma, variance = _measure(images, extent)
  contrast = _CONTRAST_EXPONENT / 2 * jnp.log1p(variance / _FLAT_THRESHOLD**2)
  light = _LIGHT_EXPONENT * (jnp.log(luma + _DARK_LIGHT) - math.log(0.5 + _DARK_LIGHT))
  color = _COLOR_EXPONENT * (jnp.log(mean + _DARK_COLOR) - jnp.log(luma + _DARK_COLOR))
  z = (images - mean) * lax.rsqrt(variance + _DETAIL_FLOOR**2)
  return math.log(_FLAT_THRESHOLD) + contrast - light - color - _DETAIL_RANGE * jnp.tanh(z / 2)


def _measure(images: RGBImages, extent: Extent | None) -> tuple[RGBImages, Luma, Luma]:
  """Computes local means of the channels and of luma, and the variance of luma."""
  # Centred on mid-gray, values lose less precision when squares are subtracted.
  centred = images - 0.5
  squares = jnp.square(mix_channels(centred, LUMA))[..., None]
  parts = jnp.concatenate([centred, squares, jnp.ones_like(squares)], axis=-1)
  sums = _sum_windows(mask_outside(parts, extent))
  mean, square = sums[..., :3] / sums[..., 4:], sums[..., 3:4] / sums[..., 4:]
  luma = mix_channels(mean, LUMA)[..., None]
  return mean + 0.5, luma + 0.5, jnp.maximum(square - luma**2, 0)


def _sum_windows(maps: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
  """Sums over windows around every pixel, with zeros past the edge."""
  for axis in (1, 2):
    padded = jnp.pad(maps, [(_WINDOW_PX // 2,) * 2 if i == axis else (0, 0) for i in range(4)])
    shifted = [
      lax.slice_in_dim(padded, start, start + maps.shape[axis], axis=axis)
      for start in range(_WINDOW_PX)
    ]
    maps = functools.reduce(jnp.add, shifted)
  return maps

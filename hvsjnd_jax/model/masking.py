"""The masking threshold: how much noise an image's own luminance and contrast hide.

It is a model without weights. Images are float in [0, 1], NHWC, RGB. Luma is .299 R + .587 G +
.114 B. Local means are over those pixels of a 5x5 window that lie within the image.
"""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from hvsjnd_jax.model.extents import Extent, mask_outside
from hvsjnd_jax.ops.checks import check_images
from hvsjnd_jax.ops.color import LUMA
from hvsjnd_jax.ops.types import RGBImages, RGBImagesLike

Luma = Float[Array, "b h w 1"]

_WINDOW_PX = 5

_GRAY_LEVEL = 1 / 255

_FLAT_THRESHOLD = 2 * _GRAY_LEVEL

_CONTRAST_EXPONENT = 0.7

_ADAPTATION_EXPONENT = 0.25

_DARK_LIGHT = 3 * _GRAY_LEVEL

_DETAIL_FLOOR = _GRAY_LEVEL

_DETAIL_RANGE = 1.8


def threshold(images: RGBImagesLike) -> RGBImages:
  """Computes the amplitude of noise that contrast, luminance and detail mask in each channel.

    T = t · (1 + (s / t)²)^(0.7 / 2) · ((m + d) / (1/2 + d))^(-1/4) · exp(-1.8 tanh(z / 2))

  with t two gray levels, the threshold on flat mid-gray; s the standard deviation of luma and
  m its mean; d three gray levels; and z = (x - mean of x) / sqrt(s² + p²), where x is the
  channel's value and p one gray level. So contrast masks by a power law, dark regions bear
  more noise than bright ones, and within fine detail the dark side bears more.

  Only proportions matter: they say where noise hides, not how much of it goes unseen.

  Args:
    images: Images in [0, 1], float32 or float64.

  Returns:
    Amplitudes, > 0, in units of the images.

  Raises:
    TypeError, ValueError: If the images are others (see `ops.checks`).

  Source: Legge & Foley, "Contrast masking in human vision", 1980, for the power of contrast;
  the rest is ours. The constants were chosen on training photographs, by Butteraugli, for
  noise of one PSNR in every channel; docs/experiments.md describes the search.

  Examples:
    >>> gray = jnp.full((1, 8, 8, 3), 0.5)
    >>> round(255 * float(threshold(gray).mean()), 3)
    2.0
  """
  check_images("threshold", images)
  return threshold_within(jnp.asarray(images), None)


def threshold_within(images: RGBImages, extent: Extent | None) -> RGBImages:
  """Computes `threshold` for images that end at the extent, of any float type, unchecked."""
  mean, luma, variance = _measure(images, extent)
  contrast = (1 + variance / _FLAT_THRESHOLD**2) ** (_CONTRAST_EXPONENT / 2)
  adaptation = ((luma + _DARK_LIGHT) / (0.5 + _DARK_LIGHT)) ** -_ADAPTATION_EXPONENT
  z = (images - mean) * lax.rsqrt(variance + _DETAIL_FLOOR**2)
  return _FLAT_THRESHOLD * contrast * adaptation * jnp.exp(-_DETAIL_RANGE * jnp.tanh(z / 2))


def _measure(images: RGBImages, extent: Extent | None) -> tuple[RGBImages, Luma, Luma]:
  """Computes local means of the channels and of luma, and the variance of luma."""
  weights = jnp.asarray(LUMA, images.dtype)[:, None]
  # Centred on mid-gray, values lose less precision when squares are subtracted.
  centred = images - 0.5
  squares = jnp.square(centred @ weights)
  parts = jnp.concatenate([centred, squares, jnp.ones_like(squares)], axis=-1)
  sums = _sum_windows(mask_outside(parts, extent))
  mean, square = sums[..., :3] / sums[..., 4:], sums[..., 3:4] / sums[..., 4:]
  luma = mean @ weights
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

"""How much noise an image's own luminance and contrast hide: a model without weights.

Images are float in [0, 1], NHWC, RGB. Luma is .299 R + .587 G + .114 B. Local means are over
those pixels of 5x5 that the image has.
"""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from hvsjnd_jax.model.layers import Extent, keep
from hvsjnd_jax.ops.color import LUMA
from hvsjnd_jax.ops.types import RGBImages

Luma = Float[Array, "b h w 1"]


_WINDOW_PX = 5

_GRAY_LEVEL = 1 / 255

_FLAT_THRESHOLD = 2 * _GRAY_LEVEL

_CONTRAST_EXPONENT = 0.7

_ADAPTATION_EXPONENT = 0.25

_DARK_LIGHT = 3 * _GRAY_LEVEL

_DETAIL_FLOOR = _GRAY_LEVEL

_DETAIL_RANGE = 1.8


def threshold(images: RGBImages, *, extent: Extent | None = None) -> RGBImages:
  """The amplitude of noise that contrast, luminance and detail mask, of each channel.

    T = t · (1 + (s / t)²)^(0.7 / 2) · ((m + d) / (1/2 + d))^(-1/4) · exp(-1.8 tanh(z / 2))

  with t two gray levels, on flat mid-gray; s the standard deviation of luma and m its mean;
  d three gray levels; and z = (x - mean of x) / sqrt(s² + p²), where x is the channel's
  value and p one gray level. So contrast masks with a power law, the dark bears more than
  the bright, and within fine detail the dark side does.

  Only proportions count: they say where noise hides, not how much of it nobody sees.

  Args:
    images: Images in [0, 1].
    extent: Where the images end (see `layers`).

  Returns:
    Amplitudes, > 0, in units of the images.

  Source: Legge & Foley, "Contrast masking in human vision", 1980, for the power of contrast;
  the rest is ours. The constants were chosen on training photographs, by Butteraugli, for
  noise of one PSNR in every channel: the default weights' card has the search.

  Examples:
    >>> gray = jnp.full((1, 8, 8, 3), 0.5)
    >>> round(255 * float(threshold(gray).mean()), 3)
    2.0
  """
  mean, luma, variance = _measure(images, extent)
  contrast = (1 + variance / _FLAT_THRESHOLD**2) ** (_CONTRAST_EXPONENT / 2)
  adaptation = ((luma + _DARK_LIGHT) / (0.5 + _DARK_LIGHT)) ** -_ADAPTATION_EXPONENT
  z = (images - mean) * lax.rsqrt(variance + _DETAIL_FLOOR**2)
  return _FLAT_THRESHOLD * contrast * adaptation * jnp.exp(-_DETAIL_RANGE * jnp.tanh(z / 2))


def _measure(images: RGBImages, extent: Extent | None) -> tuple[RGBImages, Luma, Luma]:
  """Local means of the channels and of luma, and luma's variance."""
  weights = jnp.asarray(LUMA, images.dtype)[:, None]
  # Values about the middle: less is lost when squares are subtracted.
  centred = images - 0.5
  squares = jnp.square(centred @ weights)
  parts = jnp.concatenate([centred, squares, jnp.ones_like(squares)], axis=-1)
  sums = _sum_windows(keep(parts, extent))
  mean, square = sums[..., :3] / sums[..., 4:], sums[..., 3:4] / sums[..., 4:]
  luma = mean @ weights
  return mean + 0.5, luma + 0.5, jnp.maximum(square - luma**2, 0)


def _sum_windows(maps: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
  """Sums over windows, zeros being past the edge."""
  for axis in (1, 2):
    padded = jnp.pad(maps, [(_WINDOW_PX // 2,) * 2 if i == axis else (0, 0) for i in range(4)])
    shifted = [
      lax.slice_in_dim(padded, start, start + maps.shape[axis], axis=axis)
      for start in range(_WINDOW_PX)
    ]
    maps = functools.reduce(jnp.add, shifted)
  return maps

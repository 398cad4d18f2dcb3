"""The model of Wu et al., 2017, by the complexity of patterns."""

import functools

import jax.numpy as jnp
from jax import lax

from hvsjnd_jax.baselines._common import (
  add_nonlinearly,
  background_luminance,
  edge_guard,
  lift_dark,
  luminance_adaptation,
  run,
)
from hvsjnd_jax.ops import filters
from hvsjnd_jax.ops.types import Planes, RGBImages, RGBImagesLike


def wu_2017(images: RGBImagesLike) -> RGBImages:
  """Luminance adaptation, contrast masking and pattern complexity.

    0.7 LA(b') (+) max(1.84 s^2.4 / (s² + 26²), 0.3 s E c^2.7 / (c² + 1))

  b' is b, up to 127 lifted to round(32 + 95 b / 127). s is the standard deviation of 5x5
  pixels, 0 at two pixels along the border. c counts the orientations that occur among 3x3
  pixels, under a Gaussian of 3x3 pixels and deviation 1: angles arctan(y / x) of the Prewitt
  gradient (its weights over 3), to whole degrees, then in steps of 12 from 0 to 180, rounded;
  a gradient below 5 is an orientation of its own, and where it stands at the centre, or at the
  border, c = 1. E is 1, and 0 within 3 pixels of Canny's edges (high threshold
  min(60 / max G, 0.8)), under a Gaussian of 5x5 pixels and deviation 0.8.

  Args, Returns, Raises: As `uniform`.

  Source: Wu et al., "Enhanced just noticeable difference model for images with pattern
  complexity", 2017, with the constants of the authors' MATLAB code, in which published maps
  were made; the paper's differ. Where the notes on it are silent: s divides by 25, b is not
  rounded before it is lifted, an edge and its negative have one orientation, the disk around
  edges is Euclidean.

  Examples:
    >>> white = jnp.ones((1, 16, 16, 3))
    >>> round(255 * float(wu_2017(white).mean()), 3)  # 0.7 LA(255)
    4.2
  """
  return run("wu_2017", _wu, images)


def _wu(luma: Planes) -> Planes:
  adaptation = 0.7 * luminance_adaptation(lift_dark(background_luminance(luma)))
  # The authors' code has no deviation where the window would leave the image.
  inside = jnp.sqrt(filters.local_variance(luma, 2))[:, 2:-2, 2:-2]
  deviation = filters.pad(inside, 2, "zero")
  contrast = 1.84 * deviation**2.4 / (deviation**2 + 26**2)
  count = filters.smooth(_count_orientations(luma), filters.gaussian(1, 1))
  pattern = deviation * 0.3 * count**2.7 / (count**2 + 1) * edge_guard(luma)
  return add_nonlinearly(adaptation, jnp.maximum(contrast, pattern))


def _count_orientations(luma: Planes) -> Planes:
  """How many orientations occur among 3x3 pixels; 1 where there is none, and at the border."""
  x, y = filters.gradient(luma, filters.PREWITT)
  seen = x**2 + y**2 >= 5**2
  degrees = jnp.round(jnp.arctan2(y, x) * (180 / jnp.pi)).astype(jnp.int32) % 180
  orientation = jnp.where(seen, (degrees + 6) // 12, 16)  # a half goes up: 0..15, or none
  bits = jnp.left_shift(jnp.int32(1), orientation)
  _, h, w = luma.shape
  near = (bits[:, i : i + h - 2, j : j + w - 2] for i in range(3) for j in range(3))
  count = lax.population_count(functools.reduce(jnp.bitwise_or, near))
  count = jnp.where(seen[:, 1:-1, 1:-1], count, 1)
  return jnp.pad(count, ((0, 0), (1, 1), (1, 1)), constant_values=1).astype(luma.dtype)

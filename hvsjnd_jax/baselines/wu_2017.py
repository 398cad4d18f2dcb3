"""The model of Wu et al., 2017, of pattern complexity."""

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
  """Masks complex patterns, which have many orientations in a small neighbourhood.

    0.7 LA(b') (+) max(1.84 s^2.4 / (s² + 26²), 0.3 s E c^2.7 / (c² + 1))

  b' is b, with values up to 127 lifted to round(32 + 95 b / 127). s is the standard deviation of
  5x5 pixels, and 0 within two pixels of the border. c is the number of orientations among 3x3
  pixels, smoothed by a Gaussian of 3x3 pixels and deviation 1. An orientation is the angle
  arctan(y / x) of Prewitt's gradient, rounded to whole degrees and then to steps of 12 from 0 to
  180; gradients below 5 count as one more orientation. c is 1 where the central pixel has such a
  gradient, and at the border. E is 0 within 3 pixels of Canny's edges (high threshold
  min(60 / max G, 0.8)) and 1 elsewhere, smoothed by a Gaussian of 5x5 pixels and deviation 0.8.

  Args, Returns, Raises: As `uniform`.

  Source: Wu et al., "Enhanced just noticeable difference model for images with pattern
  complexity", 2017, with the constants of the authors' MATLAB code, which made the published
  maps; the paper's differ. Our own choices, where the description of that code is silent: s
  divides by 25, b is not rounded before it is lifted, an edge and its negative have the same
  orientation, and distance from edges is Euclidean.

  Examples:
    >>> white = jnp.ones((1, 16, 16, 3))
    >>> round(255 * float(wu_2017(white).mean()), 3)  # 0.7 LA(255)
    4.2
  """
  return run("wu_2017", _wu, images)


def _wu(luma: Planes) -> Planes:
  adaptation = 0.7 * luminance_adaptation(lift_dark(background_luminance(luma)))
  # In the authors' code the deviation is 0 where its window would leave the image.
  inside = jnp.sqrt(filters.local_variance(luma, 2))[:, 2:-2, 2:-2]
  deviation = filters.pad(inside, 2, "zero")
  contrast = 1.84 * deviation**2.4 / (deviation**2 + 26**2)
  count = filters.smooth(_count_orientations(luma), filters.gaussian(1, 1))
  pattern = deviation * 0.3 * count**2.7 / (count**2 + 1) * edge_guard(luma)
  return add_nonlinearly(adaptation, jnp.maximum(contrast, pattern))


def _count_orientations(luma: Planes) -> Planes:
  """Counts the orientations among 3x3 pixels; 1 at weak gradients and at the border."""
  x, y = filters.gradient(luma, filters.PREWITT)
  oriented = x**2 + y**2 >= 5**2
  degrees = jnp.round(jnp.arctan2(y, x) * (180 / jnp.pi)).astype(jnp.int32) % 180
  orientation = jnp.where(oriented, (degrees + 6) // 12, 16)  # 0..15, or 16 for none
  bits = jnp.left_shift(jnp.int32(1), orientation)
  _, h, w = luma.shape
  near = (bits[:, i : i + h - 2, j : j + w - 2] for i in range(3) for j in range(3))
  count = lax.population_count(functools.reduce(jnp.bitwise_or, near))
  count = jnp.where(oriented[:, 1:-1, 1:-1], count, 1)
  return jnp.pad(count, ((0, 0), (1, 1), (1, 1)), constant_values=1).astype(luma.dtype)

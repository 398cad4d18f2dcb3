"""Classical JND models: the yardsticks beside which a learnt one is measured.

Images are float32 or float64 in [0, 1], [B, H, W, 3], RGB, H and W at least 8; so are the
JND maps: gray levels / 255, at most 1. All models look at luma, 0.299 R + 0.587 G + 0.114 B,
and give the three channels the same map, as comparisons of JND models do. Values beyond [0, 1]
are cut. All are pure functions, compiled at the first call for each size; `jax.jit` and
`jax.vmap` work on them; `jax.grad` does not help: they decide, and take roots of 0.

What a window reads past an image's edge is the image mirrored, unless it is said otherwise.

`BASELINES` is the table of them, by name, which the commands read.

In the equations, on 0..255: b is the background luminance, the mean of 5x5 pixels with weight
1 on the outer ring, 2 on the inner one and 0 at the centre; G the greatest of four directional
gradients over 5x5 pixels; and

  LA(b) = 17 (1 - sqrt(b / 127)) + 3 up to b = 127, 3 (b - 127) / 128 + 3 above
  A (+) M = A + M - 0.3 min(A, M), the nonlinear additivity model of masking (NAMM)
"""

import functools

import jax.numpy as jnp
from jax import lax

from hvsjnd_jax.baselines import canny
from hvsjnd_jax.baselines._common import (
  EDGE_SIGMA_PX,
  add_nonlinearly,
  background_luminance,
  directional_gradient,
  edge_guard,
  luminance_adaptation,
  run,
)
from hvsjnd_jax.ops import filters
from hvsjnd_jax.ops.filters import Kernel
from hvsjnd_jax.ops.types import Planes, RGBImages, RGBImagesLike

_PREWITT: Kernel = ((-1, 0, 1),) * 3


def uniform(images: RGBImagesLike) -> RGBImages:
  """One gray level everywhere: what a model must beat to have said anything.

  Args:
    images: Images in [0, 1], [B, H, W, 3], H and W at least 8.

  Returns:
    JND maps, same shape and dtype: 1 / 255. Which level does not matter where models are
    compared at equal noise energy.

  Raises:
    TypeError: If the images are neither float32 nor float64.
    ValueError: If the shape is not [B, H, W, 3], if a side is below 8 pixels, or if values
      are those of another range, such as 0..255.

  Examples:
    >>> round(255 * float(uniform(jnp.zeros((1, 16, 16, 3))).mean()), 3)
    1.0
  """
  return run("uniform", jnp.ones_like, images)


def chou_li_1995(images: RGBImagesLike) -> RGBImages:
  """The greater of luminance adaptation and gradient masking.

    max(LA(b), G (0.0001 b + 0.115) + 0.5 - 0.01 b)

  Args, Returns, Raises: As `uniform`.

  Source: Chou and Li, "A perceptually tuned subband image coder based on the measure of
  just-noticeable-distortion profile", 1995.

  Examples:
    >>> gray = jnp.full((1, 16, 16, 3), 127 / 255)
    >>> round(255 * float(chou_li_1995(gray).mean()), 3)
    3.0
  """
  return run("chou_li_1995", _chou_li, images)


def yang_2005(images: RGBImagesLike) -> RGBImages:
  """Luminance adaptation and texture masking, weaker at edges, added by NAMM.

    LA(b) (+) 0.117 G W

  W is 0.1 at Canny's edges (high threshold 0.5) and 1 elsewhere, under a Gaussian of 7x7
  pixels and deviation 0.8: the eye knows edges too well to be fooled there.

  Args, Returns, Raises: As `uniform`.

  Source: Yang et al., "Just noticeable distortion model and its applications in video
  coding", 2005. Deviation: its map of luma on all channels; the paper has one for each of
  Y, Cb and Cr. Other code in circulation masks as Chou and Li, and widens the edges.

  Examples:
    >>> gray = jnp.full((1, 16, 16, 3), 127 / 255)
    >>> round(255 * float(yang_2005(gray).mean()), 3)
    3.0
  """
  return run("yang_2005", _yang, images)


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


def contrast_heuristic(images: RGBImagesLike) -> RGBImages:
  """What watermarking networks use: luminance adaptation and contrast masking, no edges.

    max(0, L (+) 1.872 c^2.4 / (c² + 26²))

  c is the magnitude of Sobel's gradient (weights 1, 2, 1, not divided), and L is LA(b)
  without its last 3 up to b = 127, of b + 0.00127: it falls to 0 there, and goes on from 3. Past
  the image's edge are zeros, so that a border of two pixels stands out.

  Args, Returns, Raises: As `uniform`.

  Source: Fernandez et al., "Active image indexing", 2023, after Wu et al., 2017. Deviation:
  its map of luma, on all channels alike; there are forms for each channel, and for blue.

  Examples:
    >>> white = jnp.ones((1, 16, 16, 3))
    >>> round(255 * float(contrast_heuristic(white)[0, 8, 8, 0]), 3)  # LA(255)
    6.0
  """
  return run("contrast_heuristic", _contrast, images)


def _chou_li(luma: Planes) -> Planes:
  background = background_luminance(luma)
  masking = directional_gradient(luma) * (0.0001 * background + 0.115) + 0.5 - 0.01 * background
  return jnp.maximum(luminance_adaptation(background), masking)


def _yang(luma: Planes) -> Planes:
  at_edges = jnp.where(canny.canny(luma, 0.5), 0.1, 1).astype(luma.dtype)
  weight = filters.smooth(at_edges, radius_px=3, sigma_px=EDGE_SIGMA_PX)
  return add_nonlinearly(
    luminance_adaptation(background_luminance(luma)), 0.117 * directional_gradient(luma) * weight
  )


def _wu(luma: Planes) -> Planes:
  background = background_luminance(luma)
  lifted = jnp.where(background <= 127, jnp.round(32 + background * (95 / 127)), background)
  spread = _deviation(luma)
  contrast = 1.84 * spread**2.4 / (spread**2 + 26**2)
  count = filters.smooth(_count_orientations(luma), radius_px=1, sigma_px=1)
  pattern = spread * 0.3 * count**2.7 / (count**2 + 1) * edge_guard(luma)
  return add_nonlinearly(0.7 * luminance_adaptation(lifted), jnp.maximum(contrast, pattern))


def _contrast(luma: Planes) -> Planes:
  background = background_luminance(luma, beyond="constant")
  dark = 17 * (1 - jnp.sqrt(background / 127 + 1e-5))
  adaptation = jnp.where(background <= 127, dark, 3 * (background - 127) / 128 + 3)
  x, y = (
    filters.correlate(luma, kernel, beyond="constant")
    for kernel in (filters.SOBEL, filters.transpose(filters.SOBEL))
  )
  power = x**2 + y**2  # c², whose root has no gradient at 0
  masking = 0.117 * 16 * power**1.2 / (power + 26**2)
  return jnp.maximum(add_nonlinearly(adaptation, masking), 0)


def _deviation(luma: Planes) -> Planes:
  """Standard deviation of 5x5 pixels; 0 where the window would leave the image."""
  window: Kernel = ((1 / 25,) * 5,) * 5
  mean = filters.correlate(luma, window)
  # Squares of differences: a difference of squares would leave float32 little at low contrast.
  _, h, w = luma.shape
  centre = mean[:, 2:-2, 2:-2]
  squares = (
    (luma[:, i : i + h - 4, j : j + w - 4] - centre) ** 2 for i in range(5) for j in range(5)
  )
  return jnp.pad(jnp.sqrt(functools.reduce(jnp.add, squares) / 25), ((0, 0), (2, 2), (2, 2)))


def _count_orientations(luma: Planes) -> Planes:
  """How many orientations occur among 3x3 pixels; 1 where there is none, and at the border."""
  x, y = (filters.correlate(luma, kernel) / 3 for kernel in (_PREWITT, filters.transpose(_PREWITT)))
  seen = x**2 + y**2 >= 5**2
  degrees = jnp.round(jnp.arctan2(y, x) * (180 / jnp.pi)).astype(jnp.int32) % 180
  orientation = jnp.where(seen, (degrees + 6) // 12, 16)  # a half goes up: 0..15, or none
  bits = jnp.left_shift(jnp.int32(1), orientation)
  _, h, w = luma.shape
  near = (bits[:, i : i + h - 2, j : j + w - 2] for i in range(3) for j in range(3))
  count = lax.population_count(functools.reduce(jnp.bitwise_or, near))
  count = jnp.where(seen[:, 1:-1, 1:-1], count, 1)
  return jnp.pad(count, ((0, 0), (1, 1), (1, 1)), constant_values=1).astype(luma.dtype)

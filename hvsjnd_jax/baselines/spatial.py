"""Classical models of local luminance and gradients."""

import jax.numpy as jnp

from hvsjnd_jax.baselines._common import (
  EDGE_SIGMA_PX,
  add_nonlinearly,
  background_luminance,
  directional_gradient,
  gradient_masking,
  luminance_adaptation,
  run,
)
from hvsjnd_jax.baselines.canny import canny
from hvsjnd_jax.ops import filters
from hvsjnd_jax.ops.types import Planes, RGBImages, RGBImagesLike


def uniform(images: RGBImagesLike) -> RGBImages:
  """Gives one gray level everywhere, which any useful model must beat.

  Args:
    images: Images in [0, 1], [B, H, W, 3], with sides of at least 8 pixels.

  Returns:
    JND maps, same shape and dtype: 1 / 255. The level does not matter where models are compared
    at equal noise energy.

  Raises:
    TypeError: If the images are neither float32 nor float64.
    ValueError: If the shape is not [B, H, W, 3], if a side is below 8 pixels, or if values are
      not finite or are outside [0, 1], such as 0..255.

  Examples:
    >>> round(255 * float(uniform(jnp.zeros((1, 16, 16, 3))).mean()), 3)
    1.0
  """
  return run("uniform", jnp.ones_like, images)


def chou_li_1995(images: RGBImagesLike) -> RGBImages:
  """Takes the greater of luminance adaptation and gradient masking.

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
  """Adds luminance adaptation and texture masking, which is weaker at edges.

    LA(b) (+) 0.117 G W

  W is 0.1 at Canny's edges (high threshold 0.5) and 1 elsewhere, smoothed by a Gaussian of 7x7
  pixels and deviation 0.8: errors are easily seen at edges, whose course the eye predicts.

  Args, Returns, Raises: As `uniform`.

  Source: Yang et al., "Just noticeable distortion model and its applications in video
  coding", 2005. Deviation: all channels get the map of luma, where the paper has one for each of
  Y, Cb and Cr. Other code in circulation masks as Chou and Li do, and widens the edges.

  Examples:
    >>> gray = jnp.full((1, 16, 16, 3), 127 / 255)
    >>> round(255 * float(yang_2005(gray).mean()), 3)
    3.0
  """
  return run("yang_2005", _yang, images)


def contrast_heuristic(images: RGBImagesLike) -> RGBImages:
  """Adds luminance adaptation and contrast masking, as watermarking networks do.

    max(0, L (+) 1.872 c^2.4 / (c² + 26²))

  c is the magnitude of Sobel's gradient (weights 1, 2, 1, not divided by their sum). L is LA(b)
  above b = 127, and LA(b + 0.00127) - 3 up to there, where it falls to 0 before it jumps to 3.
  Past the image's edges are zeros, so that a border of two pixels stands out.

  Args, Returns, Raises: As `uniform`.

  Source: Fernandez et al., "Active image indexing", 2023, after Wu et al., 2017. Deviation: all
  channels get the map of luma, where other forms have one for each channel, or favour blue.

  Examples:
    >>> white = jnp.ones((1, 16, 16, 3))
    >>> round(255 * float(contrast_heuristic(white)[0, 8, 8, 0]), 3)  # LA(255)
    6.0
  """
  return run("contrast_heuristic", _contrast, images)


def _chou_li(luma: Planes) -> Planes:
  background = background_luminance(luma)
  masking = gradient_masking(background, directional_gradient(luma))
  return jnp.maximum(luminance_adaptation(background), masking)


def _yang(luma: Planes) -> Planes:
  at_edges = jnp.where(canny(luma, 0.5), 0.1, 1).astype(luma.dtype)
  weight = filters.smooth(at_edges, filters.gaussian(3, EDGE_SIGMA_PX))
  adaptation = luminance_adaptation(background_luminance(luma))
  return add_nonlinearly(adaptation, 0.117 * directional_gradient(luma) * weight)


def _contrast(luma: Planes) -> Planes:
  background = background_luminance(luma, border="zero")
  dark = 17 * (1 - jnp.sqrt(background / 127 + 1e-5))
  adaptation = jnp.where(background <= 127, dark, 3 * (background - 127) / 128 + 3)
  x, y = (4 * slope for slope in filters.gradient(luma, filters.SOBEL, border="zero"))
  power = x**2 + y**2  # c²
  masking = 0.117 * 16 * power**1.2 / (power + 26**2)
  return jnp.maximum(add_nonlinearly(adaptation, masking), 0)

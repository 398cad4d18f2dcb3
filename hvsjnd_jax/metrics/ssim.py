"""Structural similarity, at one scale and at five. Images are float in [0, 1], NHWC."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from hvsjnd_jax.metrics._pairs import check_pair, to_planes
from hvsjnd_jax.ops import filters
from hvsjnd_jax.ops.types import Images, Planes, Scores

SSIMVariant = Literal["reference", "wang2004"]

MSSSIMVariant = Literal["wang2003", "reference"]

_WINDOW_PX = 11
_GAUSSIAN = filters.gaussian(_WINDOW_PX // 2, 1.5)

_C1 = 0.01**2

_C2 = 0.03**2

_MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

# Scores of a scale below it count as this, so that the power's gradient stays finite.
_MS_FLOOR = 1e-6

SSIM_SMALLEST_PX = _WINDOW_PX

MS_SSIM_SMALLEST_PX = (_WINDOW_PX - 1) * 2 ** (len(_MS_WEIGHTS) - 1) + 1


def ssim(distorted: Images, reference: Images, *, variant: SSIMVariant = "reference") -> Scores:
  """Structural similarity; higher is better, 1 for equal images.

  The score is the mean of l · c over pixels and channels, where

    l = (2 m_d m_r + C1) / (m_d² + m_r² + C1)
    c = (2 s_dr + C2) / (s_d² + s_r² + C2)    "wang2004"
    c = max(0, the same)                      "reference", as in the published JND code

  with means m, variances s² and covariance s_dr under a Gaussian window of 11x11 pixels and sigma
  1.5, which stays inside the image; C1 = 0.01², C2 = 0.03².

  Args:
    distorted: Images in [0, 1], [B, H, W, C], with sides of at least 11 pixels.
    reference: Originals, same shape.
    variant: Which formula to use. They differ only where the two images are correlated
      negatively, as a photograph and its negative.

  Returns:
    Scores, [B], in [0, 1], or [-1, 1] for "wang2004". In float32 they are good to about 1e-5,
    since variances are differences of squares.

  Raises:
    TypeError, ValueError: As `psnr`; ValueError also for an unknown variant.

  Source: Wang et al., "Image quality assessment: from error visibility to structural
  similarity", 2004. Deviations, as in the published JND code: the score is of R, G and B, not of
  luma (for luma, pass it as [B, H, W, 1]), and by default c is clipped at 0. Images are not
  downsampled: implementations that first do so to about 256 pixels, as the authors advise, give
  other scores from 384 pixels on.

  Examples:
    >>> image = jnp.full((1, 16, 16, 3), 0.5)
    >>> float(ssim(image, image)[0])
    1.0
  """
  distorted, reference = check_pair("ssim", distorted, reference, smallest_px=SSIM_SMALLEST_PX)
  _check_variant("ssim", variant, SSIMVariant)
  b = len(distorted)
  luminance, contrast = _terms(to_planes(distorted), to_planes(reference))
  if variant == "reference":
    contrast = jax.nn.relu(contrast)
  return (luminance * contrast).reshape(b, -1).mean(axis=-1)


def ms_ssim(distorted: Images, reference: Images, *, variant: MSSSIMVariant = "wang2003") -> Scores:
  """Multi-scale structural similarity; higher is better, 1 for equal images.

  With c_i and l_i as in `ssim`, averaged over the pixels of scale i, where each scale has half
  the size of the one before, and weights w = .0448 .2856 .3001 .2363 .1333, the score is

    "wang2003"   prod_{i<5} c_i^{w_i} · (l c)_5^{w_5} of each channel, averaged;
    "reference"  prod_{i<5} (c_i^{w_i} · (l c)_5^{w_5}), as the published JND code computes
                 it: the last scale stands inside the product, so that it counts with
                 4 w_5; c is clipped at 0 at every pixel; and channels are averaged at
                 each scale.

  A scale whose mean is below 1e-6 counts as 1e-6, so that gradients are finite.

  Args:
    distorted: Images in [0, 1], [B, H, W, C], with sides of at least 161 pixels.
    reference: Originals, same shape.
    variant: Which formula to use.

  Returns:
    Scores in [0, 1], [B].

  Raises:
    TypeError, ValueError: As `psnr`; ValueError also for an unknown variant.

  Source: Wang et al., "Multiscale structural similarity for image quality assessment", 2003.
  Deviation, as in the published JND code: the score is of R, G and B, not of luma, and the 2x2
  mean includes a row of zeros at both ends of an odd side.

  Examples:
    >>> image = jnp.full((1, 168, 168, 3), 0.5)
    >>> round(float(jax.jit(ms_ssim)(image, image)[0]), 3)
    1.0
  """
  distorted, reference = check_pair(
    "ms_ssim", distorted, reference, smallest_px=MS_SSIM_SMALLEST_PX
  )
  _check_variant("ms_ssim", variant, MSSSIMVariant)
  b, _, _, c = distorted.shape
  d, r = to_planes(distorted), to_planes(reference)
  last = len(_MS_WEIGHTS) - 1
  score = jnp.ones((), d.dtype)
  for scale, weight in enumerate(_MS_WEIGHTS):
    if scale > 0:
      d, r = (filters.mean_pool(planes, pad_odd=True) for planes in (d, r))
    luminance, contrast = _terms(d, r)
    if variant == "reference":
      contrast = jax.nn.relu(contrast)
      weight *= last if scale == last else 1
    term = contrast if scale < last else luminance * contrast
    term = term.mean(axis=(1, 2)).reshape(b, c)
    if variant == "reference":
      term = term.mean(axis=-1, keepdims=True)
    score = score * jnp.maximum(term, _MS_FLOOR) ** weight
  return score.mean(axis=-1)


def _check_variant(function: str, variant: str, variants: Any) -> None:
  known = get_args(variants)
  if variant not in known:
    raise ValueError(f"{function}: expected variant {' or '.join(known)}, got {variant}")


def _terms(distorted: Planes, reference: Planes) -> tuple[Planes, Planes]:
  """Returns SSIM's maps of luminance and of contrast and structure, [B·C, H - 10, W - 10]."""
  squares = distorted**2 + reference**2
  # One blur of four maps is a quarter of the program to compile.
  maps = jnp.concatenate([distorted, reference, squares, distorted * reference])
  maps = filters.smooth_valid(maps, _GAUSSIAN)
  mean_d, mean_r, squares, product = jnp.split(maps, 4)
  means = mean_d**2 + mean_r**2
  luminance = (2 * mean_d * mean_r + _C1) / (means + _C1)
  contrast = (2 * (product - mean_d * mean_r) + _C2) / (squares - means + _C2)
  return luminance, contrast

"""Structural similarity, at one scale and at five. Images are float in [0, 1], NHWC."""

import functools

import jax.numpy as jnp
from jaxtyping import Array

from hvsjnd_jax.metrics.pairs import Images, Scores, check_pair, mean_pool

_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_SSIM_C1 = 0.01**2
_SSIM_C2 = 0.03**2
_MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim(distorted: Images, reference: Images) -> Scores:
  """Multi-scale structural similarity; higher is better, 1 for equal images.

  prod_{i<5} cs_i^{w_i} · ssim_5^{w_5} over five scales, for each channel, then the mean
  over channels. Contrast terms below 0 count as 0, with a small floor that keeps the
  power's gradient finite.

  Args:
    distorted: Images in [0, 1], min(H, W) > 160.
    reference: Same shape.

  Returns:
    Scores, [B].

  Raises:
    ValueError: If a side is 160 pixels or less.

  Source: Wang et al., "Multiscale structural similarity for image quality assessment",
  2003. Not the published JND code's product, in which the last scale counts four times.
  """
  check_pair("ms_ssim", distorted, reference)
  smallest = min(distorted.shape[1:3])
  if smallest <= (_SSIM_WINDOW - 1) * 2**4:
    raise ValueError(f"ms_ssim: expected sides above 160 pixels, got {smallest}")
  score = jnp.ones(())
  for scale, weight in enumerate(_MS_SSIM_WEIGHTS):
    if scale > 0:
      distorted, reference = mean_pool(distorted), mean_pool(reference)
    luminance, contrast = _ssim_terms(distorted, reference)
    term = contrast if scale < 4 else luminance * contrast
    term = term.mean(axis=(1, 2))
    score = score * jnp.maximum(term, 1e-6) ** weight
  return score.mean(axis=-1)


def _ssim_terms(distorted: Images, reference: Images) -> tuple[Array, Array]:
  """Luminance and contrast-structure maps of SSIM."""
  offsets = jnp.arange(_SSIM_WINDOW, dtype=distorted.dtype) - _SSIM_WINDOW // 2
  window = jnp.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
  window = window / window.sum()

  def blur(maps: Images) -> Images:
    # A sum of shifted slices: XLA fuses it into one pass, where a grouped convolution
    # with one channel a group is slow on a CPU.
    h, w = maps.shape[1] - _SSIM_WINDOW + 1, maps.shape[2] - _SSIM_WINDOW + 1
    rows = (window[i] * maps[:, i : i + h] for i in range(_SSIM_WINDOW))
    maps = functools.reduce(jnp.add, rows)
    columns = (window[i] * maps[:, :, i : i + w] for i in range(_SSIM_WINDOW))
    return functools.reduce(jnp.add, columns)

  mean_d, mean_r = blur(distorted), blur(reference)
  variances = blur(distorted**2 + reference**2) - mean_d**2 - mean_r**2
  covariance = blur(distorted * reference) - mean_d * mean_r
  luminance = (2 * mean_d * mean_r + _SSIM_C1) / (mean_d**2 + mean_r**2 + _SSIM_C1)
  contrast = (2 * covariance + _SSIM_C2) / (variances + _SSIM_C2)
  return luminance, contrast

"""Image-quality metrics: how far a distorted image is from its reference.

Images are float in [0, 1], NHWC, RGB. Every metric takes `distorted, reference` and
returns one score for each image, [B].
"""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Images = Float[Array, "b h w c"]
Scores = Float[Array, " b"]

_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_SSIM_C1 = 0.01**2
_SSIM_C2 = 0.03**2
_MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_GMSD_STABILITY = 170 / 255**2


def psnr(distorted: Images, reference: Images) -> Scores:
  """Peak signal-to-noise ratio in dB; higher is better, 100 for equal images.

  -10 · log10(MSE), the mean over all pixels and channels, of values as they are: nothing
  is rounded to 8 bits.

  Args:
    distorted: Images in [0, 1]; for one channel pass `[..., c : c + 1]`.
    reference: Same shape.

  Returns:
    PSNR of each image in dB, [B].

  Raises:
    TypeError, ValueError: As every metric here, if the two are no float arrays of one
      shape [B, H, W, C].

  Source: 100 for equal images is the published code's convention.
  """
  _check_pair("psnr", distorted, reference)
  error = jnp.square(distorted - reference).mean(axis=(1, 2, 3))
  return jnp.where(error > 0, -10 * jnp.log10(jnp.where(error > 0, error, 1)), 100)


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
  _check_pair("ms_ssim", distorted, reference)
  smallest = min(distorted.shape[1:3])
  if smallest <= (_SSIM_WINDOW - 1) * 2**4:
    raise ValueError(f"ms_ssim: expected sides above 160 pixels, got {smallest}")
  score = jnp.ones(())
  for scale, weight in enumerate(_MS_SSIM_WEIGHTS):
    if scale > 0:
      distorted, reference = _mean_pool(distorted), _mean_pool(reference)
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


def gmsd(distorted: Images, reference: Images, *, gradient_floor: float = 1e-12) -> Scores:
  """Gradient-magnitude similarity deviation; lower is better, 0 for equal images.

  The spatial standard deviation (n - 1) of (2 g d + T) / (g^2 + d^2 + T), where g and d
  are Prewitt gradient magnitudes of the 2x2-averaged images.

  Args:
    distorted: Images in [0, 1].
    reference: Same shape.
    gradient_floor: e in the magnitude sqrt(x^2 + e), on the 0..255 scale. The
      published 1e-12 makes the metric's gradient noise where an image is flat; train
      with 1 or so.

  Returns:
    Scores, [B], >= 0.

  Source: Xue et al., "Gradient magnitude similarity deviation", 2014. Deviation, as in
  the published JND code: computed on R, G and B, not on luma.
  """
  _check_pair("gmsd", distorted, reference)

  def magnitude(images: Images) -> Images:
    h, w = images.shape[1:3]
    images = _mean_pool(images[:, : h // 2 * 2, : w // 2 * 2])  # an odd row is left out
    images = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = (images[:, :-2] + images[:, 1:-1] + images[:, 2:]) / 3
    columns = (images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]) / 3
    horizontal = rows[:, :, 2:] - rows[:, :, :-2]
    vertical = columns[:, 2:] - columns[:, :-2]
    return jnp.sqrt(horizontal**2 + vertical**2 + gradient_floor / 255**2)

  d, r = magnitude(distorted), magnitude(reference)
  similarity = (2 * d * r + _GMSD_STABILITY) / (d**2 + r**2 + _GMSD_STABILITY)
  deviation = jnp.var(similarity, axis=(1, 2, 3), ddof=1)
  # Equal images: the root's gradient at 0 is infinite; the score's own minimum is there.
  return jnp.where(deviation > 0, jnp.sqrt(jnp.where(deviation > 0, deviation, 1)), 0)


def _mean_pool(images: Images) -> Images:
  """2x2 mean, stride 2; an odd side is padded with zeros that count, as MS-SSIM does."""
  odd = [(size % 2, size % 2) for size in images.shape[1:3]]
  padding = [(0, 0), *odd, (0, 0)]
  window = (1, 2, 2, 1)
  return lax.reduce_window(images, 0.0, lax.add, window, window, padding) / 4


def _check_pair(metric: str, distorted: Images, reference: Images) -> None:
  for name, images in (("distorted", distorted), ("reference", reference)):
    if not jnp.issubdtype(images.dtype, jnp.floating):
      raise TypeError(
        f"{metric}: expected float images in [0, 1], got {name} of {images.dtype}; "
        "divide 8-bit images by 255"
      )
  if distorted.ndim != 4 or distorted.shape != reference.shape:
    raise ValueError(
      f"{metric}: expected two images of one shape [B, H, W, C], got distorted "
      f"{distorted.shape} and reference {reference.shape}"
    )

"""The losses that the default weights were trained with, and forms of them that are ours.

Images and maps are float32 in [0, 1], NHWC, RGB. A loss returns one value for each image, [B].
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from hvsjnd_jax.metrics import gmsd, ms_ssim
from hvsjnd_jax.ops.types import RGBImages
from hvsjnd_jax.training.config import AttentionForm

Losses = Float[Array, " b"]

# The floor under gradient magnitudes in training, in gray levels; see `metrics.gmsd`.
TRAINING_GRADIENT_FLOOR = 1.0

# Keeps the logarithm of an amplitude finite at zero.
_AMPLITUDE_FLOOR = 0.01 / 255

# Attention, in [0, 1], below which the divergence does not tell maps apart: one gray level.
_ATTENTION_FLOOR = 1 / 255

# The variance, or covariance, of attention maps below which they count as flat.
_VARIANCE_FLOOR = 1e-6


def magnitude_loss(noise: RGBImages, *, target: float) -> Losses:
  """log((N² + T²) / (2 N T)) for the geometric mean N of each channel, averaged.

  Zero where N = T, and symmetric in log N (but for a floor of 4e-5 under every
  amplitude). Channel by channel: a total lets the generator hide all its
  noise in one channel. The geometric mean, because it presses on every pixel alike: an
  arithmetic or quadratic mean is met most cheaply by few huge peaks on the strongest
  edges.

  Args:
    noise: Amplitudes, lmbda · JND map, >= 0, in any units, such as masking thresholds.
    target: T > 0, in the same units.

  Returns:
    Losses, [B], >= 0.

  Source: the form is that of `mean_magnitude_loss`, the released one; means, target and
  channels are ours.

  Examples:
    >>> noise = jnp.ones((1, 8, 8, 3))
    >>> round(float(magnitude_loss(noise, target=2)[0]), 3)  # log(5 / 4)
    0.223
  """
  typical = jnp.exp(jnp.log(noise + _AMPLITUDE_FLOOR).mean(axis=(1, 2)))
  return _compare_amounts(typical, target)


def rms_magnitude_loss(noise: RGBImages, thresholds: RGBImages, *, target: float) -> Losses:
  """log((N² + T²) / (2 N T)) for N² = mean (n t)² / mean t² of each channel, averaged.

  n is noise in thresholds t: so N is the noise's root mean square in gray levels over that of
  the thresholds. Noise of one PSNR has one such magnitude: what moves it from where it is seen
  to where it is not costs nothing here. Where few huge peaks cost little elsewhere, it is they
  that meet it; a `visibility_loss` of high power holds them.

  Args:
    noise: Amplitudes in thresholds, >= 0.
    thresholds: Of each pixel and channel, > 0.
    target: T > 0, in thresholds.

  Returns:
    Losses, [B], >= 0.

  Source: ours.

  Examples:
    >>> noise = jnp.full((1, 4, 4, 3), 0.5)
    >>> rms_magnitude_loss(noise, jnp.ones_like(noise), target=0.5).round(6)
    Array([0.], dtype=float32)
  """
  power, unit = (
    jnp.square(amplitudes).mean(axis=(1, 2)) for amplitudes in (noise * thresholds, thresholds)
  )
  return _compare_amounts(jnp.sqrt(power / unit + _AMPLITUDE_FLOOR**2), target)


def _compare_amounts(amounts: Float[Array, "b 3"], target: float) -> Losses:
  return jnp.log((amounts**2 + target**2) / (2 * amounts * target)).mean(axis=-1)


def visibility_loss(noise: RGBImages, *, power: float = 2.0) -> Losses:
  """Mean of N^power: what a map of even visibility keeps lowest.

  Among the maps of a given geometric mean, it is least for the one that is a threshold's
  multiple everywhere.

  Args:
    noise: Amplitudes in masking thresholds: lmbda · JND map / `masking.threshold`.
    power: >= 1; the higher, the more peaks count.

  Returns:
    Losses, [B], >= 0.

  Examples:
    >>> float(visibility_loss(jnp.full((1, 8, 8, 3), 2.0))[0])
    4.0
  """
  return (noise**power).mean(axis=(1, 2, 3))


def quality_loss(distorted: RGBImages, reference: RGBImages) -> Losses:
  """(1 - MS-SSIM + GMSD) / 2: how different two images look.

  Args:
    distorted: Images in [0, 1], sides of more than 160 pixels.
    reference: Same shape.

  Returns:
    Losses, [B], in [0, 0.8]; 0 for equal images.

  Raises:
    TypeError, ValueError: As the metrics.

  Source: ours; those of the metrics stand there.

  Examples:
    >>> images = jnp.zeros((1, 168, 168, 3))
    >>> round(float(jax.jit(quality_loss)(images, images)[0]), 3)
    0.0
  """
  structure = 1 - ms_ssim(distorted, reference)
  edges = gmsd(distorted, reference, gradient_floor=TRAINING_GRADIENT_FLOOR)
  return (structure + edges) / 2


def attention_loss(
  distorted: Float[Array, "b h w 1"],
  reference: Float[Array, "b h w 1"],
  *,
  form: AttentionForm = "l1",
) -> Losses:
  """How far attention moves; 0 for equal maps.

    "l1"           mean |a - b|, in [0, 1]
    "kl"           sum q log(q / p), where p and q are a + 1/255 and b + 1/255 as shares of
                   their sums over the image; >= 0
    "correlation"  1 - (cov + e) / sqrt((var a + e) (var b + e)), e = 1e-6; in [0, 2]

  with a of the distorted image and b of the reference. "l1" sees levels, "kl" shares, and
  where the reference attends above all, "correlation" the pattern alone. Gradients are
  finite for flat maps.

  Args:
    distorted: Attention maps in [0, 1], yc.
    reference: Same shape, xc.
    form: Which.

  Returns:
    Losses, [B].

  Source: "kl" and "correlation" are measures of saliency maps, see Bylinskii et al., "What
  do different evaluation metrics tell us about saliency models?", 2019. Which the paper
  trained with is not published.

  Examples:
    >>> maps = jnp.zeros((1, 8, 8, 1))
    >>> float(attention_loss(maps + 0.5, maps)[0])
    0.5
  """
  if form == "l1":
    return jnp.abs(distorted - reference).mean(axis=(1, 2, 3))
  if form == "kl":
    p, q = (
      (maps + _ATTENTION_FLOOR) / (maps + _ATTENTION_FLOOR).sum(axis=(1, 2, 3), keepdims=True)
      for maps in (distorted, reference)
    )
    return (q * (jnp.log(q) - jnp.log(p))).sum(axis=(1, 2, 3))
  a, b = (maps - maps.mean(axis=(1, 2, 3), keepdims=True) for maps in (distorted, reference))

  def mean_product(a: Array, b: Array) -> Losses:
    return (a * b).mean(axis=(1, 2, 3)) + _VARIANCE_FLOOR

  return 1 - mean_product(a, b) / jnp.sqrt(mean_product(a, a) * mean_product(b, b))

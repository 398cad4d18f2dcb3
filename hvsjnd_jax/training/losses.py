"""The losses of stage 2, as the default weights were trained with, and variants of them.

Those of the published code stand in `released_losses`.
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

# Keeps logarithms of scores finite. Noise of 40 dB has several times as much.
_LEAST_STRUCTURE = 1e-3

# Keeps the logarithm of a squared distance finite; its root is 3e-5 of the range of values.
_LEAST_ERROR = 1e-9

# Attention, in [0, 1], below which the divergence does not tell maps apart: one gray level.
_ATTENTION_FLOOR = 1 / 255

# The variance, or covariance, of attention maps below which they count as flat.
_VARIANCE_FLOOR = 1e-6


def magnitude_loss(noise: RGBImages, *, target: float) -> Losses:
  """Computes log((N² + T²) / (2 N T)) for the geometric mean N of each channel, averaged.

  The loss is zero where N = T, and symmetric in log N (but for a floor of 4e-5 under every
  amplitude). Each channel counts on its own, because a total would let the generator hide all
  its noise in one channel. The mean is geometric, because that presses on every pixel alike:
  an arithmetic or quadratic mean is met most cheaply by a few huge peaks on the strongest
  edges.

  Args:
    noise: Amplitudes, lmbda · JND map, >= 0, in any units, such as masking thresholds.
    target: T > 0, in the same units.

  Returns:
    Losses, [B], >= 0.

  Source: the form is that of the released `mean_magnitude_loss`; means, target and channels
  are ours.

  Examples:
    >>> noise = jnp.ones((1, 8, 8, 3))
    >>> round(float(magnitude_loss(noise, target=2)[0]), 3)  # log(5 / 4)
    0.223
  """
  typical = jnp.exp(jnp.log(noise + _AMPLITUDE_FLOOR).mean(axis=(1, 2)))
  return _compare_amounts(typical, target)


def rms_magnitude_loss(noise: RGBImages, thresholds: RGBImages, *, target: float) -> Losses:
  """Computes log((N² + T²) / (2 N T)) for N² = mean (n t)² / mean t² of each channel, averaged.

  n is the noise in thresholds t, so N is the noise's root mean square in gray levels over that
  of the thresholds. All noise of one PSNR has the same magnitude, so that moving it from where
  it is seen to where it is not costs nothing here. A few huge peaks can meet it too; a
  `visibility_loss` of high power keeps them low.

  Args:
    noise: Amplitudes in masking thresholds, >= 0.
    thresholds: Threshold of each pixel and channel, > 0.
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
  """Computes the mean of N^power, which is lowest for noise of even visibility.

  Among the maps of a given geometric mean, the lowest loss has the one that is the same
  multiple of the threshold everywhere.

  Args:
    noise: Amplitudes in masking thresholds: lmbda · JND map / `masking.threshold`.
    power: >= 1; the higher, the more the peaks count.

  Returns:
    Losses, [B], >= 0.

  Examples:
    >>> float(visibility_loss(jnp.full((1, 8, 8, 3), 2.0))[0])
    4.0
  """
  return (noise**power).mean(axis=(1, 2, 3))


def distance_loss(distorted: RGBImages, reference: RGBImages) -> Losses:
  """Computes log sqrt(mean (d - r)² + 1e-9), the logarithm of a root-mean-square distance.

  In the perceptual domain it stands for visibility, which is what `ordering_loss` trains.

  Args:
    distorted: Images, such as y2.
    reference: Same shape, such as x2.

  Returns:
    Losses, [B]; -10.4 for equal images.

  Source: ours.

  Examples:
    >>> images = jnp.zeros((1, 8, 8, 3))
    >>> round(float(distance_loss(images + jnp.exp(-2.0), images)[0]), 3)
    -2.0
  """
  return jnp.log(jnp.square(distorted - reference).mean(axis=(1, 2, 3)) + _LEAST_ERROR) / 2


def ordering_loss(distances: Float[Array, "b 2"], visibilities: Float[Array, "b 2"]) -> Losses:
  """Measures how far the distances of two copies differ from their visibility.

    h(e),  e = (d_1 - d_2) - (v_1 - v_2),  h(e) = e² for |e| < 1/2, |e| - 1/4 beyond

  Both are logarithms, so it is ratios that are compared: of two copies of an image, the one
  that is seen twice as well shall be twice as far from it.

  Args:
    distances: Logarithm of each copy's distance.
    visibilities: Logarithm of how visible each copy's distortion is.

  Returns:
    Losses, [B], >= 0.

  Source: ours.

  Examples:
    >>> ordering_loss(jnp.asarray([[0.0, 1.0]]), jnp.asarray([[2.0, 3.0]]))
    Array([0.], dtype=float32)
  """
  errors = jnp.abs(jnp.diff(distances - visibilities)[:, 0])
  return jnp.where(errors < 0.5, errors**2, errors - 0.25)


def departure_loss(jnd: RGBImages, thresholds: RGBImages, *, level: float) -> Losses:
  """Computes mean log(xj / (L T))², how far a JND map departs from the masking threshold.

  Noise of a given PSNR does not depend on the scale of the map, which would drift to where the
  bounds of the correction hide all gradients.

  Args:
    jnd: "fine" JND maps, > 0.
    thresholds: T, the masking thresholds.
    level: L, the level of the maps.

  Returns:
    Losses, [B], >= 0.

  Source: ours.

  Examples:
    >>> ones = jnp.ones((1, 8, 8, 3))
    >>> round(float(departure_loss(jnp.exp(1.0) * ones, ones, level=1.0)[0]), 3)
    1.0
  """
  return jnp.square(jnp.log(jnd / (level * thresholds))).mean(axis=(1, 2, 3))


def quality_loss(distorted: RGBImages, reference: RGBImages) -> Losses:
  """Computes (1 - MS-SSIM + GMSD) / 2, a measure of how different two images look.

  Args:
    distorted: Images in [0, 1], sides of more than 160 pixels.
    reference: Same shape.

  Returns:
    Losses, [B], in [0, 0.8]; 0 for equal images.

  Raises:
    TypeError, ValueError: As the metrics.

  Source: ours; the metrics name their own.

  Examples:
    >>> images = jnp.zeros((1, 168, 168, 3))
    >>> round(float(jax.jit(quality_loss)(images, images)[0]), 3)
    0.0
  """
  structure = 1 - ms_ssim(distorted, reference)
  edges = gmsd(distorted, reference, gradient_floor=TRAINING_GRADIENT_FLOOR)
  return (structure + edges) / 2


def structure_loss(distorted: RGBImages, reference: RGBImages) -> Losses:
  """Computes (log(1 - MS-SSIM + e) + log(GMSD + e)) / 2, e = 0.001.

  Models of vision alone let noise gather at strong edges, which measures of structure punish.

  Args:
    distorted: Images in [0, 1], sides of more than 160 pixels.
    reference: Same shape.

  Returns:
    Losses, [B]; log 0.001 for equal images.

  Source: ours; the metrics name their own.

  Examples:
    >>> images = jnp.zeros((1, 168, 168, 3))
    >>> round(float(jax.jit(structure_loss)(images, images)[0]), 2)
    -6.91
  """
  structure = 1 - ms_ssim(distorted, reference)
  edges = gmsd(distorted, reference, gradient_floor=TRAINING_GRADIENT_FLOOR)
  return (jnp.log(structure + _LEAST_STRUCTURE) + jnp.log(edges + _LEAST_STRUCTURE)) / 2


def attention_loss(
  distorted: Float[Array, "b h w 1"],
  reference: Float[Array, "b h w 1"],
  *,
  form: AttentionForm = "l1",
) -> Losses:
  """Measures how far attention moves; 0 for equal maps.

    "l1"           mean |a - b|, in [0, 1]
    "kl"           sum q log(q / p), where p and q are a + 1/255 and b + 1/255 as shares of
                   their sums over the image; >= 0
    "correlation"  1 - (cov + e) / sqrt((var a + e) (var b + e)), e = 1e-6; in [0, 2]

  Here a is the attention of the distorted image, b that of the reference. "l1" compares
  levels; "kl" compares shares, above all where the reference attends; "correlation" compares
  the pattern alone. Gradients are finite for flat maps.

  Args:
    distorted: Attention maps in [0, 1], yc.
    reference: Same shape, xc.
    form: The measure.

  Returns:
    Losses, [B].

  Source: "kl" and "correlation" are measures of saliency maps, see Bylinskii et al., "What
  do different evaluation metrics tell us about saliency models?", 2019. The paper does not
  say which one it trained with.

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

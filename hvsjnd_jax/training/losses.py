"""The objectives of both training stages.

Images and maps are float32 in [0, 1], NHWC, RGB. A loss gives one value for each image,
[B]; an objective gives the total and every term by name, as scalars. Every image brings the
key of its own noise, so that a batch computed in parts, on any devices, sees the same.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from hvsjnd_jax.metrics import dists, fsim, gmsd, ms_ssim, ssim
from hvsjnd_jax.metrics.backbones import VGG16, ResNet34
from hvsjnd_jax.ops import filters
from hvsjnd_jax.ops.types import RGBImages
from hvsjnd_jax.training.config import AttentionForm

Losses = Float[Array, " b"]

# Keeps the logarithm of an amplitude finite at zero.
_AMPLITUDE_FLOOR = 0.01 / 255

# On the 0..255 scale; see `metrics.gmsd`.
_TRAINING_GRADIENT_FLOOR = 1.0

# What the adaptive quality assessment counts for each class of distortion.
_AIC_TRIOS = (
  ("gmsd", "ms_ssim", "dists"),
  ("dists", "ssim", "gmsd"),
  ("ms_ssim", "gmsd", "fsim"),
  ("gmsd", "ms_ssim", "dists"),
  ("gmsd", "ssim", "ms_ssim"),
)

# Of the released magnitude losses.
_RELEASED_JND_SCALE = 0.1

_RELEASED_FLOOR = 0.001

# Attention, in [0, 1], below which the divergence does not tell maps apart: a gray level.
_ATTENTION_FLOOR = 1 / 255

# Of the variances of two attention maps: maps of less contrast count as flat.
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


def mean_magnitude_loss(jnd: RGBImages, images: RGBImages) -> Losses:
  """log((N² + M² + .001) / (2 N M + .001)): the released code's first magnitude loss.

  N is the sum over channels of the image's mean gradient magnitude (`edge_magnitude`), M
  0.1 times the sum over channels of the map's mean. Zero where M = N: maps follow the
  amount of detail in an image.

  Args:
    jnd: JND maps, >= 0, without lmbda.
    images: The images that they are for.

  Returns:
    Losses, [B], >= 0.

  Source: the published JND code. The paper has no formula; `magnitude_loss` is ours.

  Examples:
    >>> flat = jnp.zeros((1, 8, 8, 3))
    >>> round(float(mean_magnitude_loss(flat, flat)[0]), 3)
    0.0
  """
  detail = edge_magnitude(images).mean(axis=(1, 2)).sum(axis=-1)
  amount = _RELEASED_JND_SCALE * jnd.mean(axis=(1, 2)).sum(axis=-1)
  return _log_ratio(detail, amount)


def total_variation_loss(jnd: RGBImages, images: RGBImages) -> Losses:
  """log((T1² + T2² + .001) / (2 T1 T2 + .001)): the released code's second magnitude loss.

  T1 = 1 / (TV + 1) and T2 = 1 / (S + 1), where TV is the sum of the image's gradient
  magnitude (`edge_magnitude`) and S that of the map, over all pixels and channels.

  It tells sums of some tens apart, and hardly any above: for S = 1000 and whatever TV the
  .001 outweighs T2², and the gradient is next to zero. Real images are there.

  Args:
    jnd: JND maps, >= 0, without lmbda.
    images: The images that they are for.

  Returns:
    Losses, [B], >= 0.

  Source: the published JND code.

  Examples:
    >>> flat = jnp.zeros((1, 8, 8, 3))
    >>> round(float(total_variation_loss(flat, flat)[0]), 3)
    0.0
  """
  variation = edge_magnitude(images).sum(axis=(1, 2, 3))
  amount = jnd.sum(axis=(1, 2, 3))
  return _log_ratio(1 / (variation + 1), 1 / (amount + 1))


def _log_ratio(a: Losses, b: Losses) -> Losses:
  # log1p of the difference: exactly 0, not a rounding error, where the two are equal.
  return jnp.log1p(jnp.square(a - b) / (2 * a * b + _RELEASED_FLOOR))


def edge_magnitude(images: RGBImages) -> RGBImages:
  """Prewitt's gradient magnitude, sqrt(x² + y² + 1e-12), of each channel.

  Differences of means over three pixels, two pixels apart; the border is repeated.

  Args:
    images: Images in [0, 1].

  Returns:
    Magnitudes, same shape, >= 0.

  Examples:
    >>> ramp = jnp.broadcast_to(jnp.arange(8)[:, None] / 8, (1, 8, 8, 3))
    >>> round(float(edge_magnitude(ramp)[0, 4, 4, 0]), 3)
    0.25
  """
  return filters.gradient_magnitude(images, filters.PREWITT, floor=1e-12)


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
  edges = gmsd(distorted, reference, gradient_floor=_TRAINING_GRADIENT_FLOOR)
  return (structure + edges) / 2


def classify(classifier: ResNet34, images: RGBImages) -> Int[Array, " b"]:
  """The kind of distortion that the classifier sees in each image: 0 to 4, no gradient.

  Args:
    classifier: The network, from `weights.load_classifier`.
    images: Images in [0, 1].

  Returns:
    Classes, [B], integers.

  Examples:
    >>> classifier = nnx.eval_shape(lambda: ResNet34(rngs=nnx.Rngs(0)))
    >>> jax.eval_shape(classify, classifier, jnp.zeros((2, 32, 32, 3)))
    ShapeDtypeStruct(shape=(2,), dtype=int32)
  """
  return classifier(lax.stop_gradient(images)).argmax(axis=-1)


def aic_loss(
  distorted: RGBImages,
  reference: RGBImages,
  classes: Int[Array, " b"],
  *,
  vgg16: VGG16,
  gradient_floor: float = 1e-12,
) -> Losses:
  """Adaptive quality assessment (AIC): the mean of three distances that the class picks.

    class 0, 3  GMSD, MS-SSIM, DISTS
    class 1     DISTS, SSIM, GMSD
    class 2     MS-SSIM, GMSD, FSIM
    class 4     GMSD, SSIM, MS-SSIM

  SSIM, MS-SSIM (variant "reference") and FSIM count as 1 - score. All five are computed
  for every image, and weighted by a row of a table: a batch may mix classes.

  Args:
    distorted: Images in [0, 1], sides of more than 160 pixels.
    reference: Same shape.
    classes: Class of each distorted image, 0 to 4, from `classify`.
    vgg16: The network of DISTS, from `weights.load_vgg16`.
    gradient_floor: Of GMSD and FSIM; their docstrings say why training wants 1.

  Returns:
    Losses, [B]; 0 for equal images.

  Raises:
    TypeError: If the images are not floating point, or the classes no integers.
    ValueError: If the images are no two of one shape [B, H, W, 3] and large enough, or the
      classes are not [B].

  Source: the published JND code.

  Examples:
    >>> vgg16 = nnx.eval_shape(lambda: VGG16(rngs=nnx.Rngs(0)))
    >>> images, classes = jnp.zeros((2, 168, 168, 3)), jnp.asarray([0, 4])
    >>> jax.eval_shape(aic_loss, images, images, classes, vgg16=vgg16)
    ShapeDtypeStruct(shape=(2,), dtype=float32)
  """
  if not jnp.issubdtype(classes.dtype, jnp.integer):
    raise TypeError(f"aic_loss: expected integer classes, got {classes.dtype}")
  if classes.shape != distorted.shape[:1]:
    raise ValueError(
      f"aic_loss: expected a class for each of {distorted.shape[0]} images, got {classes.shape}"
    )
  distances = {
    "gmsd": gmsd(distorted, reference, gradient_floor=gradient_floor),
    "ms_ssim": 1 - ms_ssim(distorted, reference, variant="reference"),
    "dists": dists(distorted, reference, vgg16=vgg16),
    "ssim": 1 - ssim(distorted, reference),
    "fsim": 1 - fsim(distorted, reference, gradient_floor=gradient_floor),
  }
  shares = np.asarray([[name in trio for name in distances] for trio in _AIC_TRIOS]) / 3
  stacked = jnp.stack(list(distances.values()), axis=-1)
  return (stacked * jnp.asarray(shares, stacked.dtype)[classes]).sum(axis=-1)

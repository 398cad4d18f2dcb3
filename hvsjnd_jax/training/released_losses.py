"""The losses of the published JND code.

Images and maps are float32 in [0, 1], NHWC, RGB. A loss returns one value for each image, [B].
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from hvsjnd_jax.metrics import dists, fsim, gmsd, ms_ssim, ssim
from hvsjnd_jax.metrics.backbones import VGG16, ResNet34
from hvsjnd_jax.ops import filters
from hvsjnd_jax.ops.types import RGBImages
from hvsjnd_jax.training.losses import Losses

# The three distances that adaptive quality assessment averages, for each class of distortion.
_AIC_TRIOS = (
  ("gmsd", "ms_ssim", "dists"),
  ("dists", "ssim", "gmsd"),
  ("ms_ssim", "gmsd", "fsim"),
  ("gmsd", "ms_ssim", "dists"),
  ("gmsd", "ssim", "ms_ssim"),
)

# Constants of the magnitude losses, as published.
_JND_SCALE = 0.1

_RATIO_FLOOR = 0.001


def mean_magnitude_loss(jnd: RGBImages, images: RGBImages) -> Losses:
  """Computes log((N² + M² + .001) / (2 N M + .001)), the first released magnitude loss.

  N is the sum over channels of the image's mean gradient magnitude (`edge_magnitude`), and M
  0.1 times the sum over channels of the map's mean. The loss is zero where M = N, so that
  maps follow the amount of detail in an image.

  Args:
    jnd: JND maps, >= 0, without lmbda.
    images: The images that the maps belong to.

  Returns:
    Losses, [B], >= 0.

  Source: the published JND code. The paper has no formula; `magnitude_loss` is ours.

  Examples:
    >>> flat = jnp.zeros((1, 8, 8, 3))
    >>> round(float(mean_magnitude_loss(flat, flat)[0]), 3)
    0.0
  """
  detail = edge_magnitude(images).mean(axis=(1, 2)).sum(axis=-1)
  amount = _JND_SCALE * jnd.mean(axis=(1, 2)).sum(axis=-1)
  return _log_ratio(detail, amount)


def total_variation_loss(jnd: RGBImages, images: RGBImages) -> Losses:
  """Computes log((T1² + T2² + .001) / (2 T1 T2 + .001)), the second released magnitude loss.

  T1 = 1 / (TV + 1) and T2 = 1 / (S + 1), where TV is the sum of the image's gradient
  magnitude (`edge_magnitude`) and S the sum of the map, over all pixels and channels.

  The loss tells sums of a few tens apart, but hardly any above: at S = 1000, and for any TV,
  the .001 outweighs T2², and the gradient is next to zero. The sums of real images are there.

  Args:
    jnd: JND maps, >= 0, without lmbda.
    images: The images that the maps belong to.

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
  # log1p of the difference is exactly 0 where the two are equal; the logarithm of the ratio
  # would leave a rounding error.
  return jnp.log1p(jnp.square(a - b) / (2 * a * b + _RATIO_FLOOR))


def edge_magnitude(images: RGBImages) -> RGBImages:
  """Computes Prewitt's gradient magnitude, sqrt(x² + y² + 1e-12), of each channel.

  x and y are differences of means over three pixels, two pixels apart; the border is repeated.

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


def classify(classifier: ResNet34, images: RGBImages) -> Int[Array, " b"]:
  """Returns the class of distortion, 0 to 4, that the classifier sees in each image.

  It carries no gradient.

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
  """Computes adaptive quality assessment (AIC): the mean of three distances, chosen by class.

    class 0, 3  GMSD, MS-SSIM, DISTS
    class 1     DISTS, SSIM, GMSD
    class 2     MS-SSIM, GMSD, FSIM
    class 4     GMSD, SSIM, MS-SSIM

  SSIM, MS-SSIM (variant "reference") and FSIM count as 1 - score. All five distances are
  computed for every image and weighted by its class, so that a batch may mix classes.

  Args:
    distorted: Images in [0, 1], sides of more than 160 pixels.
    reference: Same shape.
    classes: Class of each distorted image, 0 to 4, from `classify`.
    vgg16: The network of DISTS, from `weights.load_vgg16`.
    gradient_floor: Floor of GMSD and FSIM; their docstrings say why training wants 1.

  Returns:
    Losses, [B]; 0 for equal images.

  Raises:
    TypeError: If the images are not floating point, or the classes not integers.
    ValueError: If the images differ in shape, are not [B, H, W, 3] or are too small, or the
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

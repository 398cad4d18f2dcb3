"""The priors: what HVS-SD says of an image, for the generator to draw from.

Images are float in [0, 1], NHWC, RGB, H and W at least 8. Everything is per image: a
batch equals its images one by one.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from hvsjnd_jax.model.hvs_sd import HVSSD, STRIDE
from hvsjnd_jax.model.layers import Extent, keep
from hvsjnd_jax.ops.types import RGBImages

AttentionLayer = Literal["reconstruction", "feature"]


class Priors(NamedTuple):
  """Perceptual-domain image x2, attention xc and input gradient xg."""

  degraded: RGBImages  # not clipped
  attention: Float[Array, "b h w 1"]  # in [0, 1]
  gradient: RGBImages  # in [0, 1]


def degrade(hvs_sd: HVSSD, images: RGBImages) -> RGBImages:
  """The perceptual-domain image x2: the decoder's output, not clipped.

  Args:
    hvs_sd: The signal-degradation network.
    images: Images in [0, 1]. Sides that are no multiple of 8 are padded at the bottom
      and right by reflection, and the result is cropped.

  Returns:
    Images of the same shape; mostly, not strictly, in [0, 1].

  Deviation: the published code fails on sides that are no multiple of 8.
  """
  return _crop(hvs_sd(_pad(images)), images)


def compute_priors(
  hvs_sd: HVSSD, images: RGBImages, *, attention: AttentionLayer = "reconstruction"
) -> Priors:
  """Runs HVS-SD once forward and once backward, and reads both priors off.

  With R the decoder's output and D = mean (R - x)^2 for each image, the gradient prior is
  relu(dD/dx) scaled to [0, 1], both paths counted: through the network and direct. The
  attention prior is `grad_cam` of the encoder's feature, or of R, whose gradient is the
  closed form dD/dR = 2 (R - x) / (3 H W): that one needs no backward pass, and under
  `jax.jit` none is made where only `degraded` and `attention` are used.

  Args:
    hvs_sd: The signal-degradation network.
    images: Images in [0, 1]. Sides that are no multiple of 8 are padded at the bottom
      and right by reflection for the network. Distortion, means, minima and maxima see
      the image's own pixels only, and the gradient is that of the network's input: what
      a pixel does through its mirror image does not count.
    attention: "reconstruction", what the published code computes, or "feature", what
      the paper's text and figure describe.

  Returns:
    The priors, all finite: a map without contrast becomes zero.

  Source: Jin et al., arXiv 2208.07583; the published code where the two differ.
  Deviation: the published code returns NaN where a map has no contrast, and takes
  minima and maxima over a whole batch.

  Examples:
    >>> seen = jax.jit(compute_priors)(hvsjnd_jax.load().hvs_sd, jnp.zeros((1, 16, 16, 3)))
    >>> seen.degraded.shape, seen.attention.shape, seen.gradient.shape
    ((1, 16, 16, 3), (1, 16, 16, 1), (1, 16, 16, 3))
  """
  b, h, w, _ = images.shape
  padded = _pad(images)
  own = None
  if padded.shape != images.shape:
    own = jnp.broadcast_to(jnp.asarray((h, w), jnp.int32), (b, 2))
  seen = trace(hvs_sd, padded, own, pixels=h * w)
  if attention == "reconstruction":
    degraded, pull = (_crop(maps, images) for maps in (seen.degraded, seen.pull))
    cam = grad_cam(degraded, pull)
  else:
    cam = grad_cam(seen.feature, seen.feature_pull)
    cam = jax.image.resize(cam, (*padded.shape[:3], 1), "bilinear", antialias=False)
  degraded, cam, gradient = (_crop(maps, images) for maps in (seen.degraded, cam, seen.gradient))
  return Priors(degraded, _normalize(cam), _normalize(gradient))


class Trace(NamedTuple):
  """What one pass forward and one backward through HVS-SD leave behind.

  A pull is the gradient of the distortion D with respect to what it is named after.
  """

  degraded: RGBImages
  pull: RGBImages  # dD/dR; 0 outside the image's own pixels
  gradient: RGBImages  # relu(dD/dx), not normalised
  feature: Float[Array, "b h/8 w/8 c"]
  feature_pull: Float[Array, "b h/8 w/8 c"]


def trace(
  hvs_sd: HVSSD,
  padded: RGBImages,
  own: Extent | None,
  *,
  pixels: int | Array,
  extent: Extent | None = None,
) -> Trace:
  """HVS-SD forward and backward, for images whose sides are multiples of 8.

  Args:
    hvs_sd: The network.
    padded: RGBImages, filled up to multiples of 8; 0 past the extent.
    own: Rows and columns that count in the distortion; None: all.
    pixels: How many pixels the image has, of which this may be a part.
    extent: Where the images end; None: with the array.

  Returns:
    Everything, in the size of `padded`; of any value past the extent.
  """
  feature, encoder_vjp = jax.vjp(lambda x: hvs_sd.encoder(x, extent=extent), padded)
  degraded, decoder_vjp = jax.vjp(lambda z: hvs_sd.decoder(z, extent=extent), feature)
  # Every image has its own distortion, in which padding does not count.
  pull = keep(2 * (degraded - padded) / (3 * pixels), own)
  (feature_pull,) = decoder_vjp(pull)
  (network_path,) = encoder_vjp(feature_pull)
  return Trace(degraded, pull, jax.nn.relu(network_path - pull), feature, feature_pull)


def grad_cam(
  activation: Float[Array, "b h w c"], gradient: Float[Array, "b h w c"]
) -> Float[Array, "b h w 1"]:
  """|sum_c w_c A_c|, with w_c the spatial mean of the gradient.

  Args:
    activation: A.
    gradient: The distortion's gradient with respect to A.

  Returns:
    The class-activation map, >= 0, not normalised.

  Source: Selvaraju et al., "Grad-CAM", 2017. Deviation, as in the published code: the
  absolute value of the sum, where Grad-CAM drops what is negative.
  """
  weights = gradient.mean(axis=(1, 2), keepdims=True)
  return jnp.abs((weights * activation).sum(axis=-1, keepdims=True))


def _normalize(maps: Array) -> Array:
  """(v - min) / (max - min) for each image; 0 where max = min."""
  # Else XLA may compute the map twice, with other roundings: its extremes would be no pixel's.
  maps = lax.optimization_barrier(maps)
  low, high = (reduce(maps, axis=(1, 2, 3), keepdims=True) for reduce in (jnp.min, jnp.max))
  contrast = high - low
  # The inner `where` keeps the untaken division's gradient finite too.
  return (maps - low) / jnp.where(contrast > 0, contrast, 1)


def _pad(images: RGBImages) -> RGBImages:
  _, h, w, _ = images.shape
  return jnp.pad(images, ((0, 0), (0, -h % STRIDE), (0, -w % STRIDE), (0, 0)), mode="reflect")


def _crop(maps: Array, images: RGBImages) -> Array:
  return maps[:, : images.shape[1], : images.shape[2]]

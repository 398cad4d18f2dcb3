"""The priors: what HVS-SD says of an image, for the generator to draw from.

Images are float in [0, 1], NHWC, RGB, H and W at least 8. Everything is per image: a
batch equals its images one by one.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hvsjnd_jax.hvs_sd import HVSSD, STRIDE

AttentionLayer = Literal["reconstruction", "feature"]

Images = Float[Array, "b h w 3"]


class Priors(NamedTuple):
  """Perceptual-domain image x2, attention xc and input gradient xg."""

  degraded: Images  # not clipped
  attention: Float[Array, "b h w 1"]  # in [0, 1]
  gradient: Images  # in [0, 1]


def degrade(hvs_sd: HVSSD, images: Images) -> Images:
  """The perceptual-domain image x2: the decoder's output, not clipped.

  Args:
    hvs_sd: The signal-degradation network.
    images: Images in [0, 1]. Sides that are no multiple of 8 are padded at the bottom
      and right by reflection, and the result is cropped.

  Returns:
    Images of the same shape; mostly, not strictly, in [0, 1].

  Deviation: the published code fails on sides that are no multiple of 8.
  """
  return _crop(hvs_sd(_pad(images, mode="reflect")), images)


def compute_priors(
  hvs_sd: HVSSD, images: Images, *, attention: AttentionLayer = "reconstruction"
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
  """
  padded = _pad(images, mode="reflect")
  feature, encoder_vjp = jax.vjp(hvs_sd.encoder, padded)
  decoded, decoder_vjp = jax.vjp(hvs_sd.decoder, feature)
  degraded = _crop(decoded, images)
  # Every image has its own distortion, in which padding does not count.
  degraded_gradient = 2 * (degraded - images) / images[0].size
  (feature_gradient,) = decoder_vjp(_pad(degraded_gradient, mode="constant"))
  (network_path,) = encoder_vjp(feature_gradient)
  gradient = jax.nn.relu(_crop(network_path, images) - degraded_gradient)

  if attention == "reconstruction":
    cam = grad_cam(degraded, degraded_gradient)
  else:
    cam = grad_cam(feature, feature_gradient)
    cam = jax.image.resize(cam, (*padded.shape[:3], 1), "bilinear", antialias=False)
    cam = _crop(cam, images)
  return Priors(degraded, _normalize(cam), _normalize(gradient))


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
  # Not `min` and `max`: their gradient looks for the pixels that equal the extreme, and
  # where XLA computes the map twice with other roundings finds none, which gives 0/0.
  flat = maps.reshape(maps.shape[0], -1)
  places = jnp.stack([flat.argmin(axis=1), flat.argmax(axis=1)], axis=1)
  extremes = jnp.take_along_axis(flat, places, axis=1)[..., None, None]
  low, high = extremes[:, :1], extremes[:, 1:]
  contrast = high - low
  # The inner `where` keeps the untaken division's gradient finite too.
  return (maps - low) / jnp.where(contrast > 0, contrast, 1)


def _pad(images: Images, *, mode: Literal["reflect", "constant"]) -> Images:
  _, h, w, _ = images.shape
  return jnp.pad(images, ((0, 0), (0, -h % STRIDE), (0, -w % STRIDE), (0, 0)), mode=mode)


def _crop(maps: Array, images: Images) -> Array:
  return maps[:, : images.shape[1], : images.shape[2]]

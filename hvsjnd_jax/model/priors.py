"""The priors: what HVS-SD tells about an image, for the generator to draw from.

Images are float in [0, 1], NHWC, RGB, H and W at least 8. Everything is per image: a
batch equals its images one by one.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from hvsjnd_jax.model.extents import Extent, mask_outside
from hvsjnd_jax.model.hvs_sd import HVSSD, STRIDE, Features
from hvsjnd_jax.model.resizing import resize
from hvsjnd_jax.ops.types import AnyArray, RGBImages

AttentionLayer = Literal["reconstruction", "feature"]


class Priors(NamedTuple):
  """The perceptual-domain image x2, the attention map xc and the input gradient xg."""

  degraded: RGBImages  # not clipped
  attention: Float[Array, "b h w 1"]  # in [0, 1]
  gradient: RGBImages  # in [0, 1]


def degrade(hvs_sd: HVSSD, images: RGBImages) -> RGBImages:
  """Computes the perceptual-domain image x2: the decoder's output, not clipped.

  Args:
    hvs_sd: The signal-degradation network.
    images: Images in [0, 1]. Sides that are not multiples of 8 are padded at the bottom
      and right by reflection, and the result is cropped.

  Returns:
    Images of the same shape; mostly, not strictly, in [0, 1].

  Deviation: the published code fails on sides that are not multiples of 8.
  """
  return _crop(hvs_sd(_pad(images)), images)


def compute_priors(
  hvs_sd: HVSSD, images: RGBImages, *, attention_layer: AttentionLayer = "reconstruction"
) -> Priors:
  """Computes the priors in one pass forward and one backward through HVS-SD.

  With R the decoder's output and D = mean (R - x)^2 for each image, the gradient prior is
  relu(dD/dx) scaled to [0, 1]; dD/dx counts both paths, through the network and direct. The
  attention prior is `grad_cam` of the encoder's feature, or of R, whose gradient is the
  closed form dD/dR = 2 (R - x) / (3 H W). The latter needs no backward pass: under `jax.jit`
  none is made where only `degraded` and `attention` are used.

  Args:
    hvs_sd: The signal-degradation network.
    images: Images in [0, 1]. Sides that are not multiples of 8 are padded at the bottom
      and right by reflection for the network. Distortion, means, minima and maxima see
      the image's own pixels only, and the gradient is that of the network's input: the
      effect of a pixel through its mirror image does not count.
    attention_layer: "reconstruction", as the published code computes it, or "feature", as
      the paper's text and figure describe it.

  Returns:
    The priors, all finite: a map without contrast becomes zero.

  Source: Jin et al., arXiv 2208.07583; the published code where the two differ.
  Deviation: the published code returns NaN where a map has no contrast, and takes
  minima and maxima over a whole batch.

  Examples:
    >>> priors = jax.jit(compute_priors)(hvsjnd_jax.load().hvs_sd, jnp.zeros((1, 16, 16, 3)))
    >>> priors.degraded.shape, priors.attention.shape, priors.gradient.shape
    ((1, 16, 16, 3), (1, 16, 16, 1), (1, 16, 16, 3))
  """
  b, h, w, _ = images.shape
  padded = _pad(images)
  valid_size = None
  if padded.shape != images.shape:
    valid_size = jnp.broadcast_to(jnp.asarray((h, w), jnp.int32), (b, 2))
  passed = forward_backward(hvs_sd, padded, valid_size, pixels=h * w)
  # Cropping leaves a feature whole, as it is smaller than the image.
  activation, cotangent = (_crop(maps, images) for maps in passed.read(attention_layer))
  attention = draw_attention(
    activation,
    cotangent.mean(axis=(1, 2), keepdims=True),
    size=(h, w),
    attention_layer=attention_layer,
  )
  degraded, gradient = (_crop(maps, images) for maps in (passed.degraded, passed.gradient))
  return Priors(degraded, attention, normalize(gradient))


class ForwardBackward(NamedTuple):
  """What one pass forward and one backward through HVS-SD compute.

  A cotangent is the gradient of the distortion D with respect to what it is named after.
  """

  degraded: RGBImages
  degraded_cotangent: RGBImages  # 0 outside the valid size
  gradient: RGBImages  # relu(dD/dx), not normalised
  feature: Features
  feature_cotangent: Features

  def read(self, attention_layer: AttentionLayer) -> tuple[Array, Array]:
    """Returns the activation that attention is read from, and its cotangent."""
    if attention_layer == "feature":
      return self.feature, self.feature_cotangent
    return self.degraded, self.degraded_cotangent


def forward_backward(
  hvs_sd: HVSSD,
  padded: RGBImages,
  valid_size: Extent | None,
  *,
  pixels: int | Array,
  extent: Extent | None = None,
) -> ForwardBackward:
  """Runs HVS-SD forward and backward on images whose sides are multiples of 8.

  Args:
    hvs_sd: The network.
    padded: Images padded to multiples of 8; 0 past the extent.
    valid_size: Rows and columns that count in the distortion, [B, 2]; None means all.
    pixels: Number of pixels of the image, of which `padded` may be a part; one for all images, or
      one for each, [B, 1, 1, 1].
    extent: Where the padded images end (see `extents`).

  Returns:
    Activations and gradients in the size of `padded`; past the extent they mean nothing.
  """
  feature, encoder_vjp = jax.vjp(lambda x: hvs_sd.encoder(x, extent=extent), padded)
  degraded, decoder_vjp = jax.vjp(lambda z: hvs_sd.decoder(z, extent=extent), feature)
  # Every image has its own distortion, in which padding does not count.
  cotangent = mask_outside(2 * (degraded - padded) / (3 * pixels), valid_size)
  (feature_cotangent,) = decoder_vjp(cotangent)
  (network_path,) = encoder_vjp(feature_cotangent)
  gradient = jax.nn.relu(network_path - cotangent)
  return ForwardBackward(degraded, cotangent, gradient, feature, feature_cotangent)


def draw_attention(
  activation: AnyArray,
  weights: AnyArray,
  *,
  size: tuple[int, int],
  attention_layer: AttentionLayer,
) -> AnyArray:
  """Draws the attention map xc: `grad_cam`, enlarged to the image's size and normalised.

  Args:
    activation: Of whole images, [..., h, w, c], of NumPy or JAX.
    weights: As `grad_cam`.
    size: Height and width of the image.
    attention_layer: Where the activation comes from.

  Returns:
    Attention maps in [0, 1], [..., *size, 1].
  """
  cam = grad_cam(activation, weights)
  if attention_layer == "feature":
    h, w = cam.shape[-3:-1]
    cam = resize(cam, (STRIDE * h, STRIDE * w))
  return normalize(cam[..., : size[0], : size[1], :])


def grad_cam(activation: AnyArray, weights: AnyArray) -> AnyArray:
  """Computes the class-activation map |sum_c w_c A_c|.

  Args:
    activation: A, [..., h, w, c].
    weights: w, the spatial mean of the distortion's gradient with respect to A, [..., 1, 1, c].

  Returns:
    The map, [..., h, w, 1], >= 0, not normalised.

  Source: Selvaraju et al., "Grad-CAM", 2017. Deviation, as in the published code: the
  absolute value of the sum, where Grad-CAM drops what is negative.
  """
  total: Any = (weights * activation).sum(axis=-1, keepdims=True)
  return abs(total)


def normalize(maps: AnyArray) -> AnyArray:
  """Scales each map, [..., h, w, c], to [0, 1]: (v - min) / (max - min), or 0 where max = min.

  A NumPy array is overwritten: those of a large image leave no room for a copy.
  """
  low: Any
  high: Any
  if isinstance(maps, Array):
    # Else XLA may compute the map twice, rounding differently: no pixel would be an extreme.
    maps = lax.optimization_barrier(maps)
    low, high = _find_extremes(maps)
  else:
    low, high = (find(axis=(-3, -2, -1), keepdims=True) for find in (maps.min, maps.max))
  contrast = high - low
  maps -= low
  # Without contrast the divisor is 1, which keeps the gradient finite too.
  maps /= contrast + (contrast == 0).astype(contrast.dtype)
  return maps


@jax.custom_jvp
def _find_extremes(maps: Array) -> tuple[Array, Array]:
  """Finds the least and the greatest value of each map, [..., 1, 1, 1]."""
  least, greatest = (find(axis=(-3, -2, -1), keepdims=True) for find in (maps.min, maps.max))
  return least, greatest


# JAX's own rule looks for pixels that equal the extreme. In a derivative XLA may compute the map
# twice in spite of a barrier, and where no pixel equals the extreme that rule gives NaN.
@_find_extremes.defjvp
def _move_extremes(primals: tuple[Array], tangents: tuple[Array]) -> Any:
  rows, tangent_rows = (a.reshape(*a.shape[:-3], -1) for a in (primals[0], tangents[0]))
  moves = (
    jnp.take_along_axis(tangent_rows, find(rows, axis=-1, keepdims=True), axis=-1)
    for find in (jnp.argmin, jnp.argmax)
  )
  return _find_extremes(*primals), tuple(move[..., None, None] for move in moves)


def _pad(images: RGBImages) -> RGBImages:
  _, h, w, _ = images.shape
  return jnp.pad(images, ((0, 0), (0, -h % STRIDE), (0, -w % STRIDE), (0, 0)), mode="reflect")


def _crop(maps: Array, images: RGBImages) -> Array:
  return maps[:, : images.shape[1], : images.shape[2]]

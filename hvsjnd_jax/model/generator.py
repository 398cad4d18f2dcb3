"""The JND generator: image and priors in, JND map out.

Arrays are float32, NHWC; images, priors and maps lie in [0, 1]. Inside, the convolutions
compute in `dtype`.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from hvsjnd_jax.model.layers import Extent, ReflectingConv, double, shrink
from hvsjnd_jax.model.masking import threshold

Resolution = Literal["reference", "native", "fine"]

# What "reference" takes every map through.
REFERENCE_SIZES = ((88, 88), (176, 176))


class JNDGenerator(nnx.Module):
  """Six 3x3 convolutions on (image, attention, attention · gradient), then resizing.

  Two strides of 2 bring the map to a quarter of the image's size; bilinear resizing
  brings it back. 86,051 parameters.

  Args:
    dtype: What the convolutions compute in; None: as the images.
    rngs: Source of the initial weights.

  Source: Jin et al., arXiv 2208.07583. The paper's figure shows five input channels; the
  published code and checkpoint have seven, and so has this. Initial weights are Flax's.
  """

  def __init__(self, *, dtype: Dtype | None = None, rngs: nnx.Rngs):
    self.dtype = dtype

    def conv(inputs: int, outputs: int, stride: int) -> ReflectingConv:
      return ReflectingConv(inputs, outputs, stride=stride, rngs=rngs)

    self.conv1 = conv(7, 32, 1)
    self.conv2 = conv(32, 32, 2)
    self.conv3 = conv(32, 64, 1)
    self.conv4 = conv(64, 64, 2)
    self.conv5 = conv(64, 32, 1)
    self.conv6 = conv(32, 3, 1)

  def __call__(
    self,
    images: Float[Array, "b h w 3"],
    attention: Float[Array, "b h w 1"],
    gradient: Float[Array, "b h w 3"],
    *,
    resolution: Resolution,
    extent: Extent | None = None,
  ) -> Float[Array, "b h w 3"]:
    """Draws the JND map.

    Args:
      images: Images in [0, 1]; H and W at least 8.
      attention: Attention map in [0, 1] (xc in the paper).
      gradient: Normalised input gradient in [0, 1] (xg in the paper).
      resolution: "reference" takes every map through 88x88 and 176x176, as the
        published code does at any image size; "native" doubles the quarter-size map
        twice, so that detail survives at any size: equal for images of 176x176. "fine"
        multiplies the native map by `masking.threshold`: the networks say by how much an
        image departs from what contrast and luminance alone mask, pixel by pixel.
      extent: Where the images end (see `layers`), not for "reference".

    Returns:
      The JND map in [0, 1]: how much change goes unseen, per pixel and channel.
    """
    maps = self.draw_quarter(images, attention, gradient, extent=extent)
    h, w = images.shape[1:3]
    if resolution == "reference":
      for size in (*REFERENCE_SIZES, (h, w)):
        maps = _resize(maps, size)
    else:
      quarter = shrink(extent, 4)
      maps = double(maps, extent=quarter)
      maps = double(maps, extent=None if quarter is None else 2 * quarter)
      # The strides round odd sizes up: a surplus row or column lies past the image.
      maps = maps[:, :h, :w]
    if resolution == "fine":
      maps = maps * threshold(images, extent=extent)
    return jnp.clip(jnp.abs(maps), 0, 1)

  def draw_quarter(
    self,
    images: Float[Array, "b h w 3"],
    attention: Float[Array, "b h w 1"],
    gradient: Float[Array, "b h w 3"],
    *,
    extent: Extent | None = None,
  ) -> Float[Array, "b h/4 w/4 3"]:
    """The map at a quarter of the image's size, rounded up, of either sign."""
    hidden = jnp.concatenate([images, attention, attention * gradient], axis=-1)
    hidden = hidden.astype(self.dtype or images.dtype)
    for conv, factor in (
      (self.conv1, 1),
      (self.conv2, 1),
      (self.conv3, 2),
      (self.conv4, 2),
      (self.conv5, 4),
      (self.conv6, 4),
    ):
      hidden = nnx.leaky_relu(conv(hidden, extent=shrink(extent, factor)))
    return hidden.astype(images.dtype)


def _resize(maps: Array, size: tuple[int, int]) -> Array:
  """Bilinear, half-pixel centres, no antialiasing even when shrinking (as PyTorch)."""
  shape = (maps.shape[0], *size, maps.shape[-1])
  return jax.image.resize(maps, shape, "bilinear", antialias=False)

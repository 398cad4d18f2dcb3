"""The JND generator: draws a JND map at a quarter of the image's size.

Arrays are float32, NHWC; images and priors lie in [0, 1]. The convolutions compute in `dtype`.
`jnd_map` enlarges what is drawn here to the image's size.
"""

import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from hvsjnd_jax.model.extents import Extent, shrink_extent
from hvsjnd_jax.model.layers import ReflectingConv
from hvsjnd_jax.ops.types import RGBImages

STRIDE = 4  # pixels of the image to one of the map, along each side


class JNDGenerator(nnx.Module):
  """Six 3x3 convolutions on (image, attention, attention · gradient); two have stride 2.

  It has 86,051 parameters.

  Args:
    dtype: What the convolutions compute in; None means the type of the images.
    rngs: Source of the initial weights.

  Source: Jin et al., arXiv 2208.07583. The paper's figure shows five input channels; the
  published code and checkpoint have seven, as here. Initial weights are Flax's.
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
    images: RGBImages,
    attention: Float[Array, "b h w 1"],
    gradient: RGBImages,
    *,
    extent: Extent | None = None,
  ) -> Float[Array, "b h/4 w/4 3"]:
    """Draws the map, of either sign.

    Args:
      images: Images in [0, 1]; H and W at least 8.
      attention: Attention map in [0, 1] (xc in the paper).
      gradient: Normalised input gradient in [0, 1] (xg in the paper).
      extent: Where the images end (see `extents`).

    Returns:
      G(x, xc, xc·xg), a quarter of the image's size, rounded up.
    """
    hidden = jnp.concatenate([images, attention, attention * gradient], axis=-1)
    hidden = hidden.astype(self.dtype or images.dtype)
    for conv, factor in (
      (self.conv1, 1),
      (self.conv2, 1),
      (self.conv3, 2),
      (self.conv4, 2),
      (self.conv5, STRIDE),
      (self.conv6, STRIDE),
    ):
      hidden = nnx.leaky_relu(conv(hidden, extent=shrink_extent(extent, factor)))
    return hidden.astype(images.dtype)

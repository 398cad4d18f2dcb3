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

Resolution = Literal["reference", "native"]


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
    def conv(inputs: int, outputs: int, stride: int) -> nnx.Conv:
      return nnx.Conv(inputs, outputs, (3, 3), stride, padding="REFLECT", dtype=dtype, rngs=rngs)

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
  ) -> Float[Array, "b h w 3"]:
    """Draws the JND map.

    Args:
      images: Images in [0, 1]; H and W at least 8.
      attention: Attention map in [0, 1] (xc in the paper).
      gradient: Normalised input gradient in [0, 1] (xg in the paper).
      resolution: "reference" takes every map through 88x88 and 176x176, as the
        published code does at any image size; "native" doubles the quarter-size map
        twice, so that detail survives at any size. Equal for images of 176x176.

    Returns:
      The JND map in [0, 1]: how much change goes unseen, per pixel and channel.
    """
    hidden = jnp.concatenate([images, attention, attention * gradient], axis=-1)
    for conv in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5, self.conv6):
      hidden = nnx.leaky_relu(conv(hidden))
    hidden = hidden.astype(images.dtype)
    h, w = images.shape[1:3]
    if resolution == "reference":
      for size in ((88, 88), (176, 176), (h, w)):
        hidden = _resize(hidden, size)
    else:
      for _ in range(2):
        hidden = _resize(hidden, (2 * hidden.shape[1], 2 * hidden.shape[2]))
      # The strides round odd sizes up: a surplus row or column lies past the image.
      hidden = hidden[:, :h, :w]
    return jnp.clip(jnp.abs(hidden), 0, 1)


def _resize(maps: Array, size: tuple[int, int]) -> Array:
  """Bilinear, half-pixel centres, no antialiasing even when shrinking (as PyTorch)."""
  shape = (maps.shape[0], *size, maps.shape[-1])
  return jax.image.resize(maps, shape, "bilinear", antialias=False)

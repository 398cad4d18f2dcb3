"""The correction network: by how much a JND map departs from the masking threshold.

Arrays are float32, NHWC; images lie in [0, 1], and priors are in units of about one (`jnd_map`).
The convolutions compute in `dtype`.
`jnd_map` multiplies what is drawn here with the threshold.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jax import lax
from jaxtyping import Array, Float

from hvsjnd_jax.model.extents import Extent, mask_outside, shrink_extent
from hvsjnd_jax.model.layers import add_bias
from hvsjnd_jax.ops.types import Images, RGBImages

# Pixels of the image to one cell of the hidden layers, along each side. Convolutions of few
# channels wait for memory; a quarter of the cells with more channels is faster.
_STRIDE = 2

# Of the hidden layers. With them a pixel sees up to 17 others on every side.
_DILATIONS = (2, 4)

# The map is at most exp(0.8) times the threshold, or that part of it, so that no noise stands
# out by itself.
_LARGEST = 0.8

# Images and thresholds have three channels each.
_IMAGE_CHANNELS = 6

# The unit in which the network is given thresholds, that of flat mid-gray.
_LOG_UNIT = math.log(4 / 255)

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


class CorrectionNetwork(nnx.Module):
  """Draws the logarithm of the JND map over the masking threshold, for each pixel and channel.

    c = b tanh(N(x, log T, priors) / b),   b = 0.8

  N enters cells of 2x2 pixels by a 6x6 convolution of stride 2, has two residual 3x3
  convolutions, dilated by 2 and 4, and leaves by the transpose of a 6x6 convolution of stride
  2. At first c is 0, so that training starts from the threshold.

  Args:
    channels: Width of the hidden layers.
    prior_channels: How many channels the priors have; 0 where there are none.
    level: Factor on the JND map, in (0, 1], which gives `lmbda` its meaning. Training leaves it
      alone.
    dtype: What the convolutions compute in; None means the type of the images.
    rngs: Source of the initial weights.

  Source: ours.
  """

  def __init__(
    self,
    channels: int,
    *,
    prior_channels: int,
    level: float = 1.0,
    dtype: Dtype | None = None,
    rngs: nnx.Rngs,
  ):
    self.level = level
    self.dtype = dtype
    inputs = _IMAGE_CHANNELS + prior_channels
    self.enter = CellConv(inputs, channels, rngs=rngs)
    self.hidden = nnx.List(
      [DilatedConv(channels, dilation=dilation, rngs=rngs) for dilation in _DILATIONS]
    )
    self.leave = CellTranspose(channels, 3)

  def __call__(
    self,
    images: RGBImages,
    log_thresholds: RGBImages,
    priors: Sequence[Images],
    *,
    extent: Extent | None = None,
  ) -> RGBImages:
    """Draws the correction c.

    Args:
      images: Images in [0, 1].
      log_thresholds: Logarithm of the images' masking thresholds.
      priors: Maps of the same size, whose channels sum to `prior_channels`.
      extent: Where the images end (see `extents`).

    Returns:
      Values in [-0.8, 0.8], of the images' shape and type; past the extent they mean nothing.
    """
    # Past the edge, every layer sees zeros.
    inputs = jnp.concatenate([images - 0.5, log_thresholds - _LOG_UNIT, *priors], axis=-1)
    inputs = mask_outside(inputs.astype(self.dtype or images.dtype), extent)
    cells = shrink_extent(extent, _STRIDE)
    hidden = mask_outside(nnx.leaky_relu(self.enter(inputs)), cells)
    for conv in self.hidden:
      hidden = mask_outside(hidden + nnx.leaky_relu(conv(hidden)), cells)
    h, w = images.shape[1:3]
    drawn = self.leave(hidden)[:, :h, :w].astype(images.dtype)
    return _LARGEST * jnp.tanh(drawn / _LARGEST)


class CellConv(nnx.Module):
  """6x6 convolution of stride 2 with a bias; odd sides are filled up with zeros.

  Args:
    inputs: Number of input channels.
    outputs: Number of output channels.
    rngs: Source of the initial kernel, He-normal; the bias is 0 at first.
  """

  def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
    self.kernel = nnx.Param(_draw_kernel(rngs, (6, 6, inputs, outputs)))
    self.bias = nnx.Param(jnp.zeros(outputs))

  def __call__(self, inputs: Images) -> Images:
    b, h, w, c = inputs.shape
    inputs = jnp.pad(inputs, ((0, 0), (0, h % _STRIDE), (0, w % _STRIDE), (0, 0)))
    # On a CPU this is faster as a 3x3 convolution of cells whose pixels are channels.
    rows, columns = (side // _STRIDE for side in inputs.shape[1:3])
    cells = inputs.reshape(b, rows, _STRIDE, columns, _STRIDE, c).swapaxes(2, 3)
    cells = cells.reshape(b, rows, columns, _STRIDE**2 * c)
    kernel = self.kernel[...].astype(inputs.dtype)
    taps = kernel.reshape(3, 2, 3, 2, c, -1).swapaxes(1, 2).reshape(3, 3, _STRIDE**2 * c, -1)
    return add_bias(_convolve(cells, taps), self.bias[...])


class CellTranspose(nnx.Module):
  """The transpose of a 6x6 convolution of stride 2, with a bias; all weights are 0 at first.

  Args:
    inputs: Number of input channels.
    outputs: Number of output channels.
  """

  def __init__(self, inputs: int, outputs: int):
    self.kernel = nnx.Param(jnp.zeros((6, 6, outputs, inputs)))
    self.bias = nnx.Param(jnp.zeros(outputs))

  def __call__(self, inputs: Images) -> Images:
    b, h, w, c = inputs.shape
    kernel = self.kernel[...].astype(inputs.dtype)
    outputs = kernel.shape[2]
    # A pixel reads from the cell before it what that cell's last taps gave to it.
    taps = kernel.reshape(3, 2, 3, 2, outputs, c)[::-1, :, ::-1].transpose(0, 2, 5, 1, 3, 4)
    cells = _convolve(inputs, taps.reshape(3, 3, c, _STRIDE**2 * outputs))
    cells = cells.reshape(b, h, w, _STRIDE, _STRIDE, outputs).swapaxes(2, 3)
    images = cells.reshape(b, _STRIDE * h, _STRIDE * w, outputs)
    return add_bias(images, self.bias[...])


class DilatedConv(nnx.Module):
  """Dilated 3x3 convolution with a bias, which sees zeros past the edge.

  Args:
    channels: Number of channels of input and output.
    dilation: Distance of the taps in cells.
    rngs: Source of the initial kernel, normal of half the deviation of He's, since its results
      are added to its input; the bias is 0 at first.
  """

  def __init__(self, channels: int, *, dilation: int, rngs: nnx.Rngs):
    self.dilation = dilation
    self.kernel = nnx.Param(_draw_kernel(rngs, (3, 3, channels, channels), gain=0.5))
    self.bias = nnx.Param(jnp.zeros(channels))

  def __call__(self, inputs: Images) -> Images:
    outputs = _convolve(inputs, self.kernel[...].astype(inputs.dtype), dilation=self.dilation)
    return add_bias(outputs, self.bias[...])


def _draw_kernel(rngs: nnx.Rngs, shape: tuple[int, ...], *, gain: float = 1.0) -> Array:
  """Draws from a normal of deviation gain·sqrt(2 / fan_in)."""
  deviation = gain * math.sqrt(2 / math.prod(shape[:-1]))
  return deviation * jax.random.normal(rngs.params(), shape)


def _convolve(
  inputs: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"], *, dilation: int = 1
) -> Float[Array, "b h w o"]:
  return lax.conv_general_dilated(
    inputs, kernel, (1, 1), "SAME", rhs_dilation=(dilation,) * 2, dimension_numbers=_DIMENSIONS
  )

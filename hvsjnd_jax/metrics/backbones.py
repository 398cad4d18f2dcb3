"""Frozen classification networks that metrics use: VGG16 and ResNet-34.

Images are float in [0, 1], NHWC, RGB, of any size; features are NHWC. Each network computes in
the precision of its images, not of its weights. Batch normalisation uses stored statistics.
`weights.load_vgg16` and `weights.load_classifier` load trained weights; the constructors draw
He-normal kernels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from hvsjnd_jax.ops.types import RGBImages

Features = Float[Array, "b h w c"]

CLASSES = 5  # the kinds of distortion that the published classifier tells apart

# Of R, G and B in [0, 1], over ImageNet's photographs.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)

# Added under the root of L2 pooling, whose own gradient is infinite at 0.
_POOL_FLOOR = 1e-12

_NORM_FLOOR = 1e-5

_VGG16_WIDTHS = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)

_RESNET34_LAYERS = ((64, 3), (128, 4), (256, 6), (512, 3))


class VGG16(nnx.Module):
  """The 13 convolutions of VGG16, with L2 pooling in place of max pooling.

  It has 14,714,688 parameters. The pooling has none, so that torchvision's weights fit.

  Args:
    rngs: Source of the initial weights.

  Source: Simonyan & Zisserman, "Very deep convolutional networks", 2015; the pooling,
  Ding et al., "Image quality assessment: unifying structure and texture similarity", 2020.
  """

  def __init__(self, *, rngs: nnx.Rngs):
    inputs = 3
    self.blocks = nnx.List()
    for widths in _VGG16_WIDTHS:
      block = nnx.List()
      for outputs in widths:
        block.append(_Conv(inputs, outputs, 3, rngs=rngs, use_bias=True))
        inputs = outputs
      self.blocks.append(block)

  def features(self, images: RGBImages) -> tuple[Features, ...]:
    """Returns the outputs of relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3.

    Args:
      images: Images in [0, 1]; they are normalised here by ImageNet's mean and deviation.

    Returns:
      Five stages of 64, 128, 256, 512 and 512 channels, >= 0, each half the size of the
      one before, rounded up.
    """
    mean, deviation = (_expand(jnp.asarray(values), images) for values in (_MEAN, _DEVIATION))
    hidden = (images - mean) / deviation
    stages = []
    for i, block in enumerate(self.blocks):
      if i > 0:
        hidden = l2_pool(hidden)
      for conv in block:
        hidden = jax.nn.relu(conv(hidden))
      stages.append(hidden)
    return tuple(stages)


class ResNet34(nnx.Module):
  """ResNet-34, which classifies images by their kind of distortion.

  The published classifier of adaptive image-quality assessment has 5 classes, and images are not
  normalised by ImageNet's mean and deviation. It has 21,287,237 parameters, and 17,024 statistics
  of batch normalisation.

  Args:
    classes: The number of outputs.
    rngs: Source of the initial weights.

  Source: He et al., "Deep residual learning for image recognition", 2016.
  """

  def __init__(self, classes: int = CLASSES, *, rngs: nnx.Rngs):
    self.conv1 = _Conv(3, 64, 7, stride=2, rngs=rngs)
    self.bn1 = _BatchNorm(64)
    inputs = 64
    self.layers = nnx.List()
    for i, (width, depth) in enumerate(_RESNET34_LAYERS):
      layer = nnx.List()
      for j in range(depth):
        stride = 2 if i > 0 and j == 0 else 1
        layer.append(_Block(inputs, width, stride=stride, rngs=rngs))
        inputs = width
      self.layers.append(layer)
    self.fc = _Dense(inputs, classes, rngs=rngs)

  def features(self, images: RGBImages) -> Features:
    """Returns the last block's output, before the mean over space, [B, H/32, W/32, 512]."""
    hidden = jax.nn.relu(self.bn1(self.conv1(images)))
    hidden = _max_pool(hidden)
    for layer in self.layers:
      for block in layer:
        hidden = block(hidden)
    return hidden

  def head(self, features: Features) -> Float[Array, "b classes"]:
    """Computes logits from `features`."""
    return self.fc(features.mean(axis=(1, 2)))

  def __call__(self, images: RGBImages) -> Float[Array, "b classes"]:
    """Computes the logits of images in [0, 1]."""
    return self.head(self.features(images))


class Backbones(NamedTuple):
  """The networks of adaptive quality assessment, in training."""

  vgg16: VGG16
  classifier: ResNet34


def l2_pool(maps: Features) -> Features:
  """Takes the root of the squares' mean under a 3x3 Hann window, with stride 2.

  Maps are padded by one zero; [B, H, W, C] become [B, ceil(H/2), ceil(W/2), C]. The gradient is
  finite everywhere.

  Source: Hénaff & Simoncelli, "Geodesics of learned representations", 2016.
  """
  _, h, w, _ = maps.shape
  # The window is (1 2 1)/4 along each axis, as a sum of strided slices, because a depthwise
  # convolution is slow on a CPU. Even sides do not need padding at their end.
  squares = jnp.pad(jnp.square(maps), ((0, 0), (1, h % 2), (1, w % 2), (0, 0)))
  rows = _hann(squares, axis=1, length=-(-h // 2))
  return jnp.sqrt(_hann(rows, axis=2, length=-(-w // 2)) + _POOL_FLOOR)


def _hann(maps: Features, *, axis: int, length: int) -> Features:
  left, middle, right = (
    lax.slice_in_dim(maps, i, i + 2 * length - 1, stride=2, axis=axis) for i in range(3)
  )
  return (left + 2 * middle + right) / 4


def _max_pool(maps: Features) -> Features:
  """Takes the maximum of 3x3 pixels, with stride 2 and padding 1."""
  padding = ((0, 0), (1, 1), (1, 1), (0, 0))
  return lax.reduce_window(maps, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)


class _Conv(nnx.Module):
  """A square convolution with zero padding of half its window."""

  def __init__(
    self,
    inputs: int,
    outputs: int,
    size: int,
    *,
    stride: int = 1,
    use_bias: bool = False,
    rngs: nnx.Rngs,
  ):
    self.stride = stride
    self.kernel = nnx.Param(_he_normal(rngs, (size, size, inputs, outputs)))
    self.bias = nnx.Param(jnp.zeros(outputs)) if use_bias else None

  def __call__(self, inputs: Features) -> Features:
    kernel = self.kernel[...].astype(inputs.dtype)
    margin = kernel.shape[0] // 2
    outputs = lax.conv_general_dilated(
      inputs,
      kernel,
      (self.stride, self.stride),
      [(margin, margin)] * 2,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return outputs if self.bias is None else outputs + _expand(self.bias[...], outputs)


class _BatchNorm(nnx.Module):
  """(x - mean) / sqrt(var + 1e-5) · scale + bias, with stored statistics."""

  def __init__(self, channels: int):
    self.scale = nnx.Param(jnp.ones(channels))
    self.bias = nnx.Param(jnp.zeros(channels))
    self.mean = nnx.BatchStat(jnp.zeros(channels))
    self.var = nnx.BatchStat(jnp.ones(channels))

  def __call__(self, inputs: Features) -> Features:
    factor = self.scale[...] * lax.rsqrt(self.var[...] + _NORM_FLOOR)
    offset = self.bias[...] - self.mean[...] * factor
    return inputs * _expand(factor, inputs) + _expand(offset, inputs)


class _Block(nnx.Module):
  """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where sizes change."""

  def __init__(self, inputs: int, outputs: int, *, stride: int, rngs: nnx.Rngs):
    self.conv1 = _Conv(inputs, outputs, 3, stride=stride, rngs=rngs)
    self.bn1 = _BatchNorm(outputs)
    self.conv2 = _Conv(outputs, outputs, 3, rngs=rngs)
    self.bn2 = _BatchNorm(outputs)
    self.shortcut = nnx.List()
    if stride > 1 or inputs != outputs:
      self.shortcut.append(_Conv(inputs, outputs, 1, stride=stride, rngs=rngs))
      self.shortcut.append(_BatchNorm(outputs))

  def __call__(self, inputs: Features) -> Features:
    hidden = jax.nn.relu(self.bn1(self.conv1(inputs)))
    hidden = self.bn2(self.conv2(hidden))
    shortcut = inputs
    for step in self.shortcut:
      shortcut = step(shortcut)
    return jax.nn.relu(hidden + shortcut)


class _Dense(nnx.Module):
  """Features times a matrix, plus a bias."""

  def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
    self.kernel = nnx.Param(_he_normal(rngs, (inputs, outputs)))
    self.bias = nnx.Param(jnp.zeros(outputs))

  def __call__(self, inputs: Float[Array, "b i"]) -> Float[Array, "b o"]:
    outputs = inputs @ self.kernel[...].astype(inputs.dtype)
    return outputs + _expand(self.bias[...], outputs)


def _expand(values: Float[Array, " c"], features: Features) -> Array:
  """Gives a value of each channel the type and the number of axes that the features have."""
  return lax.broadcast_to_rank(values.astype(features.dtype), features.ndim)


def _he_normal(rngs: nnx.Rngs, shape: Sequence[int]) -> Array:
  return jax.nn.initializers.he_normal()(rngs.params(), tuple(shape))

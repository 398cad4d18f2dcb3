"""HVS-SD, the signal-degradation network: what vision loses between eye and brain.

It is a rate-distortion autoencoder with GDN. Images are float32 in [0, 1], NHWC, RGB, H and W
multiples of 8; features are float32, [B, H/8, W/8, channels]. The inner layers compute in
`dtype`, or in float32 where it is None. The layers that give the feature, whose rate counts
steps of 1, and the reconstruction always compute in float32. An extent (see `extents`) counts
pixels of the image, in multiples of 8.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jax import lax
from jaxtyping import Array, Float

from hvsjnd_jax.model.extents import Extent, mask_outside, shrink_extent
from hvsjnd_jax.model.layers import GDN, DownsamplingConv, UpsamplingConv
from hvsjnd_jax.ops.types import RGBImages

Features = Float[Array, "b h/8 w/8 c"]

STRIDE = 8  # pixels of the image to one cell of the feature, along each side

_LIKELIHOOD_FLOOR = 1e-10

_MAX_BITS = 50.0


class Encoder(nnx.Module):
  """Maps images to features: three strided convolutions with GDN between them."""

  def __init__(self, channels: int, *, dtype: Dtype | None = None, rngs: nnx.Rngs):
    self.dtype = dtype
    first_gain = math.sqrt((3 + channels) / 3)
    self.conv1 = DownsamplingConv(3, channels, rngs=rngs, gain=first_gain)
    self.gdn1 = GDN(channels)
    self.conv2 = DownsamplingConv(channels, channels, rngs=rngs)
    self.gdn2 = GDN(channels)
    self.conv3 = DownsamplingConv(channels, channels, rngs=rngs, use_bias=False)

  def __call__(self, images: RGBImages, *, extent: Extent | None = None) -> Features:
    """Computes the feature, which is 0 past the extent; so must the image be."""
    hidden = images.astype(self.dtype or images.dtype)
    hidden = mask_outside(self.gdn1(self.conv1(hidden)), shrink_extent(extent, 2))
    hidden = mask_outside(self.gdn2(self.conv2(hidden)), shrink_extent(extent, 4))
    return mask_outside(self.conv3(hidden.astype(images.dtype)), shrink_extent(extent, 8))


class Decoder(nnx.Module):
  """Maps features to images: three transposed convolutions with inverse GDN between them."""

  def __init__(self, channels: int, *, dtype: Dtype | None = None, rngs: nnx.Rngs):
    self.dtype = dtype
    self.deconv1 = UpsamplingConv(channels, channels, rngs=rngs)
    self.igdn1 = GDN(channels, inverse=True)
    self.deconv2 = UpsamplingConv(channels, channels, rngs=rngs)
    self.igdn2 = GDN(channels, inverse=True)
    self.deconv3 = UpsamplingConv(channels, 3, rngs=rngs)

  def __call__(self, features: Features, *, extent: Extent | None = None) -> RGBImages:
    """Computes the image; its values past the extent mean nothing."""
    hidden = features.astype(self.dtype or features.dtype)
    hidden = mask_outside(self.igdn1(self.deconv1(hidden)), shrink_extent(extent, 4))
    hidden = mask_outside(self.igdn2(self.deconv2(hidden)), shrink_extent(extent, 2))
    return self.deconv3(hidden.astype(features.dtype))


class _Bijection(nnx.Module):
  """One monotone step of the cumulative distribution.

  Computes t + tanh(t)·tanh(a) with t = v·softplus(h) + b, or sigmoid(t) as the last step.
  """

  def __init__(self, channels: int, *, rngs: nnx.Rngs, last: bool = False):
    def draw() -> nnx.Param[Array]:
      return nnx.Param(0.01 * jax.random.normal(rngs.params(), (channels,)))

    self.h = draw()
    self.b = draw()
    self.a = None if last else draw()

  def __call__(self, values: Features) -> Features:
    def expand(channels: Array) -> Array:
      return lax.broadcast_to_rank(channels, values.ndim)

    scaled = values * expand(jax.nn.softplus(self.h[...])) + expand(self.b[...])
    if self.a is None:
      return jax.nn.sigmoid(scaled)
    return scaled + jnp.tanh(scaled) * expand(jnp.tanh(self.a[...]))


class BitEstimator(nnx.Module):
  """A factorised entropy model: a learnt cumulative distribution F for each channel.

  A feature z has the probability F(z + 0.5) - F(z - 0.5), with F = f4∘f3∘f2∘f1.

  Source: Ballé et al., "Variational image compression with a scale hyperprior", 2018.
  """

  def __init__(self, channels: int, *, rngs: nnx.Rngs):
    self.f1 = _Bijection(channels, rngs=rngs)
    self.f2 = _Bijection(channels, rngs=rngs)
    self.f3 = _Bijection(channels, rngs=rngs)
    self.f4 = _Bijection(channels, rngs=rngs, last=True)

  def cumulative(self, values: Features) -> Features:
    """Computes F, the probability that a feature lies below each value."""
    return self.f4(self.f3(self.f2(self.f1(values))))

  def __call__(self, features: Features) -> Float[Array, " b"]:
    """Counts the bits that each image's feature costs, [B]."""
    likelihood = self.cumulative(features + 0.5) - self.cumulative(features - 0.5)
    bits = -jnp.log(likelihood + _LIKELIHOOD_FLOOR) / math.log(2)
    return jnp.clip(bits, 0, _MAX_BITS).sum(axis=(1, 2, 3))


class HVSSD(nnx.Module):
  """The signal-degradation network: encoder, decoder and bit estimator.

  Args:
    channels: Width of every hidden layer; 128 in the paper (1,725,571 parameters).
    dtype: What the inner layers compute in; None means the type of the images.
    rngs: Source of the initial weights.

  Source: Jin et al., arXiv 2208.07583.
  """

  def __init__(self, channels: int = 128, *, dtype: Dtype | None = None, rngs: nnx.Rngs):
    self.channels = channels
    self.encoder = Encoder(channels, dtype=dtype, rngs=rngs)
    self.decoder = Decoder(channels, dtype=dtype, rngs=rngs)
    self.bit_estimator = BitEstimator(channels, rngs=rngs)

  def __call__(self, images: RGBImages) -> RGBImages:
    """Computes the reconstruction, not clipped: what degradation leaves of the image."""
    return self.decoder(self.encoder(images))

  def bits_per_pixel(self, features: Features) -> Float[Array, " b"]:
    """Estimates the rate of each image's feature in bits per image pixel, [B]."""
    _, h, w, _ = features.shape
    return self.bit_estimator(features) / (STRIDE**2 * h * w)

"""Layers of the two networks: GDN, the strided convolution and its transpose.

Arrays are float, NHWC. Kernels are HWIO. A module computes in the precision of what comes
in: its parameters are cast to it. Everything here supports reverse-mode differentiation of
any order; the custom derivatives below do not support forward mode.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

Images = Float[Array, "b h w c"]

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_REPARAM_OFFSET = 2.0**-18
_PEDESTAL = _REPARAM_OFFSET**2
_BETA_MIN = 1e-6


@jax.custom_vjp
def lower_bound(value: Array, minimum: float) -> Array:
  """max(value, minimum), whose gradient still lets a bounded value come back up.

  Unlike `jnp.maximum`, the gradient also passes below the bound when it is negative,
  that is when a descent step would raise the value.

  Args:
    value: Float array of any shape.
    minimum: The bound. It receives no gradient.

  Returns:
    Array like `value`, >= minimum.

  Source: Ballé et al., "End-to-end Optimized Image Compression", 2017.
  """
  return jnp.maximum(value, minimum)


def _lower_bound_forward(value: Array, minimum: float) -> tuple[Array, Array]:
  return jnp.maximum(value, minimum), value >= minimum


def _lower_bound_backward(above: Array, gradient: Array) -> tuple[Array, None]:
  return jnp.where(above | (gradient < 0), gradient, 0), None


lower_bound.defvjp(_lower_bound_forward, _lower_bound_backward)


class GDN(nnx.Module):
  """Generalised divisive normalisation, the gain control of early vision.

  u_i / n_i, or u_i · n_i for the inverse, with n_i = sqrt(b_i + sum_j g_ij u_j^2).
  The raw parameters are square roots: b = LB(beta)^2 - p and g = LB(gamma)^2 - p, with
  p = (2^-18)^2, so that b stays above 1e-6 and g above 0.

  Args:
    channels: Channels of input and output.
    inverse: Multiply by n instead of dividing.

  Source: Ballé et al., "Density Modeling of Images using a Generalized Normalization
  Transformation", 2016.
  """

  def __init__(self, channels: int, *, inverse: bool = False):
    self.inverse = inverse
    self.beta = nnx.Param(jnp.sqrt(jnp.ones(channels) + _PEDESTAL))
    self.gamma = nnx.Param(jnp.sqrt(0.1 * jnp.eye(channels) + _PEDESTAL))

  def __call__(self, inputs: Images) -> Images:
    beta = lower_bound(self.beta[...], math.sqrt(_BETA_MIN + _PEDESTAL)) ** 2 - _PEDESTAL
    gamma = lower_bound(self.gamma[...], _REPARAM_OFFSET) ** 2 - _PEDESTAL
    dtype = inputs.dtype
    norm = jnp.square(inputs) @ gamma.T.astype(dtype) + beta.astype(dtype)
    return inputs * (jnp.sqrt(norm) if self.inverse else lax.rsqrt(norm))


@jax.custom_vjp
def downsampling_conv(
  inputs: Float[Array, "b h w i"], kernel: Float[Array, "5 5 i o"]
) -> Float[Array, "b h/2 w/2 o"]:
  """5x5 convolution, stride 2, zero padding 2; H and W must be even.

  Its input gradient is `upsampling_conv` with the same kernel: the two are one linear
  map and its transpose. XLA's own gradient, an input-dilated convolution, measured 71
  GFLOP/s on two CPU cores where the four phases give 173 (128 channels, 64x64).
  """
  return lax.conv_general_dilated(
    inputs, kernel, (2, 2), [(2, 2), (2, 2)], dimension_numbers=_DIMENSIONS
  )


@jax.custom_vjp
def upsampling_conv(
  inputs: Float[Array, "b h w o"], kernel: Float[Array, "5 5 i o"]
) -> Float[Array, "b 2h 2w i"]:
  """The transpose of `downsampling_conv`: 5x5, stride 2, output twice as large.

  Written as four stride-1 convolutions, one per parity of the output row and column,
  whose results are interleaved: no multiplication by the zeros of a dilated input. Its
  kernel gradient is that of `downsampling_conv`; XLA's own, of the input-dilated form,
  measured 40 times as slow on two CPU cores (3 against 127 GFLOP/s, 128 channels, 32x32).
  Equals PyTorch's ConvTranspose2d(5, stride=2, padding=2, output_padding=1).
  """
  # Even outputs 2m read taps 4, 2, 0 at inputs m-1, m, m+1; odd outputs 2m+1 read taps
  # 3, 1 at inputs m, m+1.
  parities = ((slice(None, None, -2), (1, 1)), (slice(3, None, -2), (0, 1)))
  rows = [
    jnp.stack(
      [
        lax.conv_general_dilated(
          inputs,
          kernel[row_taps, column_taps].swapaxes(2, 3),
          (1, 1),
          [row_padding, column_padding],
          dimension_numbers=_DIMENSIONS,
        )
        for column_taps, column_padding in parities
      ],
      axis=3,
    )
    for row_taps, row_padding in parities
  ]
  b, h, w, _ = inputs.shape
  return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, kernel.shape[2])


def _kernel_gradient(large: Array, small: Array, kernel: Array) -> Array:
  """Gradient of <small, downsampling_conv(large, kernel)> with respect to the kernel."""

  def conv(kernel: Array) -> Array:
    return lax.conv_general_dilated(
      large, kernel, (2, 2), [(2, 2), (2, 2)], dimension_numbers=_DIMENSIONS
    )

  return jax.linear_transpose(conv, kernel)(small)[0]


downsampling_conv.defvjp(
  lambda inputs, kernel: (downsampling_conv(inputs, kernel), (inputs, kernel)),
  lambda saved, gradient: (
    upsampling_conv(gradient, saved[1]),
    _kernel_gradient(saved[0], gradient, saved[1]),
  ),
)
upsampling_conv.defvjp(
  lambda inputs, kernel: (upsampling_conv(inputs, kernel), (inputs, kernel)),
  lambda saved, gradient: (
    downsampling_conv(gradient, saved[1]),
    _kernel_gradient(gradient, saved[0], saved[1]),
  ),
)


def _xavier_normal(rngs: nnx.Rngs, shape: tuple[int, ...], *, gain: float) -> Array:
  """Normal with deviation gain·sqrt(2 / (fan_in + fan_out)), as PyTorch counts fans."""
  *window, inputs, outputs = shape
  deviation = gain * math.sqrt(2 / (math.prod(window) * (inputs + outputs)))
  return deviation * jax.random.normal(rngs.params(), shape)


class DownsamplingConv(nnx.Module):
  """`downsampling_conv` with its kernel and, unless switched off, a bias.

  Args:
    inputs: Channels that come in.
    outputs: Channels that go out.
    rngs: Source of the initial kernel, Xavier-normal.
    gain: Factor on the kernel's initial deviation.
    use_bias: Whether to add a bias, 0.01 at first.
  """

  def __init__(
    self,
    inputs: int,
    outputs: int,
    *,
    rngs: nnx.Rngs,
    gain: float = math.sqrt(2),
    use_bias: bool = True,
  ):
    self.kernel = nnx.Param(_xavier_normal(rngs, (5, 5, inputs, outputs), gain=gain))
    self.bias = nnx.Param(jnp.full(outputs, 0.01, jnp.float32)) if use_bias else None

  def __call__(self, inputs: Images) -> Images:
    outputs = downsampling_conv(inputs, self.kernel[...].astype(inputs.dtype))
    return outputs if self.bias is None else outputs + self.bias[...].astype(inputs.dtype)


class UpsamplingConv(nnx.Module):
  """`upsampling_conv` with a bias. The kernel is [5, 5, outputs, inputs].

  Args:
    inputs: Channels that come in.
    outputs: Channels that go out.
    rngs: Source of the initial kernel, Xavier-normal.
  """

  def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
    self.kernel = nnx.Param(_xavier_normal(rngs, (5, 5, outputs, inputs), gain=math.sqrt(2)))
    self.bias = nnx.Param(jnp.full(outputs, 0.01, jnp.float32))

  def __call__(self, inputs: Images) -> Images:
    outputs = upsampling_conv(inputs, self.kernel[...].astype(inputs.dtype))
    return outputs + self.bias[...].astype(inputs.dtype)

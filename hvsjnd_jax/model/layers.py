"""Layers of the networks: GDN and the convolutions.

Arrays are float, NHWC; kernels are HWIO. A module computes in the precision of its input, to
which it casts its parameters. Everything here can be differentiated in forward and reverse mode,
in any order, but for the parameters of GDN: `lower_bound` has a reverse mode alone.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from hvsjnd_jax.model.extents import Extent, extend_past
from hvsjnd_jax.ops.linear_maps import bilinear
from hvsjnd_jax.ops.types import Images

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")

_REPARAM_OFFSET = 2.0**-18

_PEDESTAL = _REPARAM_OFFSET**2

_BETA_MIN = 1e-6

# Up to this many output channels, one pass with needless products is faster than four without.
_FEW_CHANNELS = 4


@jax.custom_vjp
def lower_bound(value: Array, minimum: float) -> Array:
  """Computes max(value, minimum) with a gradient that lets a bounded value rise again.

  Unlike that of `jnp.maximum`, the gradient also passes below the bound where it is negative,
  that is, where a descent step would raise the value. Such a rule is not linear in the gradient,
  so it has no forward mode: `jax.jvp` raises a TypeError for tangents of the value. Where the
  value is constant, as a network's parameters are when its images move, both modes pass by.

  Args:
    value: Float array of any shape.
    minimum: The bound. It receives no gradient.

  Returns:
    An array like `value`, >= minimum.

  Source: Ballé et al., "End-to-end Optimized Image Compression", 2017.
  """
  return jnp.maximum(value, minimum)


def _lower_bound_forward(value: Array, minimum: float) -> tuple[Array, Array]:
  return jnp.maximum(value, minimum), value >= minimum


def _lower_bound_backward(above: Array, gradient: Array) -> tuple[Array, None]:
  return jnp.where(above | (gradient < 0), gradient, 0), None


lower_bound.defvjp(_lower_bound_forward, _lower_bound_backward)


class GDN(nnx.Module):
  """Generalised divisive normalisation (GDN), the gain control of early vision.

  Computes u_i / n_i, or u_i · n_i for the inverse, with n_i = sqrt(b_i + sum_j g_ij u_j^2).
  The raw parameters are square roots: b = LB(beta)^2 - p and g = LB(gamma)^2 - p, where LB is
  `lower_bound` and p = (2^-18)^2, so that b stays above 1e-6 and g above 0.

  Args:
    channels: Channels of input and output.
    inverse: Whether to multiply by n instead of dividing.

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
    exponent = 0.5 if self.inverse else -0.5
    return _scale_by_energy(inputs, gamma.T.astype(dtype), beta.astype(dtype), exponent)


def _scale_by_energy(inputs: Images, gamma: Array, beta: Array, exponent: float) -> Images:
  """Computes u · (b + u^2 g)^exponent, for the exponents 1/2 and -1/2."""
  energy = jnp.square(inputs) @ gamma + lax.broadcast_to_rank(beta, inputs.ndim)
  return inputs * (jnp.sqrt(energy) if exponent > 0 else _inverse_root(energy))


@jax.custom_jvp
def _inverse_root(energy: Array) -> Array:
  return lax.rsqrt(energy)


# JAX's own rule would keep the energy beside the root, and divide by it.
@_inverse_root.defjvp
def _move_inverse_root(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
  root = _inverse_root(*primals)
  return root, -0.5 * root**3 * tangents[0]


def downsampling_conv(
  inputs: Float[Array, "b h w i"], kernel: Float[Array, "5 5 i o"]
) -> Float[Array, "b h/2 w/2 o"]:
  """Convolves with a 5x5 kernel, stride 2 and zero padding 2; H and W must be even.

  Its input gradient is `upsampling_conv` with the same kernel: the two are a linear map and its
  transpose. XLA's own gradient is an input-dilated convolution, which is slower on a CPU
  (docs/speed.md has both times).
  """
  return _downsample(inputs, kernel)


def upsampling_conv(
  inputs: Float[Array, "b h w o"], kernel: Float[Array, "5 5 i o"]
) -> Float[Array, "b 2h 2w i"]:
  """Applies the transpose of `downsampling_conv`: 5x5, stride 2, output twice as large.

  It runs as four convolutions of stride 1, one for each parity of the output row and column,
  whose results are interleaved, so that nothing is multiplied by the zeros of a dilated input.
  With few output channels the four run as one, whose kernel has zeros for the taps that a
  parity lacks, or on a CPU in XLA's own form, on a dilated input. The kernel gradient is that of
  `downsampling_conv`; XLA's own, of the input-dilated form, is far slower on a CPU
  (docs/speed.md).

  Equals PyTorch's ConvTranspose2d(5, stride=2, padding=2, output_padding=1).
  """
  return _upsample(inputs, kernel)


def _convolve_with_stride(inputs: Array, kernel: Array) -> Array:
  return _convolve(inputs, kernel, stride=2, padding=((2, 2), (2, 2)))


def _convolve_transposed(inputs: Array, kernel: Array) -> Array:
  if kernel.shape[2] > _FEW_CHANNELS:
    return _convolve_phases(inputs, kernel)
  return lax.platform_dependent(inputs, kernel, cpu=_convolve_dilated, default=_convolve_phases)


def _convolve_dilated(inputs: Array, kernel: Array) -> Array:
  return lax.conv_general_dilated(
    inputs,
    kernel[::-1, ::-1].swapaxes(2, 3),
    (1, 1),
    ((2, 3), (2, 3)),
    lhs_dilation=(2, 2),
    dimension_numbers=_DIMENSIONS,
  )


def _convolve_phases(inputs: Array, kernel: Array) -> Array:
  b, h, w, _ = inputs.shape
  outputs = kernel.shape[2]
  # Even outputs 2m read taps 4, 2, 0 at inputs m-1, m, m+1; odd outputs 2m+1 read taps
  # 3, 1 at inputs m, m+1.
  if outputs <= _FEW_CHANNELS:
    taps = jnp.pad(kernel[::-1, ::-1], ((1, 0), (1, 0), (0, 0), (0, 0)))
    taps = taps.reshape(3, 2, 3, 2, *kernel.shape[2:])[:, ::-1, :, ::-1]
    taps = taps.transpose(0, 2, 5, 1, 3, 4).reshape(3, 3, -1, 4 * outputs)
    phases = _convolve(inputs, taps, padding=((1, 1), (1, 1)))
    return phases.reshape(b, h, w, 2, 2, outputs).swapaxes(2, 3).reshape(b, 2 * h, 2 * w, outputs)
  parities = ((slice(None, None, -2), (1, 1)), (slice(3, None, -2), (0, 1)))
  rows = [
    jnp.stack(
      [
        _convolve(inputs, kernel[rows, columns].swapaxes(2, 3), padding=(row_pad, column_pad))
        for columns, column_pad in parities
      ],
      axis=3,
    )
    for rows, row_pad in parities
  ]
  return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, outputs)


def _convolve(
  inputs: Array, kernel: Array, *, padding: tuple[tuple[int, int], ...], stride: int = 1
) -> Array:
  return lax.conv_general_dilated(
    inputs, kernel, (stride, stride), padding, dimension_numbers=_DIMENSIONS
  )


def _kernel_gradient(large: Array, small: Array) -> Array:
  """Computes the gradient of <small, downsampling_conv(large, kernel)> for the kernel."""
  return lax.platform_dependent(large, small, cpu=_multiply_rows, default=_transpose_convolution)


def _transpose_convolution(large: Array, small: Array) -> Array:
  kernel = jax.ShapeDtypeStruct((5, 5, large.shape[3], small.shape[3]), large.dtype)
  return jax.linear_transpose(functools.partial(_convolve_with_stride, large), kernel)(small)[0]


def _multiply_rows(large: Array, small: Array) -> Array:
  """Computes each row of taps as one product, which is faster on a CPU (docs/speed.md)."""
  h, w, outputs = small.shape[1:]
  padded = jnp.pad(large, ((0, 0), (2, 2), (2, 2), (0, 0)))
  columns = jnp.concatenate([padded[:, :, i : i + 2 * w - 1 : 2] for i in range(5)], axis=3)
  # In this order, it is the small array whose memory is turned for the product.
  rows = [jnp.einsum("bhwo,bhwi->oi", small, columns[:, i : i + 2 * h - 1 : 2]) for i in range(5)]
  return jnp.stack(rows).reshape(5, outputs, 5, -1).transpose(0, 2, 3, 1)


_downsample = bilinear(
  _convolve_with_stride,
  upsampling_conv,
  lambda gradient, inputs: _kernel_gradient(inputs, gradient),
)
_upsample = bilinear(_convolve_transposed, downsampling_conv, _kernel_gradient)


def add_bias(outputs: Images, bias: Float[Array, " c"]) -> Images:
  """Adds a bias to each channel, in the type of the outputs."""
  return outputs + lax.broadcast_to_rank(bias.astype(outputs.dtype), outputs.ndim)


def _xavier_normal(rngs: nnx.Rngs, shape: tuple[int, ...], *, gain: float) -> Array:
  """Draws from a normal of deviation gain·sqrt(2 / (fan_in + fan_out)), with PyTorch's fans."""
  *window, inputs, outputs = shape
  deviation = gain * math.sqrt(2 / (math.prod(window) * (inputs + outputs)))
  return deviation * jax.random.normal(rngs.params(), shape)


class DownsamplingConv(nnx.Module):
  """`downsampling_conv` with its kernel and, by default, a bias.

  Args:
    inputs: Number of input channels.
    outputs: Number of output channels.
    rngs: Source of the initial kernel, Xavier-normal.
    gain: Factor on the initial deviation of the kernel.
    use_bias: Whether to add a bias, which is 0.01 at first.
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
    return outputs if self.bias is None else add_bias(outputs, self.bias[...])


class UpsamplingConv(nnx.Module):
  """`upsampling_conv` with its kernel, [5, 5, outputs, inputs], and a bias, 0.01 at first.

  Args:
    inputs: Number of input channels.
    outputs: Number of output channels.
    rngs: Source of the initial kernel, Xavier-normal.
  """

  def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
    self.kernel = nnx.Param(_xavier_normal(rngs, (5, 5, outputs, inputs), gain=math.sqrt(2)))
    self.bias = nnx.Param(jnp.full(outputs, 0.01, jnp.float32))

  def __call__(self, inputs: Images) -> Images:
    outputs = upsampling_conv(inputs, self.kernel[...].astype(inputs.dtype))
    return add_bias(outputs, self.bias[...])


class ReflectingConv(nnx.Module):
  """3x3 convolution with a bias, which sees the image reflected past its edge.

  Args:
    inputs: Number of input channels.
    outputs: Number of output channels.
    stride: Stride of rows and columns alike.
    rngs: Source of the initial kernel, LeCun-normal; the bias is 0 at first.
  """

  def __init__(self, inputs: int, outputs: int, *, stride: int = 1, rngs: nnx.Rngs):
    self.stride = stride
    initialize = nnx.initializers.lecun_normal()
    self.kernel = nnx.Param(initialize(rngs.params(), (3, 3, inputs, outputs)))
    self.bias = nnx.Param(jnp.zeros(outputs))

  def __call__(self, inputs: Images, *, extent: Extent | None = None) -> Images:
    # Two accommodations of XLA's CPU kernels (jax 0.10.2): channels are filled up to a multiple
    # of eight; and the convolution pads one column, whose results are cut off below, because
    # kernels of convolutions that pad are several times as fast.
    fill = -inputs.shape[3] % 8
    kernel = jnp.pad(self.kernel[...], ((0, 0), (0, 0), (0, fill), (0, 0))).astype(inputs.dtype)
    filled = jnp.pad(inputs, ((0, 0), (0, 0), (0, 0), (0, fill)))
    padded = jnp.pad(filled, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    for axis in (1, 2):
      padded = extend_past(padded, extent, axis, step=2)
    outputs = _convolve(padded, kernel, stride=self.stride, padding=((0, 0), (0, self.stride)))
    width = -(-inputs.shape[2] // self.stride)
    return add_bias(outputs[:, :, :width], self.bias[...])

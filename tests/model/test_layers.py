"""GDN, the strided convolution and its transpose."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from hvsjnd_jax.model.layers import (
  GDN,
  DownsamplingConv,
  ReflectingConv,
  UpsamplingConv,
  downsampling_conv,
  lower_bound,
  upsampling_conv,
)

# A few float32 roundings.
F32 = 1e-6
# Sums of some hundred float64 products in another order.
F64 = 1e-12

Conv = Callable[[jax.Array, jax.Array], jax.Array]


@pytest.mark.parametrize("inverse", [False, True], ids=["gdn", "inverse"])
@pytest.mark.parametrize("channels", [1, 3])
def test_gdn_closed_form_at_init(inverse: bool, channels: int):
  x = np.linspace(-3, 3, 2 * 4 * 5 * channels).reshape(2, 4, 5, channels)
  norm = np.sqrt(1 + 0.1 * x**2)
  want = x * norm if inverse else x / norm
  got = GDN(channels, inverse=inverse)(jnp.asarray(x, jnp.float32))
  np.testing.assert_allclose(got, want, rtol=F32)


@pytest.mark.parametrize("inverse", [False, True], ids=["gdn", "inverse"])
def test_gdn_against_float64_oracle(inverse: bool):
  rng = np.random.default_rng(0)
  beta = np.abs(rng.normal(1, 0.3, 6))
  gamma = np.abs(rng.normal(0, 0.3, (6, 6)))
  beta[2] = -1.0  # below their bounds
  gamma[::2, ::3] = -0.01
  x = rng.normal(size=(2, 3, 4, 6))
  layer = GDN(6, inverse=inverse)
  layer.beta[...] = jnp.asarray(beta, jnp.float32)
  layer.gamma[...] = jnp.asarray(gamma, jnp.float32)

  want = np.empty_like(x)
  pedestal = 2.0**-36
  for i in range(6):
    n2 = max(beta[i], np.sqrt(1e-6 + pedestal)) ** 2 - pedestal
    for j in range(6):
      n2 = n2 + (max(gamma[i, j], 2.0**-18) ** 2 - pedestal) * x[..., j] ** 2
    want[..., i] = x[..., i] * np.sqrt(n2) if inverse else x[..., i] / np.sqrt(n2)
  got = layer(jnp.asarray(x, jnp.float32))
  np.testing.assert_allclose(got, want, rtol=F32)


@pytest.mark.parametrize(
  ("value", "gradient", "passed"),
  [(2.0, 3.0, 3.0), (2.0, -3.0, -3.0), (0.5, 3.0, 0.0), (0.5, -3.0, -3.0), (1.0, 3.0, 3.0)],
  ids=["above-down", "above-up", "below-down", "below-up", "at-the-bound"],
)
def test_lower_bound_lets_gradients_raise_a_bounded_value(
  value: float, gradient: float, passed: float
):
  bounded, vjp = jax.vjp(lambda v: lower_bound(v, 1.0), jnp.float32(value))
  assert bounded == max(value, 1.0)
  assert vjp(jnp.float32(gradient))[0] == passed


def test_lower_bound_has_no_forward_mode():
  with pytest.raises(TypeError, match="forward-mode"):
    jax.jvp(lambda v: lower_bound(v, 1.0), (jnp.ones(()),), (jnp.ones(()),))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("inverse", [False, True], ids=["gdn", "inverse"])
def test_gdn_gradients(check_gradient: Callable[..., None], inverse: bool):
  layer = GDN(3, inverse=inverse)
  # Off the bound, where the gradient is a rule and not the derivative.
  layer.gamma[...] = layer.gamma[...] + 0.1
  x = jax.random.normal(jax.random.key(0), (1, 2, 3, 3))

  def first(layer: GDN, x: jax.Array) -> tuple[GDN, jax.Array]:
    return jax.grad(lambda layer, x: jnp.sin(layer(x)).sum(), argnums=(0, 1))(layer, x)

  check_gradient(layer, x)
  check_gradient(GDN.__call__, layer, x, forward=False)
  check_gradient(first, layer, x, forward=False)


def _plain_down(x: jax.Array, kernel: jax.Array) -> jax.Array:
  dimensions = ("NHWC", "HWIO", "NHWC")
  return lax.conv_general_dilated(x, kernel, (2, 2), [(2, 2), (2, 2)], dimension_numbers=dimensions)


def _plain_up(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """PyTorch's transposed convolution with output padding 1, as a dilated convolution."""
  return lax.conv_general_dilated(
    x,
    kernel[::-1, ::-1].swapaxes(2, 3),
    (1, 1),
    [(2, 3), (2, 3)],
    lhs_dilation=(2, 2),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


# Input channels, and those of the kernel; the last is too wide for one convolution in place
# of four.
CONVS = pytest.mark.parametrize(
  ("conv", "plain", "channels"),
  [
    (downsampling_conv, _plain_down, (3, 3, 2)),
    (upsampling_conv, _plain_up, (2, 3, 2)),
    (upsampling_conv, _plain_up, (2, 17, 2)),
  ],
  ids=["down", "up", "up-wide"],
)
Channels = tuple[int, int, int]


def _draw(channels: Channels) -> tuple[jax.Array, jax.Array]:
  """Input of a convolution and its kernel."""
  key_x, key_kernel = jax.random.split(jax.random.key(0))
  x = jax.random.normal(key_x, (2, 4, 6, channels[0]))
  return x, jax.random.normal(key_kernel, (5, 5, *channels[1:]))


@pytest.fixture(params=["cpu", "elsewhere"])
def _platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
  """Computes as on a CPU, and then what other platforms compute."""
  if request.param == "elsewhere":
    jax.clear_caches()
    monkeypatch.setattr(lax, "platform_dependent", lambda *xs, cpu, default: default(*xs))
  yield
  if request.param == "elsewhere":
    jax.clear_caches()


@pytest.mark.usefixtures("x64", "_platform")
@CONVS
def test_convs_equal_the_plain_form(conv: Conv, plain: Conv, channels: Channels):
  x, kernel = _draw(channels)
  np.testing.assert_allclose(conv(x, kernel), plain(x, kernel), rtol=0, atol=F64)


@pytest.mark.usefixtures("x64")
def test_convs_are_each_others_transpose():
  x, kernel = _draw((3, 3, 2))
  y = jax.random.normal(jax.random.key(1), (2, 2, 3, 2))
  left = jnp.vdot(y, downsampling_conv(x, kernel))
  right = jnp.vdot(upsampling_conv(y, kernel), x)
  np.testing.assert_allclose(left, right, rtol=F64)


@pytest.mark.usefixtures("x64", "_platform")
@CONVS
def test_conv_gradients_equal_the_plain_forms(conv: Conv, plain: Conv, channels: Channels):
  def first(conv: Conv, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.grad(lambda x, k: jnp.sin(conv(x, k)).sum(), argnums=(0, 1))(x, kernel)

  def second(conv: Conv, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    def norm(x: jax.Array, kernel: jax.Array) -> jax.Array:
      return sum((jnp.sum(g**3) for g in first(conv, x, kernel)), start=jnp.zeros(()))

    return jax.grad(norm, argnums=(0, 1))(x, kernel)

  x, kernel = _draw(channels)
  for order in (first, second):
    gradients = jax.jit(order, static_argnums=0)
    for got, want in zip(gradients(conv, x, kernel), gradients(plain, x, kernel), strict=True):
      np.testing.assert_allclose(got, want, rtol=0, atol=F64 * float(jnp.abs(want).max()))


@pytest.mark.usefixtures("x64")
@CONVS
def test_conv_gradients_equal_finite_differences(
  check_gradient: Callable[..., None], conv: Conv, plain: Conv, channels: Channels
):
  del plain
  check_gradient(conv, *_draw(channels))


@pytest.mark.usefixtures("x64")
@CONVS
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (1, 2)], ids=["x", "kernel", "both"])
def test_vmap_of_convs_and_gradients(
  conv: Conv, plain: Conv, channels: Channels, axes: tuple[int | None, int | None]
):
  def run(conv: Conv, x: jax.Array, kernel: jax.Array) -> list[jax.Array]:
    mapped = jax.vmap(conv, in_axes=axes)
    gradient = jax.grad(lambda x, k: jnp.sin(mapped(x, k)).sum(), argnums=(0, 1))
    return [mapped(x, kernel), *gradient(x, kernel)]

  stacks = (
    array if axis is None else jnp.stack([array, 2 * array, -array], axis=axis)
    for array, axis in zip(_draw(channels), axes, strict=True)
  )
  x, kernel = stacks
  for got, want in zip(run(conv, x, kernel), run(plain, x, kernel), strict=True):
    np.testing.assert_allclose(got, want, rtol=0, atol=F64 * float(jnp.abs(want).max()))


def test_conv_modules():
  down = DownsamplingConv(16, 32, rngs=nnx.Rngs(0))
  up = UpsamplingConv(32, 16, rngs=nnx.Rngs(0))
  x = jax.random.normal(jax.random.key(0), (1, 4, 6, 16))
  y = down(x)
  np.testing.assert_array_equal(y, downsampling_conv(x, down.kernel[...]) + jnp.float32(0.01))
  np.testing.assert_array_equal(up(y), upsampling_conv(y, up.kernel[...]) + jnp.float32(0.01))
  assert DownsamplingConv(16, 32, rngs=nnx.Rngs(0), use_bias=False).bias is None
  # Xavier-normal with gain sqrt(2): deviation sqrt(2) sqrt(2 / (25 (16 + 32))); the
  # deviation of 12,800 draws lies within 2 % of it (3 standard errors).
  for layer in (down, up):
    deviation = float(layer.kernel[...].std())
    assert deviation == pytest.approx(2 / (25 * 48) ** 0.5, rel=0.02)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_reflecting_conv_is_a_convolution_of_the_reflected_image(
  size: tuple[int, int], stride: int
):
  layer = ReflectingConv(7, 5, stride=stride, rngs=nnx.Rngs(0))
  layer.bias[...] = jnp.arange(5.0)
  x = jax.random.normal(jax.random.key(0), (2, *size, 7))
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
  dimensions = ("NHWC", "HWIO", "NHWC")
  want = lax.conv_general_dilated(
    padded, layer.kernel[...], (stride, stride), "VALID", dimension_numbers=dimensions
  )
  np.testing.assert_allclose(layer(x), want + jnp.arange(5.0), rtol=F32, atol=F32)

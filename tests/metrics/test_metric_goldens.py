"""Image-quality metrics: the published code's golden numbers, and gradients at flat pixels."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvsjnd_jax import metrics
from hvsjnd_jax.metrics import METRICS
from tests.support.golden_pairs import PAIRS, read_pair, to_images

Images = Callable[..., jax.Array]

# Scores near 1 from float32 images.
F32 = 1e-5
# Variances as differences of squares: float32 leaves 1e-7 beside C2 = 9e-4.
F32_VARIANCE = 5e-5
# Of a gradient's maximum: at its 95th percentile, and its worst.
GRADIENT = 1e-4
WORST_GRADIENT = 1e-3


@pytest.mark.parametrize("name", ["ssim", "ms_ssim_reference", "gmsd", "fsim"])
@pytest.mark.parametrize("pair", PAIRS)
def test_golden(pair: str, name: str):
  arrays = read_pair(pair)
  distorted, reference = to_images(arrays)
  metric, key = METRICS[name], name.removesuffix("_reference")
  sign = -1 if metric.better == "higher" else 1
  score, gradient = jax.jit(jax.value_and_grad(lambda d, r: metric.function(d, r)[0]))(
    distorted, reference
  )
  rtol = F32_VARIANCE if name == "ssim" else F32
  np.testing.assert_allclose(score, arrays[key], rtol=rtol)

  step, want = int(arrays["step"]), arrays[f"grad_{key}"]
  error = np.abs(sign * gradient[0, ::step, ::step] - want) / np.abs(want).max()
  assert np.percentile(error, 95) < GRADIENT
  # GMSD and FSIM: where an image is exactly flat, the published gradient is noise.
  if name in ("ssim", "ms_ssim_reference"):
    assert error.max() < WORST_GRADIENT
  if (pair, name) == ("coffee_176_noise", "gmsd"):  # nowhere flat
    assert error.max() < GRADIENT


@pytest.mark.usefixtures("optimized")  # rounding depends on how sums are compiled
@pytest.mark.parametrize("floor", [1e-12, 1.0])
def test_gradients_of_flat_pixels_are_those_of_float64(floor: float):
  """JPEG's flat blocks: rounding errors under a root of 1e-12 would be gradients of full size."""
  pair = to_images(read_pair("chelsea_256x384_jpeg"))
  function = jax.jit(jax.value_and_grad(lambda d, r: metrics.gmsd(d, r, gradient_floor=floor)[0]))
  score, single = function(*pair)
  with jax.enable_x64(True):
    _, double = function(*(jnp.asarray(np.asarray(image), jnp.float64) for image in pair))
  error = np.abs(np.asarray(single) - np.asarray(double)) / np.abs(double).max()
  assert error.max() < GRADIENT  # measured 9e-6; a division before the difference makes it 0.5
  assert float(score) == pytest.approx(read_pair("chelsea_256x384_jpeg")["gmsd"], rel=0.05)


@pytest.mark.parametrize("metric", [metrics.gmsd, metrics.fsim], ids=["gmsd", "fsim"])
def test_gradient_floor_tames_the_gradient_on_flat_images(
  flat_images: Images, metric: Callable[..., jax.Array]
):
  reference = flat_images(16)[1:2]
  distorted = reference + 1e-4 * jax.random.normal(jax.random.key(0), reference.shape)

  def size(floor: float) -> float:
    gradient = jax.jit(jax.grad(lambda d: metric(d, reference, gradient_floor=floor)[0]))
    return float(jnp.abs(gradient(distorted)).max())

  assert size(1.0) < 0.1 * size(1e-12)

"""Every public function that can be differentiated: forward and reverse mode, and both together."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hvsjnd_jax
from hvsjnd_jax import metrics
from hvsjnd_jax.metrics import METRICS
from hvsjnd_jax.model.masking import threshold
from hvsjnd_jax.training.vision_losses import vision_losses

Function = Callable[..., Any]

# The same float64 sums in another order.
ORDERS = 1e-8
# The step of a central difference of gradients, and what it may be off: 1e-8 was measured.
STEP = 1e-6
FINITE_DIFFERENCE = 1e-6


class Case(NamedTuple):
  """A function of images, or of a distorted image and its reference."""

  function: Function
  side: int
  images: int = 2
  network: str = ""  # the fixture that is its first argument, or the keyword vgg16
  rounding: float = 0  # of a value, in float64


def use(function: Function, network: str, **options: Any) -> Case:
  return Case(functools.partial(function, **options), 16, images=1, network=network)


def inject(images: jax.Array, jnd: jax.Array) -> jax.Array:
  signs = hvsjnd_jax.random_signs(jax.random.key(0), images.shape)
  return hvsjnd_jax.inject(images, 0.01 * jnd, signs.astype(images.dtype), lmbda=2.0)


CASES = {
  "estimate, paper": use(hvsjnd_jax.estimate, "small_model"),
  "estimate, native": use(
    hvsjnd_jax.estimate, "small_model", resolution="native", attention_layer="feature"
  ),
  "estimate, default": use(hvsjnd_jax.estimate, "fine_model"),
  "estimate, fast": use(hvsjnd_jax.estimate, "fast_model"),
  "degrade": use(hvsjnd_jax.degrade, "small_model"),
  "threshold": Case(threshold, 16, images=1),
  "inject": Case(inject, 8),
  **{
    name: Case(metric.function, max(metric.smallest_px, 13), network=metric.backbone or "")
    for name, metric in METRICS.items()
  },
  "ssim, wang2004": Case(functools.partial(metrics.ssim, variant="wang2004"), 13),
  "fsim, luma": Case(functools.partial(metrics.fsim, chroma=False), 13),
  "ssimulacra2_distance": Case(
    functools.partial(metrics.ssimulacra2_distance, border="symmetric"), 13
  ),
  "butteraugli_map": Case(metrics.butteraugli_map, 13),
  "cvvdp_map": Case(metrics.cvvdp_map, 13),
  # The sum of three models' logarithms is long: 1.3e-6 was measured without an allowance.
  "vision_losses": Case(vision_losses, 13, rounding=3e-14),
}

# They take long to compile. A quick case has the same parts, or a quick test in the file of the
# metric itself.
SLOW = (
  *("estimate, native", "ms_ssim_reference", "fsim, luma", "dists"),
  *("ssimulacra2", "ssimulacra2_distance", "cvvdp", "cvvdp_fhd", "cvvdp_map"),
  *("butteraugli_3norm", "butteraugli_max", "butteraugli_map", "vision_losses"),
)
NAMES = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CASES]


@pytest.fixture
def prepare(
  request: pytest.FixtureRequest, draw_images: Callable[..., jax.Array]
) -> Callable[[Case], tuple[Function, list[np.ndarray]]]:
  """A function with its network bound, in float64, and images for it."""

  def run(case: Case) -> tuple[Function, list[np.ndarray]]:
    side, function = case.side, case.function
    images = [np.asarray(draw_images(1, side, side, seed=3 + i), np.float64) for i in range(2)]
    images = [0.8 * images[0] + 0.2 * images[1], images[0]]
    if case.network:
      with jax.enable_x64(False):  # all tests share it
        network = request.getfixturevalue(case.network)
      network = jax.tree.map(lambda leaf: leaf.astype(np.float64), network)
      if case.network == "vgg16":
        function = functools.partial(function, vgg16=network)
      else:
        function = functools.partial(function, network)
    return function, images[: case.images]

  return run


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", NAMES)
def test_both_modes_equal_finite_differences(
  name: str, prepare: Callable[..., Any], check_gradient: Callable[..., None]
):
  function, images = prepare(CASES[name])
  check_gradient(function, *images, rounding=CASES[name].rounding)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["estimate, default", "degrade", "gmsd"])
def test_products_with_the_hessian(name: str, prepare: Callable[..., Any]):
  """Forward over reverse, against reverse over reverse and against central differences."""
  function, (image, *others) = prepare(CASES[name])
  direction = np.random.default_rng(0).standard_normal(image.shape)

  def total(image: jax.Array) -> jax.Array:
    outputs = function(image, *others)
    return jnp.vdot(jnp.sin(1 + jnp.arange(outputs.size, dtype=outputs.dtype)), outputs)

  gradient = jax.grad(total)

  @jax.jit
  def run(image: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array]:
    first, forward = jax.jvp(gradient, (image,), (direction,))
    reverse = jax.grad(lambda image: jnp.vdot(gradient(image), direction))(image)
    return first, forward, reverse

  _, forward, reverse = map(np.asarray, run(image))
  largest = np.abs(reverse).max()
  assert largest > 0
  np.testing.assert_allclose(forward, reverse, rtol=0, atol=ORDERS * largest)
  ends = [np.asarray(run(image + step * direction)[0]) for step in (STEP, -STEP)]
  difference = (ends[0] - ends[1]) / (2 * STEP)
  np.testing.assert_allclose(difference, forward, rtol=0, atol=FINITE_DIFFERENCE * largest)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["degrade", "ssim"])
def test_jacobians_and_hessian(name: str, prepare: Callable[..., Any]):
  """Those of what a change of each channel does."""
  function, (image, *others) = prepare(CASES[name])

  @jax.jit
  def run(shift: np.ndarray) -> tuple[jax.Array, ...]:
    def shifted(shift: jax.Array) -> jax.Array:
      return function(image + shift[None, None, None], *others)

    def total(shift: jax.Array) -> jax.Array:
      return jnp.square(shifted(shift)).sum()

    return (
      jax.jacfwd(shifted)(shift),
      jax.jacrev(shifted)(shift),
      jax.hessian(total)(shift),
      jax.jacrev(jax.jacfwd(total))(shift),
    )

  forward, reverse, hessian, other = map(np.asarray, run(np.zeros(3)))
  np.testing.assert_allclose(forward, reverse, rtol=0, atol=ORDERS * np.abs(reverse).max())
  assert np.abs(hessian).max() > 0
  np.testing.assert_allclose(hessian, hessian.T, rtol=0, atol=ORDERS * np.abs(hessian).max())
  np.testing.assert_allclose(hessian, other, rtol=0, atol=ORDERS * np.abs(hessian).max())

"""Models and images that the tests share."""

import os

from tests.support.compiling import FASTER_FLAGS

# Nothing is read from, or left in, the cache of whoever runs the tests.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
# XLA_FLAGS= (nothing) runs the tests with the code generator that users have.
os.environ.setdefault("XLA_FLAGS", FASTER_FLAGS)

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import settings

from convert.keymap import PARAMETERS, convert
from hvsjnd_jax.data.paths import parse_path
from hvsjnd_jax.metrics.backbones import VGG16, ResNet34
from hvsjnd_jax.model.hvs_sd import HVSSD
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.weights import build_model, save
from tests.support.golden_backbones import build
from tests.support.golden_weights import draw_state
from tests.support.models import unsettle
from tests.support.object_storage import emulated_storage

# Tolerances are those of float32 on a CPU; an accelerator may multiply in lower precision.
if "JAX_PLATFORMS" not in os.environ:
  jax.config.update("jax_platforms", "cpu")
# LLVM's optimisations take two thirds of the suite's time. The fixture `optimized` turns them on.
jax.config.update("jax_disable_most_optimizations", True)

# Examples are the same everywhere, few, and may take long, as the first one compiles.
settings.register_profile("fixed", derandomize=True, deadline=None, database=None, max_examples=10)
settings.load_profile("fixed")


@pytest.fixture(autouse=True, scope="module")
def forget_compiled() -> Iterator[None]:
  """Frees what a module has compiled: half the memory of the suite, and a tenth of its time."""
  yield
  jax.clear_caches()


@pytest.fixture
def optimized() -> Iterator[None]:
  """Compiles with optimisations, as users do."""
  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def x64() -> Iterator[None]:
  """Float64 throughout: an array that falls back to float32 is an error."""
  with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
    yield


# The step of a central difference in float64: at 1e-6 a step across a leaky ReLU's kink
# was seen, below 1e-8 rounding grows; measured errors are below 1e-8.
STEP = 1e-7
FINITE_DIFFERENCE = 1e-6
# Of forward and reverse mode: the same float64 sums in another order.
MODES = 1e-9


@pytest.fixture(scope="session")
def check_gradient() -> Callable[..., None]:
  """Both modes against central differences, in float64, along random directions.

  Works as `jax.test_util.check_grads`, but compiles once, which for a network is ten times as
  fast. `forward=False` is for parameters of GDN, which have a reverse mode alone; `rounding` is
  what a value may be off, relatively.
  """

  def check(
    function: Callable[..., Any], *arguments: Any, forward: bool = True, rounding: float = 0
  ) -> None:
    rng = np.random.default_rng(0)
    leaves, tree = jax.tree.flatten(arguments)
    leaves = [np.asarray(leaf, np.float64) for leaf in leaves]

    def projection(leaves: list[jax.Array]) -> jax.Array:
      outputs = jax.tree.leaves(function(*tree.unflatten(leaves)))
      # Fixed weights: a plain sum would hide errors that cancel.
      waves = (jnp.sin(1 + jnp.arange(out.size, dtype=out.dtype)) for out in outputs)
      return sum(
        (jnp.vdot(w, out) for w, out in zip(waves, outputs, strict=True)), start=jnp.zeros(())
      )

    @jax.jit
    def run(leaves: list[np.ndarray], direction: list[np.ndarray]) -> tuple[jax.Array, Any, Any]:
      slope = jax.jvp(projection, (leaves,), (direction,))[1] if forward else None
      return *jax.value_and_grad(projection)(leaves), slope

    for _ in range(3):
      direction = [rng.standard_normal(leaf.shape) for leaf in leaves]
      _, gradient, forward_slope = run(leaves, direction)
      slope = sum(np.vdot(g, d) for g, d in zip(gradient, direction, strict=True))
      ends = []
      for step in (STEP, -STEP):
        moved = [leaf + step * d for leaf, d in zip(leaves, direction, strict=True)]
        ends.append(float(run(moved, direction)[0]))
      assert abs(slope) > 0
      difference, noise = (ends[0] - ends[1]) / (2 * STEP), rounding * abs(ends[0]) / STEP
      np.testing.assert_allclose(difference, slope, rtol=FINITE_DIFFERENCE, atol=noise)
      if forward:
        np.testing.assert_allclose(forward_slope, slope, rtol=MODES)

  return check


@pytest.fixture(scope="session")
def build_golden() -> Callable[[int], JNDModel]:
  """Both networks with the golden files' weights, by seed."""

  def build(seed: int) -> JNDModel:
    arrays = {}
    for network, table in PARAMETERS.items():
      shapes = {key: shape for key, (_, shape) in table.items()}
      converted, faults = convert(network, draw_state(seed, shapes))
      assert not faults
      arrays |= converted
    return build_model(
      arrays, source="the recipe", resolution="reference", attention_layer="reconstruction"
    )

  return build


@pytest.fixture(scope="session")
def model(build_golden: Callable[[int], JNDModel]) -> JNDModel:
  """Full size, with the golden files' weights of seed 0."""
  return build_golden(0)


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory, model: JNDModel) -> Path:
  """The model on disk, for commands to load; not to be changed."""
  folder = tmp_path_factory.mktemp("weights") / "w"
  save(folder, model, provenance={})
  return folder


@pytest.fixture(scope="session")
def small_model(model: JNDModel) -> JNDModel:
  """A narrow HVS-SD and the full generator: quick, and the same code."""
  small = nnx.clone(model)
  small.hvs_sd, small.hvs_sd_channels = HVSSD(8, rngs=nnx.Rngs(1)), 8
  return small


@pytest.fixture(scope="session")
def fine_model() -> JNDModel:
  """Narrow networks of the default weights' kind, whose correction is not 0."""
  model = JNDModel(
    resolution="fine", hvs_sd_channels=8, generator_channels=8, level=0.5, rngs=nnx.Rngs(2)
  )
  return unsettle(model)


@pytest.fixture(scope="session")
def fast_model() -> JNDModel:
  """A narrow network of the kind of the weights "fast", whose correction is not 0."""
  model = JNDModel(
    resolution="fine", hvs_sd_channels=None, generator_channels=8, level=0.5, rngs=nnx.Rngs(3)
  )
  return unsettle(model)


@pytest.fixture(scope="session")
def small_hvs_sd(small_model: JNDModel) -> HVSSD:
  return small_model.require_hvs_sd("test")


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
  """The address of a bucket in an emulator of object storage, which the tests share."""
  with emulated_storage() as address:
    yield address


@pytest.fixture
def remote(bucket: str, request: pytest.FixtureRequest) -> Path:
  """A folder in the object store, of this test alone."""
  name = re.sub(r"\W+", "-", request.node.name)  # Orbax would take brackets for a pattern
  return parse_path(f"{bucket}/{name}")


@pytest.fixture(scope="session")
def vgg16() -> VGG16:
  """With the golden files' weights of seed 0."""
  return build("vgg16", 0)


@pytest.fixture(scope="session")
def classifier() -> ResNet34:
  """With the golden files' weights of seed 0."""
  return build("classifier", 0)


@pytest.fixture(scope="session")
def draw_images() -> Callable[..., jax.Array]:
  """Random images in [0, 1], [B, H, W, 3], with structure at several scales."""

  def draw(b: int, h: int, w: int, *, seed: int = 0) -> jax.Array:
    rng = np.random.default_rng(seed)
    images = np.zeros((b, h, w, 3))
    for cell in (1, 4, 16):
      coarse = rng.random((b, -(-h // cell), -(-w // cell), 3))
      images += coarse.repeat(cell, axis=1).repeat(cell, axis=2)[:, :h, :w]
    return jnp.asarray(images / 3, jnp.float32)

  return draw


@pytest.fixture(scope="session")
def flat_images() -> Callable[[int], jax.Array]:
  """A black, a grey and a white image of the given side."""

  def fill(side: int) -> jax.Array:
    levels = jnp.asarray([0.0, 0.5, 1.0])[:, None, None, None]
    return jnp.broadcast_to(levels, (3, side, side, 3))

  return fill

"""The JND map: the published generator's, enlarged, and "fine" ones."""

import functools
from collections.abc import Callable

import jax
import numpy as np
import pytest
from flax import nnx

from hvsjnd_jax.model.correction import CorrectionNetwork
from hvsjnd_jax.model.generator import JNDGenerator
from hvsjnd_jax.model.jnd_map import Resolution, draw_jnd, enlarge_as_published, masking_map
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.model.masking import threshold
from hvsjnd_jax.model.priors import Priors
from tests.support.models import unsettle

# The same sums, compiled in another order.
SELF = 1e-6
# A logarithm and its exponential, in float32.
SELF_RATIO = 1e-5

PUBLISHED: tuple[Resolution, ...] = ("reference", "native")


@pytest.fixture(scope="module")
def generator(model: JNDModel) -> JNDGenerator:
  assert isinstance(model.generator, JNDGenerator)
  return model.generator


def draw_model(hvs_sd_channels: int | None, *, width: int = 8, level: float = 1.0) -> JNDModel:
  return JNDModel(
    resolution="fine",
    hvs_sd_channels=hvs_sd_channels,
    generator_channels=width,
    level=level,
    rngs=nnx.Rngs(0),
  )


@functools.partial(jax.jit, static_argnames="resolution")
def _draw_jnd(generator: JNDGenerator, maps: jax.Array, *, resolution: Resolution) -> jax.Array:
  return draw_jnd(generator, *_split(maps), resolution=resolution)


def _split(maps: jax.Array) -> tuple[jax.Array, Priors]:
  """Image and priors out of one random [B, H, W, 10]."""
  images, degraded, gradient, attention = jax.numpy.split(maps, (3, 6, 9), axis=-1)
  return images, Priors(degraded, attention, gradient)


@pytest.mark.parametrize("resolution", PUBLISHED)
@pytest.mark.parametrize("size", [(8, 8), (9, 13)], ids=["8x8", "9x13"])
def test_shape_and_range(generator: JNDGenerator, resolution: Resolution, size: tuple[int, int]):
  maps = jax.random.uniform(jax.random.key(0), (2, *size, 10))
  jnd = _draw_jnd(generator, maps, resolution=resolution)
  assert jnd.shape == (2, *size, 3)
  assert ((jnd >= 0) & (jnd <= 1)).all()
  assert jnd.std() > 0


def test_resolutions_agree_at_176(generator: JNDGenerator):
  maps = jax.random.uniform(jax.random.key(0), (1, 176, 176, 10))
  reference = _draw_jnd(generator, maps, resolution="reference")
  native = _draw_jnd(generator, maps, resolution="native")
  np.testing.assert_allclose(native, reference, rtol=0, atol=SELF)


def test_maps_are_clipped_to_the_image_range(generator: JNDGenerator):
  maps = 1e6 * jax.random.uniform(jax.random.key(0), (2, 8, 8, 10))
  assert _draw_jnd(generator, maps, resolution="native").max() == 1


@pytest.mark.usefixtures("x64")
def test_gradients(check_gradient: Callable[..., None], generator: JNDGenerator):
  def forward(generator: JNDGenerator, maps: jax.Array) -> jax.Array:
    return draw_jnd(generator, *_split(maps), resolution="reference")

  check_gradient(forward, generator, np.random.default_rng(1).random((1, 8, 8, 10)))


def test_fine_maps_of_every_level_are_bounded_as_in_training():
  board = (np.indices((12, 12)).sum(axis=0) % 2).astype(np.float32)
  images = jax.numpy.asarray(board[None, ..., None].repeat(3, axis=-1))
  assert threshold(images).max() > 1, "or there would be nothing to bound"
  trained = draw_jnd(draw_model(None).generator, images, None, resolution="fine")
  assert trained.max() == 1
  np.testing.assert_allclose(masking_map(images), trained, rtol=SELF_RATIO)
  shipped = draw_jnd(draw_model(None, level=0.01).generator, images, None, resolution="fine")
  np.testing.assert_allclose(shipped, 0.01 * trained, rtol=SELF_RATIO)


@pytest.mark.parametrize("size", [(8, 8), (9, 13)], ids=["8x8", "9x13"])
@pytest.mark.parametrize("hvs_sd_channels", [8, None])
def test_fine_is_the_masking_threshold_at_first(hvs_sd_channels: int | None, size: tuple[int, int]):
  model = draw_model(hvs_sd_channels, level=0.5)
  images, priors = _split(jax.random.uniform(jax.random.key(0), (2, *size, 10)))
  known = None if hvs_sd_channels is None else priors
  jnd = draw_jnd(model.generator, images, known, resolution="fine")
  np.testing.assert_allclose(jnd, 0.5 * threshold(images).clip(0, 1), rtol=SELF_RATIO)


@pytest.mark.parametrize("level", [0, 1.5, float("nan")])
def test_impossible_level_is_named(level: float):
  with pytest.raises(ValueError, match=f"expected a level above 0 and at most 1, got {level}"):
    draw_model(None, level=level)


def test_correction_is_bounded():
  model = draw_model(None)
  generator = model.generator
  assert isinstance(generator, CorrectionNetwork)
  generator.leave.bias[...] = jax.numpy.asarray([-100.0, 0.0, 100.0])
  images = 0.25 + 0.5 * jax.random.uniform(jax.random.key(0), (1, 16, 16, 3))
  log_thresholds = jax.numpy.zeros(images.shape)
  correction = generator(images, log_thresholds, ())
  np.testing.assert_allclose(correction[0, 0, 0], [-0.8, 0, 0.8], atol=SELF)


@pytest.mark.usefixtures("x64")
def test_gradients_of_fine_maps(check_gradient: Callable[..., None]):
  model = jax.tree.map(lambda leaf: leaf.astype(np.float64), draw_model(8, width=4))
  model = unsettle(model)

  def forward(generator: CorrectionNetwork, maps: jax.Array) -> jax.Array:
    return draw_jnd(generator, *_split(maps), resolution="fine")

  check_gradient(forward, model.generator, np.random.default_rng(0).random((1, 9, 12, 10)))


def test_gradients_are_finite_where_the_input_gradient_is_zero():
  model = unsettle(draw_model(8, width=4))
  maps = jax.random.uniform(jax.random.key(0), (1, 9, 12, 10)).at[..., 6:9].set(0)

  def total(maps: jax.Array) -> jax.Array:
    return draw_jnd(model.generator, *_split(maps), resolution="fine").sum()

  assert np.isfinite(jax.grad(total)(maps)).all()


def test_reference_is_the_same_on_the_host():
  quarter = np.random.default_rng(0).normal(size=(30, 41, 3)).astype(np.float32)
  got = enlarge_as_published(quarter, (118, 163))
  assert isinstance(got, np.ndarray)
  want = enlarge_as_published(jax.numpy.asarray(quarter), (118, 163))
  np.testing.assert_allclose(got, want, rtol=0, atol=SELF)

"""The JND map: the generator's, enlarged."""

import functools
from collections.abc import Callable
from typing import get_args

import jax
import numpy as np
import pytest

from hvsjnd_jax.model.generator import JNDGenerator
from hvsjnd_jax.model.jnd_map import Resolution, draw_jnd, enlarge_as_published
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.model.masking import threshold

# The same sums, compiled in another order.
SELF = 1e-6

RESOLUTIONS = pytest.mark.parametrize("resolution", get_args(Resolution))


@pytest.fixture(scope="module")
def generator(model: JNDModel) -> JNDGenerator:
  return model.generator


@functools.partial(jax.jit, static_argnames="resolution")
def _draw_jnd(generator: JNDGenerator, maps: jax.Array, *, resolution: Resolution) -> jax.Array:
  return draw_jnd(generator, *_split(maps), resolution=resolution)


def _split(maps: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Image, attention and gradient out of one random [B, H, W, 7]."""
  return maps[..., :3], maps[..., 3:4], maps[..., 4:]


@RESOLUTIONS
@pytest.mark.parametrize("size", [(8, 8), (9, 13)], ids=["8x8", "9x13"])
def test_shape_and_range(generator: JNDGenerator, resolution: Resolution, size: tuple[int, int]):
  maps = jax.random.uniform(jax.random.key(0), (2, *size, 7))
  jnd = _draw_jnd(generator, maps, resolution=resolution)
  assert jnd.shape == (2, *size, 3)
  assert ((jnd >= 0) & (jnd <= 1)).all()
  assert jnd.std() > 0


def test_resolutions_agree_at_176(generator: JNDGenerator):
  maps = jax.random.uniform(jax.random.key(0), (1, 176, 176, 7))
  reference = _draw_jnd(generator, maps, resolution="reference")
  native = _draw_jnd(generator, maps, resolution="native")
  np.testing.assert_allclose(native, reference, rtol=0, atol=SELF)


def test_maps_are_clipped_to_the_image_range(generator: JNDGenerator):
  maps = 1e6 * jax.random.uniform(jax.random.key(0), (2, 8, 8, 7))
  assert _draw_jnd(generator, maps, resolution="native").max() == 1


@pytest.mark.usefixtures("x64")
def test_gradients(check_gradient: Callable[..., None], generator: JNDGenerator):
  def forward(generator: JNDGenerator, maps: jax.Array) -> jax.Array:
    return draw_jnd(generator, *_split(maps), resolution="reference")

  check_gradient(forward, generator, np.random.default_rng(0).random((1, 8, 8, 7)))


def test_fine_is_native_times_the_masking_threshold(generator: JNDGenerator):
  maps = jax.random.uniform(jax.random.key(0), (1, 16, 24, 7))
  native, fine = (_draw_jnd(generator, maps, resolution=form) for form in ("native", "fine"))
  assert native.max() < 1  # nothing is clipped
  np.testing.assert_allclose(fine, native * threshold(maps[..., :3]), rtol=0, atol=SELF)


def test_reference_is_the_same_on_the_host():
  quarter = np.random.default_rng(0).normal(size=(30, 41, 3)).astype(np.float32)
  got = enlarge_as_published(quarter, (118, 163))
  assert isinstance(got, np.ndarray)
  want = enlarge_as_published(jax.numpy.asarray(quarter), (118, 163))
  np.testing.assert_allclose(got, want, rtol=0, atol=SELF)

"""Tests that the ablations leave out what they say, and nothing else."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import hvsjnd_jax
from hvsjnd_jax.data.sources import SyntheticPhotos
from hvsjnd_jax.model.generator import JNDGenerator
from hvsjnd_jax.model.jnd_map import draw_jnd
from hvsjnd_jax.model.masking import threshold
from tests.benchmarks import ablations
from tests.benchmarks.ablations import FreeMap, PartlyBlind, Variant

ROUNDING = 1e-6  # error of bilinear doubling, whose weights sum to one


@pytest.fixture(scope="module")
def arrays() -> list[jax.Array]:
  keys = jax.random.split(jax.random.key(0), 3)
  return [jax.random.uniform(key, (1, 16, 24, c)) for key, c in zip(keys, (3, 1, 3), strict=True)]


def draw(generator: JNDGenerator, *arrays: jax.Array) -> np.ndarray:
  return np.asarray(generator(*arrays))


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("gradient", [True, False])
def test_generator_is_blind_to_what_it_says(
  arrays: list[jax.Array], attention: bool, gradient: bool
):
  generator = PartlyBlind(attention=attention, gradient=gradient, rngs=nnx.Rngs(0))
  whole = JNDGenerator(rngs=nnx.Rngs(0))
  nnx.update(whole, nnx.state(generator))
  images, xc, xg = arrays
  drawn = draw(generator, *arrays)
  assert (drawn != draw(generator, images, xc / 2, xg)).any() == attention
  assert (drawn != draw(generator, images, xc, xg / 2)).any() == gradient
  assert (drawn == draw(whole, *arrays)).all() == (attention and gradient)


def test_free_map_begins_as_the_masking():
  images = jax.random.uniform(jax.random.key(1), (1, 16, 16, 3))
  free_map: Any = FreeMap(16, typical=0.05)
  drawn = draw_jnd(free_map, images, images, images, resolution="fine")
  np.testing.assert_allclose(drawn, 0.05 * threshold(images), rtol=ROUNDING)


def test_middle_is_cut():
  pixels = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)
  np.testing.assert_array_equal(ablations._cut_middle(pixels, 4), pixels[1:5, 2:6])
  np.testing.assert_array_equal(ablations._cut_middle(pixels, 8), pixels[:, :8])


def test_generator_alone_is_trained():
  variant = Variant({"batch_size": 1, "crop_px": 168, "warmup_steps": 0}, attention_prior=False)
  model = ablations.train_generator(variant, SyntheticPhotos(2), num_steps=1)
  shipped, start = hvsjnd_jax.load(), PartlyBlind(attention=False, gradient=True, rngs=nnx.Rngs(0))
  same = jax.tree.map(jnp.array_equal, nnx.state(model.hvs_sd), nnx.state(shipped.hvs_sd))
  assert all(jax.tree.leaves(same))
  moved = jax.tree.map(
    lambda a, b: bool((a != b).any()), nnx.state(model.generator), nnx.state(start)
  )
  assert all(jax.tree.leaves(moved))

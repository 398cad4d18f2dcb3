"""Tests that the ablations leave out what they say, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import hvsjnd_jax
from hvsjnd_jax.data.sources import SyntheticPhotos
from hvsjnd_jax.model.jnd_map import draw_jnd
from hvsjnd_jax.model.priors import Priors
from tests.benchmarks import ablations
from tests.benchmarks.ablations import PartialNetwork, Variant
from tests.benchmarks.pictures import cut_middle

PRIORS = ("attention", "gradient", "lost")


def draw(variant: Variant, images: jax.Array, priors: Priors) -> np.ndarray:
  network = PartialNetwork(variant, rngs=nnx.Rngs(0))
  kernel = network.leave.kernel
  kernel[...] = 0.1 * jax.random.normal(jax.random.key(0), kernel.shape)
  return np.asarray(draw_jnd(network, images, priors, resolution="fine"))


@pytest.mark.parametrize("given", [PRIORS, ("attention",), ("gradient", "lost"), ()])
def test_generator_is_blind_to_what_it_says(given: tuple[str, ...]):
  keys = jax.random.split(jax.random.key(0), 4)
  images, degraded, gradient = (jax.random.uniform(key, (1, 16, 24, 3)) for key in keys[:3])
  priors = Priors(degraded, jax.random.uniform(keys[3], (1, 16, 24, 1)), gradient)
  changed = {
    "attention": priors._replace(attention=priors.attention / 2),
    "gradient": priors._replace(gradient=priors.gradient / 2),
    "lost": priors._replace(degraded=priors.degraded / 2),
  }
  variant = Variant(priors=given)
  drawn = draw(variant, images, priors)
  for name, other in changed.items():
    assert (drawn != draw(variant, images, other)).any() == (name in given)


def test_coarse_maps_hold_no_detail():
  maps = jax.random.normal(jax.random.key(0), (1, 16, 24, 3))
  coarse = ablations._coarsen(maps)
  np.testing.assert_allclose(coarse.mean(), maps.mean(), atol=0.05)
  assert np.abs(np.diff(coarse, axis=1)).max() < np.abs(np.diff(maps, axis=1)).max() / 4


def test_middle_is_cut():
  pixels = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)
  np.testing.assert_array_equal(cut_middle(pixels, 4), pixels[1:5, 2:6])
  np.testing.assert_array_equal(cut_middle(pixels, 8), pixels[:, :8])


def test_generator_alone_is_trained():
  light = dict.fromkeys(["butteraugli", "peaks", "ssimulacra2", "jod"], 0.0)
  settings = {f"{name}_weight": weight for name, weight in light.items()}
  settings |= {"crop_px": 168, "warmup_steps": 0, "quality_weight": 1.0}
  variant = Variant(settings, priors=("lost",))
  model = ablations.train_generator(variant, SyntheticPhotos(2), num_steps=1)
  shipped, start = hvsjnd_jax.load(), PartialNetwork(variant, rngs=nnx.Rngs(0))
  same = jax.tree.map(jnp.array_equal, nnx.state(model.hvs_sd), nnx.state(shipped.hvs_sd))
  assert all(jax.tree.leaves(same))
  moved = jax.tree.map(
    lambda a, b: bool((a != b).any()), nnx.state(model.generator), nnx.state(start)
  )
  assert any(jax.tree.leaves(moved))

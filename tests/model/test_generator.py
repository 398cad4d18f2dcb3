"""The JND generator."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from hvsjnd_jax.model.generator import JNDGenerator
from hvsjnd_jax.model.jnd_model import JNDModel


@pytest.fixture(scope="module")
def generator(model: JNDModel) -> JNDGenerator:
  assert isinstance(model.generator, JNDGenerator)
  return model.generator


def test_parameter_count(generator: JNDGenerator):
  assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(generator))) == 86_051


@pytest.mark.parametrize(
  ("size", "quarter"), [((8, 8), (2, 2)), ((9, 13), (3, 4))], ids=["8x8", "9x13"]
)
def test_map_has_a_quarter_of_the_size(
  generator: JNDGenerator, size: tuple[int, int], quarter: tuple[int, int]
):
  images, attention = jnp.full((2, *size, 3), 0.5), jnp.full((2, *size, 1), 0.5)
  drawn = generator(images, attention, images)
  assert drawn.shape == (2, *quarter, 3)
  assert drawn.dtype == images.dtype

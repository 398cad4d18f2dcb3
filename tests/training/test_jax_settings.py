"""What training fixes is fixed for as long as it trains."""

import flax
import jax
import jax.numpy as jnp

from hvsjnd_jax.training.jax_settings import fixed_jax_settings


def test_settings_hold_within_and_come_back():
  with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
    with fixed_jax_settings():
      assert (jnp.zeros((2, 3)) + jnp.zeros(3)).dtype == jnp.float32
    assert jnp.zeros(3).dtype == jnp.float64


def test_decorated_function_can_be_called_twice():
  @fixed_jax_settings()
  def draw() -> jax.Array:
    return jax.random.uniform(jax.random.key(0), (3,))

  with jax.enable_x64(True), jax.default_prng_impl("rbg"):
    first, second = draw(), draw()
  assert first.dtype == second.dtype == jnp.float32
  assert first.tolist() == second.tolist() == draw().tolist()


def test_seeds_have_no_offset():
  key = jax.random.key_data(jax.random.key(5))
  jax.config.update("jax_random_seed_offset", 7)
  try:
    with fixed_jax_settings():
      assert jax.random.key_data(jax.random.key(5)).tolist() == key.tolist()
    assert jax.random.key_data(jax.random.key(5)).tolist() != key.tolist()
  finally:
    jax.config.update("jax_random_seed_offset", 0)


def test_hijax_variables_are_not_used():
  with flax.config.temp_flip_flag("hijax_variable", True):
    with fixed_jax_settings():
      assert not flax.config.flax_hijax_variable
    assert flax.config.flax_hijax_variable

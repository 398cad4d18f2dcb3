"""The settings of JAX that training fixes, whatever the environment says."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import flax
import jax


@contextmanager
def fixed_jax_settings() -> Iterator[None]:
  """Fixes the settings that change the types or the random numbers of a run.

  Otherwise a run that goes on in another shell might find other types in its checkpoints, or
  draw other noise, and no longer end with the bits of one that was never stopped. Also fixed are
  settings that make errors of promotions and of transfers, on which the libraries below rely, and
  Flax's FLAX_HIJAX_VARIABLE, whose variables JAX can neither place nor save. All hold for as long
  as the context is open, JAX's in this thread (JAX_RANDOM_SEED_OFFSET in all). It may also be used
  as a decorator.

  What changes rounding alone, such as JAX_DEFAULT_MATMUL_PRECISION, stays the user's choice.
  """
  with ExitStack() as stack:
    for setting in (
      jax.enable_x64(False),
      jax.default_prng_impl("threefry2x32"),
      jax.threefry_partitionable(True),
      jax.numpy_dtype_promotion("standard"),
      jax.numpy_rank_promotion("allow"),
      jax.transfer_guard("allow"),
      flax.config.temp_flip_flag("hijax_variable", False),
      _no_seed_offset(),
    ):
      stack.enter_context(setting)
    yield


@contextmanager
def _no_seed_offset() -> Iterator[None]:
  """Undoes JAX_RANDOM_SEED_OFFSET, which is added to every seed, and has no context in JAX."""
  former = jax.config.jax_random_seed_offset  # pyright: ignore[reportAttributeAccessIssue]
  jax.config.update("jax_random_seed_offset", 0)
  try:
    yield
  finally:
    jax.config.update("jax_random_seed_offset", former)

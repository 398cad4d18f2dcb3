"""Keeps what was compiled once for the next start."""

import contextlib
import os
from pathlib import Path

import jax


def keep_compilations() -> None:
  """Turns on JAX's persistent compilation cache, in the user's cache folder.

  The folder is $XDG_CACHE_HOME/hvsjnd_jax, or ~/.cache/hvsjnd_jax. JAX's own settings come
  first: JAX_COMPILATION_CACHE_DIR names another folder, JAX_ENABLE_COMPILATION_CACHE=false
  turns the cache off. Where the folder cannot be made, nothing is kept.
  """
  if jax.config.values["jax_compilation_cache_dir"] is None:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root, "hvsjnd_jax")
    with contextlib.suppress(OSError):
      folder.mkdir(parents=True, exist_ok=True)
      jax.config.update("jax_compilation_cache_dir", str(folder))
  # By default JAX does not keep what compiles in less than a second, which is most of a start.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

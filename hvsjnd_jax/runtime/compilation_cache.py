"""What has been compiled once, kept for the next start."""

import contextlib
import os
from pathlib import Path

import jax


def keep_compilations() -> None:
  """Turns JAX's persistent compilation cache on, in the user's cache folder.

  $XDG_CACHE_HOME/hvsjnd_jax, or ~/.cache/hvsjnd_jax. JAX's own settings come first:
  JAX_COMPILATION_CACHE_DIR names another folder, JAX_ENABLE_COMPILATION_CACHE=false switches
  it off. Where the folder cannot be made, nothing is kept.
  """
  if jax.config.values["jax_compilation_cache_dir"] is None:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root, "hvsjnd_jax")
    with contextlib.suppress(OSError):
      folder.mkdir(parents=True, exist_ok=True)
      jax.config.update("jax_compilation_cache_dir", str(folder))
  # JAX leaves out what compiles in less than a second, which most of a start is made of.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

"""The folder for what this package keeps between starts, and can make again."""

import os
from pathlib import Path


def find_cache_folder() -> Path:
  """Finds the package's folder in the user's cache, $XDG_CACHE_HOME or ~/.cache.

  It may not exist yet. A container's user may have no home; "~" then stays, as the first part.
  """
  return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "hvsjnd_jax")

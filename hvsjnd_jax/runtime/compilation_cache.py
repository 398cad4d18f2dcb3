"""Keeps what was compiled once for the next start."""

import contextlib
import errno
import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from hvsjnd_jax.ops.cache_folder import find_cache_folder

# Tells the user that something is wrong with a folder, and what.
Tell = Callable[[Path, str], None]


def keep_compilations(tell: Tell) -> None:
  """Turns on JAX's persistent compilation cache, in the user's cache folder.

  The folder is $XDG_CACHE_HOME/hvsjnd_jax, or ~/.cache/hvsjnd_jax. JAX's own settings come
  first: JAX_COMPILATION_CACHE_DIR names another folder, JAX_ENABLE_COMPILATION_CACHE=false
  turns the cache off. Where the folder cannot be written to, nothing is kept.

  JAX warns of every entry that it cannot read or write, and never replaces one that is damaged,
  as when the process that wrote it was killed. Here, such entries are removed, so that JAX
  writes them anew, and one line is said about all of them.

  Args:
    tell: Tells the user; called at most once.
  """
  if not jax.config.values["jax_enable_compilation_cache"]:
    return
  named = jax.config.values["jax_compilation_cache_dir"] or str(find_cache_folder())
  if "://" not in named:  # an object store is JAX's own affair
    folder = Path(named)
    try:
      _check_writable(folder)
    except OSError as error:
      jax.config.update("jax_enable_compilation_cache", False)
      tell(folder, f"cannot keep compiled code: {error.strerror}; {_ADVICE}")
      return
    _mend_entries(folder, tell)
  jax.config.update("jax_compilation_cache_dir", named)
  # By default JAX does not keep what compiles in less than a second, which is most of a start.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


_ADVICE = "JAX_COMPILATION_CACHE_DIR names another folder"

_is_about_entry = re.compile(
  r"Error (reading|writing) persistent compilation cache entry for '(.*?)': (.*)", re.DOTALL
).match


def _check_writable(folder: Path) -> None:
  """Raises `OSError` unless files can be made in the folder, which is made if need be."""
  if folder.parts[:1] == ("~",):
    raise FileNotFoundError(errno.ENOENT, "there is no home folder")
  folder.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryFile(dir=folder):
    pass


def _mend_entries(folder: Path, tell: Tell) -> None:
  """Takes JAX's warnings about entries, removes those that cannot be read, and tells once."""
  show = warnings.showwarning
  told = False

  def mend(message: Warning | str, *args: Any, **options: Any) -> None:
    nonlocal told
    about = _is_about_entry(str(message))
    if about is None:
      show(message, *args, **options)
      return
    action, module, reason = about.groups()
    if action == "reading":
      _remove_entries(folder, module)
      said = "damaged entries are removed, and compiled anew"
    else:
      said = f"cannot keep compiled code: {reason.partition(chr(10))[0]}; {_ADVICE}"
    if not told:
      told = True
      tell(folder, said)

  warnings.showwarning = mend
  warnings.filterwarnings("always", "Error (reading|writing) persistent compilation cache")


def _remove_entries(folder: Path, module: str) -> None:
  """Removes the entries of a module: a warning does not say which of them is damaged."""
  with contextlib.suppress(OSError):  # another process may remove the same
    for entry in folder.iterdir():
      if entry.name.startswith(f"{module}-") and entry.name.endswith("-cache"):
        entry.unlink()

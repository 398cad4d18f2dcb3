"""Files that are written whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hvsjnd_jax.data.paths import is_remote


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
  """Gives a temporary path to write to, and moves the file to `path` once it is complete.

  A link is followed, and its target replaced. A device, such as /dev/stdout, is written to
  directly. What goes to an object store is written to a disk, and then sent at once.
  """
  if is_remote(path):
    with tempfile.TemporaryDirectory() as folder:
      partial = Path(folder, path.name)
      yield partial
      path.write_bytes(partial.read_bytes())
    return
  if path.exists() and not path.is_file():
    yield path
    return
  path = Path(os.path.realpath(path))
  partial = path.with_name(path.name + ".partial")
  try:
    yield partial
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)

"""Files that are written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
  """Where to write what shall stand at `path`: it gets there when all of it is written.

  The target of a link is replaced, not the link; a device, such as /dev/stdout, is written to.
  """
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

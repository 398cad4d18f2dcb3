"""Files that are written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
  """Gives a temporary path to write to, and moves the file to `path` once it is complete.

  A link is followed, and its target replaced. A device, such as /dev/stdout, is written to
  directly.
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

"""Files and folders that are written whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hvsjnd_jax.data.paths import is_remote, send


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


@contextlib.contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
  """Gives a temporary folder to write in what `move_folder` will move to `out`."""
  with tempfile.TemporaryDirectory(dir=None if is_remote(out) else out.absolute().parent) as folder:
    yield Path(folder)


def move_folder(folder: Path, out: Path) -> None:
  """Moves a folder of a `scratch_folder`, which is complete, to its place.

  To an object store, the .json files, which say what the others hold, are sent last: without them
  a folder is none that could be read.
  """
  if not is_remote(out):
    folder.rename(out)
    return
  files = [file for file in folder.rglob("*") if file.is_file()]
  for file in sorted(files, key=lambda file: file.suffix == ".json"):
    send(file, out / file.relative_to(folder))

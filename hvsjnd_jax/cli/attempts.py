"""Remembers, beside a file of records, which images killed a run.

A run that the system kills, as for want of memory, cannot say anything. So each process notes an
image in FILE.trying (FILE.trying1 and so on, of many) before it is read, and deletes that file
when it ends in order. One that is there when a run begins was left by a run that was killed: its
images without a record were under way, and one of them may be why. FILE.killed counts for each how
many runs it was under way in. Such images are tried again after all others and one by one, so that
whichever is under way when a run is killed once more, did it.
"""

import contextlib
import json
import re
from collections.abc import Container
from pathlib import Path
from typing import TextIO

import jax

from hvsjnd_jax.data.atomic import whole_file
from hvsjnd_jax.data.lines import open_lines, read_lines
from hvsjnd_jax.data.paths import list_folder

# The runs that an image may kill before it is left out.
MOST_KILLED = 2


def count_killed(file: Path, done: Container[str], ended: Container[str]) -> dict[str, int]:
  """Counts anew how many runs each image killed; only the first process must call it.

  Args:
    file: The file of records.
    done: Images that need not be tried again.
    ended: Images that have a record, so that the last run was not killed on them.

  Returns:
    The counts by path, of images that killed one.
  """
  killed = read_killed(file)
  left = _find_left(file)
  for path in {path for trying in left for path in _read_paths(trying)}:
    if path not in ended:
      killed[path] = killed.get(path, 0) + 1
  killed = {path: count for path, count in killed.items() if path not in done}
  write_killed(file, killed)
  for trying in left:
    trying.unlink()
  return killed


def read_killed(file: Path) -> dict[str, int]:
  """Reads how many runs each image killed; of none if there is no such file, or no sound one."""
  try:
    killed = json.loads(_name_killed(file).read_text())
  except (OSError, ValueError):
    return {}
  return killed if isinstance(killed, dict) else {}


def write_killed(file: Path, killed: dict[str, int]) -> None:
  """Writes how many runs each image killed; raises `OSError` if that fails."""
  if killed:
    with whole_file(_name_killed(file)) as partial:
      partial.write_text(json.dumps(killed, indent=2) + "\n")
  else:
    _name_killed(file).unlink(missing_ok=True)


class Attempts:
  """Notes the images that this process tries.

  Args:
    file: The file of records.
  """

  def __init__(self, file: Path):
    self._file = file.with_name(f"{file.name}.trying{jax.process_index() or ''}")
    self._lines: TextIO | None = None

  def note(self, path: Path) -> None:
    """Notes an image at once: the note is there even if the process is killed the next moment.

    In an object store, the first note is, and the others after some seconds; see `open_lines`.
    """
    if self._lines is None:
      self._lines = open_lines(self._file)
    self._lines.write(json.dumps(str(path)) + "\n")
    self._lines.flush()

  def end(self) -> None:
    """Deletes the notes, as the process ends in order."""
    if self._lines is not None:
      self._lines.close()
      self._file.unlink(missing_ok=True)


def _name_killed(file: Path) -> Path:
  return file.with_name(f"{file.name}.killed")


def _find_left(file: Path) -> list[Path]:
  is_trying = re.compile(re.escape(file.name) + r"\.trying\d*").fullmatch
  return [other for other in list_folder(file.parent) if is_trying(other.name)]


def _read_paths(trying: Path) -> set[str]:
  """Reads the images noted, but for the last one if its line is torn: it was not yet tried."""
  paths = set()
  for line in read_lines(trying):
    with contextlib.suppress(ValueError):
      paths.add(json.loads(line))
  return paths

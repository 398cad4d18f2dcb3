"""A file with one JSON line for each image, from which a run that was stopped goes on.

The first line holds the run's settings, each other one a record: an image's path, and its
scores or, under "error", why it has none. Of many processes the first one adds its lines to FILE
itself, the others add theirs to FILE.part1, FILE.part2 and so on beside it. When a run begins
and when it ends, the first process makes one file of them all. `attempts` describes what else is
beside it.
"""

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax

from hvsjnd_jax.cli.attempts import (
  MOST_KILLED,
  Attempts,
  count_killed,
  read_killed,
  write_killed,
)
from hvsjnd_jax.cli.command import UsageError
from hvsjnd_jax.cli.outputs import writing
from hvsjnd_jax.data.atomic import whole_file
from hvsjnd_jax.data.lines import open_lines
from hvsjnd_jax.data.paths import exists, list_folder, tell_reason
from hvsjnd_jax.runtime.processes import barrier

Record = dict[str, Any]

Settings = dict[str, Any]

# The barriers at which processes wait for each other.
_PREPARED = "the file is prepared"

_DONE = "every image is done"

_OTHERS_DONE = "every image is done that has not killed a run"


class Beginning(NamedTuple):
  """Where a run stands when it begins.

  Attributes:
    settings: Its settings.
    done: The records that need not be made again, those without errors, by path.
    killed: How many runs each image killed, by path, of those that killed one.
  """

  settings: Settings
  done: dict[str, Record]
  killed: dict[str, int]


def begin(
  file: Path,
  saved: Mapping[str, str | None],
  settle: Callable[[Settings], Settings],
  *,
  retry: bool = False,
) -> Beginning:
  """Prepares the file for a run, new or resumed. All processes must call it.

  Args:
    file: The file, in a folder that all processes see.
    saved: Where each image's pictures go, by its path; None where none are saved.
    settle: Returns the run's settings, given those in the file, or {} where there are none.
    retry: Whether images that killed too many runs are tried again.

  Raises:
    UsageError: If the file cannot be written, or holds no records, other settings, or images
      that are not among those in `saved` or whose pictures lie elsewhere.
  """
  first = jax.process_index() == 0
  if not first:
    barrier(_PREPARED)
  former, records = _read(file)
  settings = settle(former)
  _check_settings(file, former or settings, settings)
  done = {path: record for path, record in records.items() if "error" not in record}
  _check_images(file, done, saved)
  if first:
    _count_killed(file, done, records, retry=retry)
    _write(file, settings, done.values())
    barrier(_PREPARED)
  killed = {path: count for path, count in read_killed(file).items() if path in saved}
  return Beginning(settings, done, killed)


def _count_killed(
  file: Path, done: Mapping[str, Record], records: Mapping[str, Record], *, retry: bool
) -> None:
  with writing(file):
    killed = count_killed(file, done, records)
    if retry:
      write_killed(file, dict.fromkeys(killed, MOST_KILLED - 1))


def _check_images(file: Path, done: Mapping[str, Record], saved: Mapping[str, str | None]) -> None:
  """Refuses a file whose images or pictures are not those of this run."""
  if unknown := done.keys() - saved.keys():
    raise UsageError(
      f"{file}: holds images that are not among those given ({len(unknown)}), such as "
      f"{min(unknown)}; give the same ones, and more if you like, or another file"
    )
  for path, record in done.items():
    if record.get("saved") != saved[path]:
      raise UsageError(
        f"{file}: pictures of {path}: written to {record.get('saved')}, not {saved[path]}; give "
        "the same --save and images, or another file"
      )


def wait_for_others() -> None:
  """Waits until every process has done its images but for those that killed a run.

  The first process tries these alone: if it is killed, no other one has an image under way.
  """
  barrier(_OTHERS_DONE)


def gather(file: Path, paths: Sequence[str]) -> dict[str, Record] | None:
  """Waits for all processes to close their files, and makes one of them, in the paths' order.

  Returns:
    The records by path in the first process, None in the others.

  Raises:
    UsageError: If records are missing, or the file cannot be written.
  """
  barrier(_DONE)
  if jax.process_index():
    return None
  settings, records = _read(file)
  missing = [path for path in paths if path not in records]
  if missing:
    raise UsageError(
      f"{file}: holds no line for {len(missing)} of {len(paths)} images, such as {missing[0]}; it "
      "must lie in a folder that all processes see"
    )
  _write(file, settings, [records[path] for path in paths])
  with writing(file):  # those that were tried did not kill this run
    killed = read_killed(file)
    write_killed(file, {path: n for path, n in killed.items() if n >= MOST_KILLED})
  return records


class RecordWriter:
  """Adds records to the file, or to this process's part of it, and notes what is tried.

  Args:
    file: The file that `begin` prepared.
    settings: The settings that it returned.

  Raises:
    UsageError: If the file cannot be written.
  """

  def __init__(self, file: Path, settings: Settings):
    self._attempts = Attempts(file)
    if jax.process_index():
      file = file.with_name(f"{file.name}.part{jax.process_index()}")
      _write(file, settings, [])
    self._file = file
    with writing(file):
      self._lines = open_lines(file)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._lines.close()
    self._attempts.end()

  def note(self, path: Path) -> None:
    """Notes that an image is tried, before it is read; see `attempts`."""
    with writing(self._file):
      self._attempts.note(path)

  def add(self, record: Record) -> None:
    """Adds a record at once: it is there even if the process is killed the next moment.

    In an object store, the records of the last seconds are not; see `open_lines`.
    """
    with writing(self._file):
      self._lines.write(json.dumps(record) + "\n")
      self._lines.flush()


def _read(file: Path) -> tuple[Settings, dict[str, Record]]:
  """Reads the file and its parts, but for lines that a killed process left half written."""
  former: Settings = {}
  records: dict[str, Record] = {}
  for source in filter(exists, [file, *_find_parts(file)]):
    lines = _read_lines(source)
    settings = next(lines, {}).get("settings")
    if not settings:
      raise UsageError(f"{source}: exists, and holds no records; give another name")
    _check_settings(source, settings, former or settings)
    former = settings
    for record in lines:
      path = record.get("path")
      # Scores win over an error, which may come from an earlier run.
      if path is not None and ("error" not in record or path not in records):
        records[path] = record
  return former, records


def _read_lines(file: Path) -> Iterator[dict[str, Any]]:
  if not file.is_file():  # opening a named pipe would wait for a writer
    return
  try:
    with io.TextIOWrapper(file.open("rb"), errors="replace") as lines:
      yield from map(_parse, lines)
  except OSError as error:
    raise UsageError(f"{file}: cannot be read: {tell_reason(error)}") from None


def _find_parts(file: Path) -> list[Path]:
  is_part = re.compile(re.escape(file.name) + r"\.part\d+").fullmatch
  return [other for other in list_folder(file.parent) if is_part(other.name)]


def _parse(line: str) -> dict[str, Any]:
  try:
    parsed = json.loads(line)
  except ValueError:
    return {}
  return parsed if isinstance(parsed, dict) else {}


def _check_settings(file: Path, found: Settings, wanted: Settings) -> None:
  for name in wanted | found:
    words = [json.dumps(settings.get(name)) for settings in (found, wanted)]
    if words[0] != words[1]:
      raise UsageError(
        f"{file}: written with {name} {words[0]}, not {words[1]}; give the same settings, or "
        "another file"
      )


def _write(file: Path, settings: Settings, records: Iterable[Record]) -> None:
  """Writes the whole file, or leaves the old one; then deletes the parts that it replaces."""
  with writing(file):
    with whole_file(file) as partial, partial.open("w") as lines:
      for line in ({"settings": settings}, *records):
        lines.write(json.dumps(line) + "\n")
    for part in _find_parts(file):
      part.unlink()

"""Checks and writes the files that a command leaves."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hvsjnd_jax.cli.command import STDOUT, UsageError, print_report
from hvsjnd_jax.data.atomic import whole_file
from hvsjnd_jax.data.images import place
from hvsjnd_jax.data.paths import is_remote, tell_reason


def make_folder(folder: Path) -> None:
  """Makes a folder for results, unless there is one; in an object store, tries to write to it.

  Raises:
    UsageError: If it cannot be made, is read-only, or is "-".
  """
  if folder == STDOUT:
    raise UsageError("-: expected the name of a folder; only --json can go to standard output")
  if is_remote(folder):
    trial = folder / f"trial-{uuid.uuid4().hex}"
    with writing(folder):
      trial.write_bytes(b"")
      trial.unlink()
    return
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UsageError(f"{folder}: no folder, and cannot be made one: {error.strerror}") from None
  if not os.access(folder, os.W_OK):
    raise UsageError(f"{folder}: a folder that cannot be written to")


def check_output(option: str, file: Path | None, *, inputs: Sequence[Path] = ()) -> None:
  """Refuses a file that could not be written at the end, before anything is computed.

  Args:
    option: The option that names it.
    file: The file; None where the option was not given. --json may be "-", which is stdout.
    inputs: The files that the command reads, which no result may replace.

  Raises:
    UsageError: If it is a folder, lies in one that cannot be made or is read-only, or is one
      of the inputs.
  """
  if file is None or (option == "--json" and file == STDOUT):
    return
  if file == STDOUT:
    raise UsageError(f"{option} -: expected a name; only --json can go to standard output")
  if file.is_dir():
    raise UsageError(f"{option} {file}: a folder; expected the name of a file")
  # What holds an image, and is no folder, is the video that it is a frame of.
  taken = (place(path) for image in inputs for path in (image, image.parent))
  if file.exists() and place(file) in taken:
    raise UsageError(f"{option} {file}: one of the files to read; choose another")
  if file.is_file() or not file.exists():  # /dev/stdout needs no folder
    make_folder(file.parent)


def write_json(file: Path, report: dict[str, Any]) -> None:
  """Writes a command's report: the whole file or none of it; "-" is stdout.

  Raises:
    UsageError: If it cannot be written.
  """
  if file == STDOUT:
    print_report(json.dumps(report, indent=2))
    return
  with writing(file), whole_file(file) as partial:
    partial.write_text(json.dumps(report, indent=2) + "\n")


@contextlib.contextmanager
def writing(file: Path) -> Iterator[None]:
  """Turns an error of the disk into a `UsageError` that names the file."""
  try:
    yield
  except OSError as error:
    raise UsageError(f"{file}: cannot be written: {tell_reason(error)}") from None

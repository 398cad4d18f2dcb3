"""Reads the next photograph while the current one is computed, under a progress bar."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from hvsjnd_jax.cli.photographs import Read
from hvsjnd_jax.data.images import ImageError, Picture


@contextlib.contextmanager
def read_ahead(
  paths: Sequence[Path], read: Read
) -> Iterator[Iterator[tuple[Path, Picture | ImageError]]]:
  """Iterates over paths and what they hold, and shows a progress bar on a terminal."""
  images = _read_ahead(paths, read)
  with (
    _stderr_of_python_alone(),
    tqdm(images, total=len(paths), unit="image", disable=None) as bar,  # None: not in a pipe
  ):
    yield iter(bar)


def _read_ahead(paths: Sequence[Path], read: Read) -> Iterator[tuple[Path, Picture | ImageError]]:
  """Yields each path and what it holds, while another thread reads the next."""
  if not paths:
    return
  with ThreadPoolExecutor(max_workers=1) as thread:
    upcoming = thread.submit(_try, read, paths[0])
    for path, following in zip(paths, [*paths[1:], None], strict=True):
      picture = upcoming.result()
      if following is not None:
        upcoming = thread.submit(_try, read, following)
      yield path, picture


def _try(read: Read, path: Path) -> Picture | ImageError:
  try:
    with _silent_libraries():
      return read(path)
  except ImageError as error:
    return error


@contextlib.contextmanager
def _silent_libraries() -> Iterator[None]:
  """Discards what C libraries write to stderr: libtiff comments on every damaged strip."""
  stderr = os.dup(2)
  try:
    with open(os.devnull, "w") as nowhere:
      os.dup2(nowhere.fileno(), 2)
    yield
  finally:
    os.dup2(stderr, 2)
    os.close(stderr)


@contextlib.contextmanager
def _stderr_of_python_alone() -> Iterator[None]:
  """Lets Python's own messages reach stderr while another thread silences the libraries'."""
  if sys.stderr is not sys.__stderr__:  # already replaced, as in tests
    yield
    return
  with os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace") as sys.stderr:
    try:
      yield
    finally:
      sys.stderr = sys.__stderr__

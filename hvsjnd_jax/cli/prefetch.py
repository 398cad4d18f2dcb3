"""Reads the next photograph while the current one is computed, under a progress bar."""

import contextlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from hvsjnd_jax.cli.photographs import Read
from hvsjnd_jax.data.images import ImageError, read_image
from hvsjnd_jax.ops.types import Pixels


@contextlib.contextmanager
def progress(
  files: list[Path], *, read: Read = read_image
) -> Iterator[Iterator[tuple[Path, Pixels | ImageError]]]:
  """Each file and what it holds, under a progress bar; the next is read on the way."""
  images = _read_ahead(files, read)
  with (
    _stderr_of_python_alone(),
    tqdm(images, total=len(files), unit="image", disable=None) as bar,  # not in a pipe
  ):
    yield iter(bar)


def _read_ahead(files: list[Path], read: Read) -> Iterator[tuple[Path, Pixels | ImageError]]:
  """Each file and what it holds; the next is being read when one is given out."""
  if not files:
    return
  with ThreadPoolExecutor(max_workers=1) as thread:
    upcoming = thread.submit(_try, read, files[0])
    for file, following in zip(files, [*files[1:], None], strict=True):
      pixels = upcoming.result()
      if following is not None:
        upcoming = thread.submit(_try, read, following)
      yield file, pixels


def _try(read: Read, file: Path) -> Pixels | ImageError:
  try:
    with _silent_libraries():
      return read(file)
  except ImageError as error:
    return error


@contextlib.contextmanager
def _silent_libraries() -> Iterator[None]:
  """Discards what C libraries write: libtiff comments on every damaged strip."""
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
  """Lets Python's own words reach stderr while another thread silences the libraries'."""
  if sys.stderr is not sys.__stderr__:  # somebody's own already
    yield
    return
  with os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace") as sys.stderr:
    try:
      yield
    finally:
      sys.stderr = sys.__stderr__

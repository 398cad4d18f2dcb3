"""Paths on disks and in Google Cloud Storage (gs://), which has objects in place of files.

Both are used through the methods of `pathlib.Path`, which etils' epath has for gs:// as well. What
differs is kept here, in `atomic` and in `lines`: an object is there whole or not at all, cannot be
added to, and lies in no folder that must be made. Other stores (s3://) are refused, because Orbax
cannot write checkpoints there.
"""

import functools
import importlib.util
import logging
import os
from pathlib import Path
from typing import Any, cast

from hvsjnd_jax.ops.errors import HVSJNDError

_SCHEME = "gs://"

# The packages whose errors are about the storage, and not about this program.
_STORAGE_PACKAGES = ("gcsfs", "google", "aiohttp")


class PathError(HVSJNDError):
  """A path cannot be used. The message says why, and what to do."""


def parse_path(path: str | os.PathLike[str]) -> Path:
  """Makes a path on a disk, or in an object store where `path` begins with gs://.

  The latter is an `epath.Path`, which has the methods of a `Path`. It is typed as one, so that code
  that reads and writes files need not tell them apart.

  Args:
    path: What a user gave. A `Path` of a gs:// address, which has lost a slash, is mended.

  Raises:
    PathError: If the address is that of another store, or the package for gs:// is missing.
  """
  text = os.fspath(path)
  if text.startswith("gs:/") and not text.startswith(_SCHEME):
    text = _SCHEME + text.removeprefix("gs:/").lstrip("/")
  if not text.startswith(_SCHEME):
    if "://" in text:
      raise PathError(f"{text}: expected a path on a disk or a gs:// address; mount it as a folder")
    return Path(path)
  if not text.removeprefix(_SCHEME).strip("/"):
    raise PathError(f"{text}: expected a bucket, as in gs://BUCKET/FOLDER")
  if importlib.util.find_spec("gcsfs") is None:
    raise PathError(f"{text}: gs:// needs another package: pip install 'hvsjnd_jax[gcs]'")
  _prepare_storage()
  from etils import epath

  return cast(Path, epath.Path(text))


@functools.cache
def _prepare_storage() -> None:
  from fsspec.config import conf

  # It would print a traceback of what it raises as well.
  logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
  os.environ.setdefault("EPATH_USE_TF", "false")  # epath would else prefer TensorFlow
  # Other processes write to the same folders, and Orbax itself not only through gcsfs.
  conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)


def is_remote(path: Path) -> bool:
  """Whether a path that `parse_path` made is in an object store."""
  return str(path).startswith(_SCHEME)


def exists(path: Path) -> bool:
  """Whether there is a file or folder; no name is too long to ask."""
  return path.exists() if is_remote(path) else os.path.exists(path)


def make_folder(folder: Path) -> None:
  """Makes a folder and those above it; object stores need none."""
  if not is_remote(folder):
    folder.mkdir(parents=True, exist_ok=True)


def create(path: Path, data: bytes) -> None:
  """Writes an object that must not be there yet: of two who try, one succeeds.

  Raises:
    FileExistsError: If it is there.
  """
  _filesystem().pipe_file(str(path), data, mode="create")


def measure(path: Path) -> int | None:
  """Returns the size of an object in bytes; None where there is none."""
  try:
    return int(_filesystem().info(str(path))["size"])
  except FileNotFoundError:
    return None


def list_folder(folder: Path) -> list[Path]:
  """Lists what a folder holds; in an object store, one of which nothing begins is empty."""
  try:
    return list(folder.iterdir())
  except FileNotFoundError:
    if is_remote(folder):
      return []
    raise


def list_objects(folder: Path) -> list[Path]:
  """Lists all objects below a folder of an object store."""
  return [parse_path(_SCHEME + name) for name in _filesystem().find(str(folder))]


def describe_objects(folder: Path) -> dict[str, tuple[int, str]]:
  """Tells the size and the hash (CRC32C) of all objects below a folder, by their names there."""
  found = _filesystem().find(str(folder), detail=True)
  root = str(folder).removeprefix(_SCHEME)
  return {
    name.removeprefix(f"{root}/"): (int(about["size"]), about["crc32c"])
    for name, about in sorted(found.items())
  }


def fetch(path: Path, file: Path) -> None:
  """Copies an object to a file, in parts, so that it may be larger than the memory."""
  _filesystem().get_file(str(path), str(file))


def send(file: Path, path: Path) -> None:
  """Copies a file to an object, in parts."""
  _filesystem().put_file(str(file), str(path))


def _filesystem() -> Any:
  import fsspec

  return fsspec.filesystem("gcs")


def tell_reason(error: OSError) -> str:
  """Says why a path could not be used; the errors of object stores do not always."""
  if error.strerror:
    return error.strerror
  if isinstance(error, FileNotFoundError):
    return "No such file or directory"
  return _tell_in_a_line(error)


def explain_storage_error(error: Exception) -> str | None:
  """Says in a line what an object store answered; None where the error is none of its."""
  if type(error).__module__.partition(".")[0] not in _STORAGE_PACKAGES:
    return None
  return f"Google Cloud Storage: {_tell_in_a_line(error)}"


def _tell_in_a_line(error: Exception) -> str:
  words = " ".join(str(error).split()) or type(error).__name__
  if any(word in words for word in ("401", "nonymous caller", "redentials")):
    words += "; gcloud auth application-default login gives access"
  return words

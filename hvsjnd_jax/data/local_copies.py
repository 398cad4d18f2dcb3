"""Copies on this machine of folders in an object store, for readers that know disks alone.

The array_record files of tiles and of TensorFlow datasets are read so.
"""

import hashlib
import json
import shutil
from pathlib import Path

from tqdm import tqdm

from hvsjnd_jax.data.paths import describe_objects, fetch, is_remote, tell_reason
from hvsjnd_jax.data.photo_source import DataError
from hvsjnd_jax.ops.cache_folder import find_cache_folder


def copy_here(folder: Path) -> Path:
  """Copies a folder of an object store to the user's cache, where it is not there yet.

  The copy goes by the names, sizes and hashes of the objects, so that a folder that has changed is
  copied anew, and one that broke off goes on. Processes of one machine wait for the first of them.

  Args:
    folder: The folder; one on a disk is given back as it is.

  Raises:
    DataError: If there is no such folder, or no room for it here.
  """
  import fcntl  # Windows has none

  if not is_remote(folder):
    return folder
  objects = describe_objects(folder)
  if not objects:
    raise DataError(f"no such file or folder: {folder}")
  key = hashlib.sha256(json.dumps(objects).encode()).hexdigest()[:16]
  copy = find_cache_folder() / "copies" / f"{folder.name}-{key}"
  try:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with copy.with_name(f"{copy.name}.lock").open("w") as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      _fill(copy, folder, {name: size for name, (size, _) in objects.items()})
  except OSError as error:
    raise DataError(
      f"{folder} cannot be copied to {copy}: {tell_reason(error)}; XDG_CACHE_HOME names "
      "another place"
    ) from None
  return copy


def _fill(copy: Path, folder: Path, sizes: dict[str, int]) -> None:
  """Copies the objects that are not there yet."""
  missing = {name: size for name, size in sizes.items() if not (copy / name).exists()}
  if not missing:
    return
  copy.mkdir(exist_ok=True)
  free, wanted = shutil.disk_usage(copy).free, sum(missing.values())
  if wanted > free:
    raise DataError(
      f"{folder} needs {wanted / 1e9:.1f} GB in {copy.parent}, which has {free / 1e9:.1f}: "
      "XDG_CACHE_HOME names another place"
    )
  part = copy.with_name(f"{copy.name}.part")
  with tqdm(total=wanted, unit="B", unit_scale=True, desc=f"copying {folder}", disable=None) as bar:
    for name, size in missing.items():
      fetch(folder / name, part)
      (copy / name).parent.mkdir(parents=True, exist_ok=True)
      part.rename(copy / name)
      bar.update(size)

"""Tells whole checkpoints from unfinished ones where a run's folder was copied.

Orbax marks a finished save on a disk by the folder's name, and in an object store by an object in
it. A run that is copied from one to the other lacks the mark of the other side: in the object store
its checkpoints would count as unfinished, and be deleted; on a disk unfinished ones would count as
whole. What was saved tells better: the hashes of all arrays, and the times that Orbax notes at the
begin of a save and at its end.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from hvsjnd_jax.data.paths import is_remote

_MARK = "commit_success.txt"

_TIMES = "_CHECKPOINT_METADATA"


def settle_steps(folder: Path, *, hashes: str, notes: str, read_only: bool) -> Path | None:
  """Deletes this run's own unfinished saves, and marks those of its copied ones that are whole.

  Nothing else is deleted: not what cannot be told, nor what is in part deleted or copied.

  Args:
    folder: The checkpoints.
    hashes: The item that holds the hashes of all others' arrays.
    notes: The other item without arrays.
    read_only: Whether to delete nothing.

  Returns:
    A step newer than all that are whole which is no whole one; None if there is none.
  """
  if not folder.is_dir():
    return None
  steps = sorted((step for step in folder.iterdir() if step.name.isdecimal()), key=_number)
  newest, doubtful = 0, None
  for step in steps:
    if (step / _MARK).exists():
      newest = _number(step)
      continue
    unfinished = _is_unfinished(step)
    if not (unfinished or is_remote(step)):
      continue  # on a disk, it counts as finished, and is checked when it is restored
    if _is_whole(step, hashes, notes):
      newest = _number(step)
      if is_remote(step):
        _mark(step)
    elif not unfinished:
      doubtful = step
    elif not read_only:
      _delete(step)
  return doubtful if doubtful and _number(doubtful) > newest else None


def _number(step: Path) -> int:
  return int(step.name)


def _is_unfinished(step: Path) -> bool:
  """Whether Orbax has noted that the save began, and not that it ended."""
  try:
    times = json.loads((step / _TIMES).read_bytes())
  except (OSError, ValueError):
    return False
  return bool(times.get("init_timestamp_nsecs")) and not times.get("commit_timestamp_nsecs")


def _delete(step: Path) -> None:
  if is_remote(step):
    cast(epath.Path, step).rmtree(missing_ok=True)
  else:
    shutil.rmtree(step)


def _is_whole(step: Path, hashes: str, notes: str) -> bool:
  """Whether the notes are there, and every array that has a hash, with that hash."""
  try:
    json.loads((step / notes / "metadata").read_bytes())
    saved: dict[str, Any] = json.loads((step / hashes / "metadata").read_bytes())
    return all(
      _hash_arrays(step / item) == sorted(leaves.values()) for item, leaves in saved.items()
    )
  except Exception:  # Orbax raises bare Exceptions too
    return False


def _hash_arrays(item: Path) -> list[str]:
  """Hashes the arrays of an item, which are read without knowing their tree."""
  handler = ocp.PyTreeCheckpointHandler()
  tree: Any = handler.metadata(epath.Path(item)).tree
  to_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
  arrays = handler.restore(
    epath.Path(item), args=ocp.args.PyTreeRestore(tree, restore_args=to_numpy)
  )
  return sorted(
    hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest() for leaf in jax.tree.leaves(arrays)
  )


def _mark(step: Path) -> None:
  """Marks a save as finished, as Orbax does: its items, and then itself."""
  for item in [*(part for part in step.iterdir() if part.is_dir()), step]:
    (item / _MARK).write_text(f"Copied; found whole by its hashes: {item}")

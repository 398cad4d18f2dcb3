"""Checkpoints of a stage: Orbax, with a hash of every array beside them."""

import hashlib
import re
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from hvsjnd_jax.sharding import own_copy

PyTree = Any

_HASHES = "sha256"


class CheckpointError(Exception):
  """A checkpoint that cannot be restored; the message names it and offers what can be done."""


class Checkpoints:
  """The checkpoints of one stage, written in the background.

  A checkpoint holds named pytrees, which can be restored one without the other, and the
  SHA-256 of every leaf: Orbax does not notice a flipped bit. All processes of a run make
  the same calls; the folder must be one that all of them see.

  Args:
    folder: Where they live; made if missing.
    keep: How many of the newest stay.
    keep_every_steps: Those of every so many steps stay for good; 0: none.
  """

  def __init__(self, folder: Path, *, keep: int = 3, keep_every_steps: int = 0):
    kept: list[policies.PreservationPolicy] = [policies.LatestN(keep)]
    if keep_every_steps:
      kept.append(policies.EveryNSteps(keep_every_steps))
    self._folder = folder.absolute()  # Orbax takes no others
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(kept)
      ),
    )

  def __enter__(self) -> Self:
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    """Waits until everything is written."""
    self._manager.wait_until_finished()
    self._manager.close()

  def latest_step(self) -> int | None:
    """The step of the newest checkpoint; None if there is none."""
    return self._manager.latest_step()

  def save(self, step: int, /, **items: PyTree) -> None:
    """Saves the named pytrees as of `step`, unless that has been done."""
    if self.latest_step() == step:
      return
    saved: dict[str, Any] = {name: ocp.args.StandardSave(item) for name, item in items.items()}
    hashes = {name: _hash_leaves(item) for name, item in items.items()}
    saved[_HASHES] = ocp.args.JsonSave(hashes)
    # Forced: whether to save was decided, for all processes alike, before.
    self._manager.save(step, args=ocp.args.Composite(**saved), force=True)

  def restore(self, step: int, /, **like: PyTree) -> dict[str, PyTree]:
    """The named pytrees saved at `step`, in the structure and placement of those given.

    Raises:
      CheckpointError: If a file of it cannot be read, or a leaf's hash is not the one saved.
    """
    try:
      return self._read(step, like)
    except Exception as error:  # Orbax raises bare Exception too
      raise CheckpointError(
        f"{self._folder / str(step)} cannot be restored: {_reason(error)}. "
        f"{self._offer(step, like)}"
      ) from None

  def _read(self, step: int, like: dict[str, PyTree]) -> dict[str, PyTree]:
    wanted: dict[str, Any] = {
      name: ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, item))
      for name, item in like.items()
    }
    wanted[_HASHES] = ocp.args.JsonRestore()
    restored = self._manager.restore(step, args=ocp.args.Composite(**wanted))
    for name in like:
      saved, found = restored[_HASHES][name], _hash_leaves(restored[name])
      damaged = sorted(leaf for leaf in saved if found.get(leaf) != saved[leaf])
      if damaged:
        raise ValueError(f"{name}{damaged[0]} is not what was saved: its SHA-256 differs")
    return {name: restored[name] for name in like}

  def _offer(self, step: int, like: dict[str, PyTree]) -> str:
    """What to do: which older checkpoint is whole, and how to go on from it."""
    for older in sorted((s for s in self._manager.all_steps() if s < step), reverse=True):
      try:
        self._read(older, like)
      except Exception:
        continue
      return f"That of step {older} is whole: delete this folder, and the run goes on from there."
    return "No older one is whole: choose another --workdir, or delete the stage's folder."


def _hash_leaves(tree: PyTree) -> dict[str, str]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(own_copy(tree))
  return {
    jax.tree_util.keystr(path): hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
    for path, leaf in leaves
  }


def _reason(error: Exception) -> str:
  """The first line of an error, and the file that it names further down."""
  lines = str(error).strip().splitlines() or [type(error).__name__]
  files = re.findall(r'[\'"](/[^\'"]+)[\'"]', str(error))
  first = lines[0].rstrip(".:")
  return first if not files or files[0] in first else f"{first}, {files[0]}"

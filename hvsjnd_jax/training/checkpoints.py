"""Checkpoints of a stage, written by Orbax, with a hash of every array beside them."""

import gc
import hashlib
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.runtime.sharding import PyTree, local_copy

_HASHES = "sha256"

_NOTES = "notes"

# How long Orbax's other reads go on after one of them has failed.
_DROPPED_READS_SECONDS = 0.5


class CheckpointError(HVSJNDError):
  """A checkpoint cannot be read or written. The message names it, and says what to do."""


class Checkpoints:
  """The checkpoints of one stage, which are written in the background.

  A checkpoint holds named pytrees, which can be restored independently, notes as JSON, and
  the SHA-256 of every leaf, because Orbax does not notice a flipped bit. All processes of a
  run make the same calls on a folder that all of them see.

  Args:
    folder: The folder of the checkpoints; made if missing.
    keep: How many of the newest are kept.
    keep_every_steps: Also keeps, for good, those of every so many steps; 0: none.
    read_only: Whether to delete nothing, because a run may be writing to the folder.
  """

  def __init__(
    self, folder: Path, *, keep: int = 3, keep_every_steps: int = 0, read_only: bool = False
  ):
    kept: list[policies.PreservationPolicy] = [policies.LatestN(keep)]
    if keep_every_steps:
      kept.append(policies.EveryNSteps(keep_every_steps))
    self._folder = folder.absolute()  # Orbax refuses relative paths
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(kept),
        # Deletes the unfinished saves of a killed run. (Orbax's own read_only only warns.)
        cleanup_tmp_directories=not read_only,
      ),
    )

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
    """Waits until everything is written, and closes the checkpoints."""
    try:
      self.wait()
    except CheckpointError:
      if error is None:  # an earlier error says more
        raise
    finally:
      self._manager.close()

  def wait(self) -> None:
    """Waits until everything is written.

    Raises:
      CheckpointError: If a save in the background failed.
    """
    try:
      self._manager.wait_until_finished()
    except Exception as error:
      raise self._cannot_write(error) from None

  def latest_step(self) -> int | None:
    """Returns the step of the newest checkpoint; None if there is none."""
    return self._manager.latest_step()

  def save(self, step: int, notes: dict[str, Any], /, **items: PyTree) -> None:
    """Saves the notes and the named pytrees of a step, unless it is saved already.

    Orbax saves no pytree without leaves, such as what is frozen where there is no HVS-SD; it is
    left out, and restored as it is given.

    Raises:
      CheckpointError: If this, or an earlier save in the background, cannot be written.
    """
    if self.latest_step() == step:
      return
    items = {name: item for name, item in items.items() if jax.tree.leaves(item)}
    saved: dict[str, Any] = {name: ocp.args.StandardSave(item) for name, item in items.items()}
    hashes = {name: _hash_leaves(item) for name, item in items.items()}
    saved |= {_HASHES: ocp.args.JsonSave(hashes), _NOTES: ocp.args.JsonSave(notes)}
    # Forced, because the caller has decided, for all processes alike, to save this step.
    try:
      self._manager.save(step, args=ocp.args.Composite(**saved), force=True)
    except Exception as error:
      raise self._cannot_write(error) from None

  def _cannot_write(self, error: Exception) -> CheckpointError:
    return CheckpointError(f"{self._folder} cannot be written to: {_reason(error)}")

  def restore(self, step: int, /, **like: PyTree) -> dict[str, PyTree]:
    """Restores the named pytrees of a step, in the structure and placement of those given.

    Raises:
      CheckpointError: If a file cannot be read, or a leaf's hash is not the one saved.
    """
    filled = {name: item for name, item in like.items() if jax.tree.leaves(item)}
    with _silent_threads():
      restored, reason = self._try_restore(step, filled)
      if restored is not None:
        return like | restored
      advice = self._advise(step, filled)
      # When one read fails, Orbax abandons the others, which end a little later with errors.
      gc.collect()
      time.sleep(_DROPPED_READS_SECONDS)
    raise CheckpointError(f"{self._folder / str(step)} cannot be restored: {reason}. {advice}")

  def read_notes(self, step: int) -> dict[str, Any]:
    """Reads the notes of a step.

    Raises:
      CheckpointError: If they cannot be read.
    """
    try:
      return self._manager.restore(
        step, args=ocp.args.Composite(**{_NOTES: ocp.args.JsonRestore()})
      )[_NOTES]
    except Exception as error:
      raise CheckpointError(
        f"{self._folder / str(step)} cannot be restored: {_NOTES}: {_reason(error)}. "
        f"{self._advise(step, {})}"
      ) from None

  def _try_restore(
    self, step: int, like: dict[str, PyTree]
  ) -> tuple[dict[str, PyTree] | None, str]:
    """Returns what was saved or, where it is damaged, None and the reason."""
    wanted: dict[str, Any] = {
      name: ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, item))
      for name, item in like.items()
    }
    restored: dict[str, Any] = {}
    # The items are restored one by one, so that the reason can name the damaged one.
    for name, args in {_HASHES: ocp.args.JsonRestore(), **wanted}.items():
      try:
        found = self._manager.restore(step, args=ocp.args.Composite(**{name: args}))
        restored[name] = found[name]
      except Exception as error:  # Orbax raises bare Exceptions too
        error.__traceback__ = error.__context__ = error.__cause__ = None
        return None, f"{name}: {_reason(error)}"
    saved = restored.pop(_HASHES)
    for name, item in restored.items():
      hashes = _hash_leaves(item)
      if damaged := sorted(leaf for leaf in saved[name] if hashes.get(leaf) != saved[name][leaf]):
        return None, f"{name}{damaged[0]} is not what was saved: its SHA-256 differs"
    return restored, ""

  def _advise(self, step: int, like: dict[str, PyTree]) -> str:
    """Says which older checkpoint is whole, and how to go on from it."""
    damaged = [str(step)]
    for older in sorted((s for s in self._manager.all_steps() if s < step), reverse=True):
      if self._try_restore(older, like)[0] is not None:
        folders = " and ".join(sorted(damaged))
        return f"That of step {older} is whole: to go on from there, delete {folders}."
      damaged.append(str(older))
    return "No older one is whole: choose another --workdir, or delete the stage's folder."


@contextmanager
def _silent_threads() -> Iterator[None]:
  """Silences errors of threads and finalisers, for a while."""
  hooks = sys.unraisablehook, sys.excepthook
  silence()
  try:
    yield
  finally:
    sys.unraisablehook, sys.excepthook = hooks


def silence() -> None:
  """Silences errors of threads and finalisers from here on.

  The errors of reads that Orbax abandons may surface as late as at exit: a command that is
  about to end with a CheckpointError calls this.
  """
  sys.unraisablehook = sys.excepthook = lambda *_: None


def _hash_leaves(tree: PyTree) -> dict[str, str]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(local_copy(tree))
  return {
    jax.tree_util.keystr(path): hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
    for path, leaf in leaves
  }


def _reason(error: Exception) -> str:
  """Returns an error in few words, and the first file that it names."""
  text = str(error).strip() or type(error).__name__
  files = re.findall(r"/[^\s'\"\[\]{}]+", text)
  words = re.split(r"\n| \[| index: \(|See full|<bound", text)[0].strip(" .:")
  return words if not files or files[0] in words else f"{words}: {files[0]}"

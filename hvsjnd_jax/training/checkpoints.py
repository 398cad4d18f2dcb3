"""Checkpoints of a stage, written by Orbax, with a hash of every array beside them."""

import gc
import glob
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
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from hvsjnd_jax.data.paths import is_remote
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.runtime.sharding import PyTree, local_copy
from hvsjnd_jax.training.copied_saves import settle_steps
from hvsjnd_jax.training.saved_types import OtherTypesError, check_types

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

  Raises:
    CheckpointError: If the newest one was copied in part, or Orbax cannot save to such a path.
  """

  def __init__(
    self, folder: Path, *, keep: int = 3, keep_every_steps: int = 0, read_only: bool = False
  ):
    kept: list[policies.PreservationPolicy] = [policies.LatestN(keep)]
    if keep_every_steps:
      kept.append(policies.EveryNSteps(keep_every_steps))
    if glob.has_magic(str(folder)) and not read_only:
      # It would look for each process's part of a save by a pattern that begins with the path, find
      # none, and call the save finished.
      raise CheckpointError(
        f"{folder}: Orbax cannot save where a folder's name holds *, ? or [; choose another "
        "--workdir"
      )
    # Orbax refuses relative paths.
    self._folder = folder if is_remote(folder) else folder.absolute()
    self._settle(read_only=read_only)
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(kept),
        # Deletes the unfinished saves of a killed run. (Orbax's own read_only only warns.)
        # In an object store it would take copied ones for such; `_settle` tells them apart.
        cleanup_tmp_directories=not read_only and not is_remote(folder),
      ),
    )

  def _settle(self, *, read_only: bool) -> None:
    doubtful = None
    if not jax.process_index():
      try:
        doubtful = settle_steps(self._folder, hashes=_HASHES, notes=_NOTES, read_only=read_only)
      except OSError as error:
        raise self._cannot_write(error) from None
    if doubtful:
      raise CheckpointError(
        f"{doubtful} is no whole checkpoint: it may be a copy that did not end. Copy it again, or "
        "move it elsewhere."
      )
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices(f"{self._folder} is settled")

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
      CheckpointError: If a file cannot be read, a leaf's hash is not the one saved, or names,
        shapes or types are others.
    """
    filled = {name: item for name, item in like.items() if jax.tree.leaves(item)}
    with _silent_threads():
      try:
        return like | self._restore_items(step, filled)
      except _Fault as error:
        fault = error.with_traceback(None)  # which would keep Orbax's reads alive
      advice = self._advise(step, filled, fault)
      # When one read fails, Orbax abandons the others, which end a little later with errors.
      gc.collect()
      time.sleep(_DROPPED_READS_SECONDS)
    raise CheckpointError(f"{self._folder / str(step)} cannot be restored: {fault}. {advice}")

  def read_notes(self, step: int) -> dict[str, Any]:
    """Reads the notes of a step.

    Raises:
      CheckpointError: If they cannot be read.
    """
    try:
      return self._read(step, _NOTES, ocp.args.JsonRestore())
    except _Fault as fault:
      raise CheckpointError(
        f"{self._folder / str(step)} cannot be restored: {fault}. {self._advise(step, {}, fault)}"
      ) from None

  def _restore_items(self, step: int, like: dict[str, PyTree]) -> dict[str, PyTree]:
    hashes = self._read(step, _HASHES, ocp.args.JsonRestore())
    restored = {}
    # The items are restored one by one, so that the reason can name the damaged one.
    for name, item in like.items():
      self._check_types(step, name, item)
      target = jax.tree.map(ocp.utils.to_shape_dtype_struct, item)
      restored[name] = self._read(step, name, ocp.args.StandardRestore(target))
      _check_hashes(name, restored[name], hashes)
    return restored

  def _check_types(self, step: int, name: str, like: PyTree) -> None:
    try:
      check_types(self._folder / str(step) / name, like)
    except OtherTypesError as error:
      raise _Fault(f"{name}.{error}", of_another_version=True) from None
    except Exception as error:
      raise _Fault(f"{name}: {_reason(error)}") from None

  def _read(self, step: int, name: str, args: Any) -> Any:
    try:
      return self._manager.restore(step, args=ocp.args.Composite(**{name: args}))[name]
    except Exception as error:  # Orbax raises bare Exceptions too
      error.__traceback__ = error.__context__ = error.__cause__ = None
      raise _Fault(f"{name}: {_reason(error)}") from None

  def _advise(self, step: int, like: dict[str, PyTree], fault: "_Fault") -> str:
    """Says how to go on, by an older checkpoint where one is whole.

    A fault may lie in the disk, the network or the rights, and the checkpoint be sound: nobody is
    told to delete it.
    """
    if not (self._folder / str(step)).exists():
      return "It was removed while it was read, by a run that goes on: give the command again."
    if fault.of_another_version:
      return (
        "It need not be damaged, but was saved by another version of hvsjnd_jax or of Flax: go on "
        "with that version, or choose another --workdir."
      )
    faulty = [str(step)]
    for older in sorted((s for s in self._manager.all_steps() if s < step), reverse=True):
      try:
        self._read(older, _NOTES, ocp.args.JsonRestore())
        self._restore_items(older, like)
      except _Fault:
        faulty.append(str(older))
        continue
      whole = f"That of step {older} is whole" if like else f"Step {older} has its {_NOTES}"
      return f"{whole}: to go on from there, move {' and '.join(sorted(faulty))} elsewhere."
    return "No older one can be restored either: choose another --workdir."


class _Fault(Exception):  # noqa: N818
  """Why a step cannot be restored."""

  def __init__(self, reason: str, *, of_another_version: bool = False):
    super().__init__(reason)
    self.of_another_version = of_another_version


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


def _check_hashes(name: str, item: PyTree, hashes: dict[str, Any]) -> None:
  found, saved = _hash_leaves(item), hashes.get(name, {})
  if differing := sorted(leaf for leaf in found if found[leaf] != saved.get(leaf)):
    raise _Fault(f"{name}{differing[0]} is not what was saved: its SHA-256 differs")


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

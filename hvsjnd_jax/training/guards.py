"""Refuses runs that must not start or go on."""

import json
import zlib
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from flax import traverse_util
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from hvsjnd_jax.data.paths import is_remote, tell_reason
from hvsjnd_jax.data.photo_source import PhotoSource
from hvsjnd_jax.training.checkpoints import Checkpoints
from hvsjnd_jax.training.config import Stage, StageConfig
from hvsjnd_jax.training.lease import Lease
from hvsjnd_jax.training.running_means import NotFiniteError, RunningMeans
from hvsjnd_jax.training.workdir import TrainError

# Settings that may differ when a run goes on, because none of them changes a step.
_MAY_CHANGE = (
  "num_steps",
  "log_every_steps",
  "sheet_every_steps",
  "checkpoint_every_steps",
  "keep_checkpoints",
  "keep_every_steps",
  "data.images",  # the folder may move; `check_same_photographs` checks what it holds
  "data.threads",
  "data.workers",
  "vgg16",  # these folders may move too; the hashes of what they hold are compared
  "classifier",
)

# How many photographs a message names.
_NAMED_PHOTOGRAPHS = 4


def check_batch(settings: StageConfig, stage: Stage, mesh: Mesh) -> None:
  """Refuses a batch that the devices cannot share evenly."""
  shares = mesh.size * settings.accumulation_steps
  if settings.batch_size % shares:
    raise TrainError(
      f"config.{stage}.batch_size is {settings.batch_size}, which {mesh.size} devices times "
      f"{settings.accumulation_steps} accumulation_steps do not divide; choose a multiple of "
      f"{shares}"
    )


def check_same_everywhere(settings: dict[str, Any], step: int) -> None:
  """Refuses processes that differ, because in JAX they would wait for each other forever."""
  if _differs(step, json.dumps(settings, sort_keys=True)):
    raise TrainError(
      f"the processes differ in their settings or in the step they stand at (here {step}): "
      "give all the same command, and a --workdir that all of them see"
    )


def check_same_photographs_everywhere(photos: PhotoSource) -> None:
  """Refuses processes that see different photographs, whose batches would mix the crops of both."""
  if _differs(photos.fingerprint()):
    raise TrainError(
      f"the processes see different photographs (here {photos.fingerprint()}): give all of them "
      "the same; a copy on one host may be old, or not be whole"
    )


def _differs(*values: object) -> bool:
  """Tells every process alike whether any two of them have different values."""
  digest = np.uint32(zlib.crc32(repr(values).encode()))
  try:
    multihost_utils.assert_equal(digest)
  except AssertionError:
    return True
  return False


def check_same_settings(settings: dict[str, Any], saved: dict[str, Any], folder: Path) -> None:
  """Refuses to go on with settings that the checkpoints were not made with.

  A run that does not name a setting of today was made by another version, whose defaults and
  objectives may have been others.
  """
  saved, given = (traverse_util.flatten_dict(config, sep=".") for config in (saved, settings))
  given = {
    name: value
    for name, value in given.items()
    if name.removeprefix(f"{folder.name}.") not in _MAY_CHANGE
  }
  if unknown := sorted(given.keys() - saved.keys()):
    raise TrainError(
      f"{folder} holds a run of another version of hvsjnd_jax, which did not know "
      f"{', '.join(unknown)}. Go on with that version, or choose another --workdir."
    )
  changed = [
    f"{name} was {saved[name]!r} and is {value!r}"
    for name, value in given.items()
    if saved[name] != value
  ]
  if changed:
    raise TrainError(
      f"{folder} holds a run with other settings: {'; '.join(changed)}. "
      "Give it the same settings, or choose another --workdir."
    )


def check_same_width(saved: int | None, wanted: int | None, folder: Path) -> None:
  """Refuses checkpoints whose HVS-SD has another width than the run's."""
  if saved != wanted:
    raise TrainError(
      f"the HVS-SD of {folder} has {saved} channels, and this run's {wanted}: give it "
      f"--config.hvs_sd.channels={saved}, or choose another --workdir"
    )


def check_same_photographs(photos: PhotoSource, saved: str, folder: Path) -> None:
  """Refuses to go on with photographs that the checkpoints were not made with."""
  if photos.fingerprint() != saved:
    raise TrainError(
      f"{folder} was trained on other photographs: {saved}, not {photos.fingerprint()}. "
      "Give it the same, or choose another --workdir."
    )


def check_not_past_the_end(step: int, settings: StageConfig, folder: Path) -> None:
  """Refuses a run that has taken more steps than are asked for."""
  if step > settings.num_steps:
    raise TrainError(f"{folder} stands at step {step}, past num_steps {settings.num_steps}")


def check_finite(means: RunningMeans, photos: PhotoSource, checkpoints: Checkpoints) -> None:
  """Waits for every step so far, and stops the run at a term that is not finite."""
  try:
    means.read()
  except NotFiniteError as error:
    names = sorted({photos.name(int(index)) for index in error.photos})
    shown = ", ".join(names[:_NAMED_PHOTOGRAPHS])
    if more := len(names[_NAMED_PHOTOGRAPHS:]):
      shown += f" and {more} more"
    checkpoints.wait()
    latest = checkpoints.latest_step()
    kept = f"the checkpoint of step {latest} is kept" if latest else "no checkpoint was made yet"
    raise TrainError(
      f"{', '.join(error.names)} not finite {error.when}, on a batch of {shown}; {kept}. "
      "A lower learning_rate may help."
    ) from None


def hold_folder(folder: Path) -> TextIO | Lease:
  """Keeps other runs out of a stage's folder, until it is closed or the process ends."""
  import fcntl  # Windows has none

  try:
    if is_remote(folder):
      return Lease(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("w")
  except OSError as error:
    raise TrainError(f"{folder} cannot be written to: {tell_reason(error)}") from None
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    lock.close()
    raise TrainError(
      f"another run trains in {folder}: wait for it, or choose another --workdir (the processes "
      "of one run need --multihost)"
    ) from None
  return lock

"""Refuses runs that must not start or go on."""

import fcntl
import json
import zlib
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from flax import traverse_util
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from hvsjnd_jax.training.config import Stage, StageConfig
from hvsjnd_jax.training.workdir import TrainError

# What may differ when a run goes on: where it ends, where its photographs lie, and what it
# leaves to be looked at.
_MAY_CHANGE = (
  "num_steps",
  "log_every_steps",
  "sheet_every_steps",
  "checkpoint_every_steps",
  "keep_checkpoints",
  "keep_every_steps",
  "data.images",
  "data.threads",
  "vgg16",  # where the folders are; what they hold must stay
  "classifier",
)


def check_batch(settings: StageConfig, stage: Stage, mesh: Mesh) -> None:
  """Raises a TrainError where the devices cannot share a batch evenly."""
  shares = mesh.size * settings.accumulation_steps
  if settings.batch_size % shares:
    raise TrainError(
      f"config.{stage}.batch_size is {settings.batch_size}, which {mesh.size} devices times "
      f"{settings.accumulation_steps} accumulation_steps do not divide; choose a multiple of "
      f"{shares}"
    )


def check_same_run(settings: dict[str, Any], notes: dict[str, Any], folder: Path) -> None:
  """Refuses to go on with settings that the checkpoints were not made with."""
  saved, given = (
    traverse_util.flatten_dict(config, sep=".") for config in (notes["config"], settings)
  )
  changed = [
    f"{name} was {saved.get(name)!r} and is {value!r}"
    for name, value in given.items()
    if name.removeprefix(f"{folder.name}.") not in _MAY_CHANGE and saved.get(name) != value
  ]
  if changed:
    raise TrainError(
      f"{folder} holds a run with other settings: {'; '.join(changed)}. "
      "Give it the same settings, or choose another --workdir."
    )


def check_same_everywhere(settings: dict[str, Any], step: int) -> None:
  """Refuses processes that do not run the same: in JAX they would wait for each other."""
  settings_hash = zlib.crc32(json.dumps(settings, sort_keys=True).encode())
  try:
    multihost_utils.assert_equal(np.asarray([step, settings_hash], np.uint32))
  except AssertionError:
    raise TrainError(
      f"the processes differ in their settings or in the step they stand at (here {step}): "
      "give all the same command, and a --workdir that all of them see"
    ) from None


def hold_folder(folder: Path) -> TextIO:
  """Keeps other runs out of a stage's folder, until the file is closed or the process ends."""
  folder.mkdir(parents=True, exist_ok=True)
  lock = (folder / "lock").open("w")
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    lock.close()
    raise TrainError(
      f"another run trains in {folder}: wait for it, or choose another --workdir (the processes "
      "of one run need --multihost)"
    ) from None
  return lock

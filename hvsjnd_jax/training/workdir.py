"""What stands in a working folder: each stage's settings, checkpoints and weights.

A working folder holds `hvs_sd/` and `jnd/`, one for each stage, each with `config.json`,
`metrics.jsonl`, `sheets/`, `tensorboard/` and `checkpoints/`. The notes of a checkpoint
are its settings and what they were used on; `config.json` is for people.
"""

import dataclasses
from pathlib import Path
from typing import Any, get_args

from flax import nnx

from hvsjnd_jax import weights
from hvsjnd_jax.metrics.backbones import Backbones
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.training.checkpoints import Checkpoints
from hvsjnd_jax.training.config import Stage, TrainConfig
from hvsjnd_jax.training.train_step import split_model


class TrainError(HVSJNDError):
  """A run that cannot start or go on. The message says why, and what to do."""


def settings_of(config: TrainConfig, stage: Stage) -> dict[str, Any]:
  """What a stage is trained with: all settings but the choice of stages and the other's.

  With them, where the loss is computed with further networks, the hashes of their weights.
  """
  settings = dataclasses.asdict(config)
  for name in ("stage", *get_args(Stage)):
    if name != stage:
      del settings[name]
  if hashes := hash_backbones(config, stage):
    settings["backbones"] = hashes
  return settings


def hash_backbones(config: TrainConfig, stage: Stage) -> dict[str, str]:
  """The SHA-256 of the weights that the stage's loss is computed with, by network.

  Raises:
    WeightsError: If a network's weights are missing or damaged.
  """
  if stage == "hvs_sd" or config.jnd.quality_form != "aic":
    return {}
  return {
    network: weights.read_backbone_manifest(network, getattr(config.jnd, network))["sha256"]
    for network in Backbones._fields
  }


def open_checkpoints(workdir: Path, stage: Stage) -> Checkpoints:
  """A stage's checkpoints, for reading.

  Raises:
    TrainError: If there are none.
  """
  folder = workdir / stage / "checkpoints"
  checkpoints = Checkpoints(folder, read_only=True) if folder.is_dir() else None
  if checkpoints is None or checkpoints.latest_step() is None:
    raise TrainError(
      f"no checkpoint of stage {stage!r} in {workdir}; train it first: "
      f"python -m hvsjnd_jax.train --config configs/{stage}.py --workdir {workdir}"
    )
  return checkpoints


def restore_weights(model: JNDModel, workdir: Path, stage: Stage) -> dict[str, Any]:
  """Fills a model with the averaged weights of a stage's newest checkpoint.

  Args:
    model: Filled in place: by stage 1 its HVS-SD, by stage 2 its generator and the HVS-SD
      that this was trained with.
    workdir: The working folder.
    stage: "hvs_sd" or "jnd".

  Returns:
    What is known of how they came about: "steps" and "config", for stage 2 "hvs_sd" with
    the same of stage 1.

  Raises:
    TrainError: If the stage has no checkpoint.
    CheckpointError: If it is damaged.
  """
  _, trained, frozen = split_model(model, stage)
  wanted = {"ema": trained} if stage == "hvs_sd" else {"ema": trained, "frozen": frozen}
  with open_checkpoints(workdir, stage) as checkpoints:
    step = checkpoints.latest_step() or 0
    nnx.update(model, *checkpoints.restore(step, **wanted).values())
    return {"steps": step, **checkpoints.read_notes(step)}


def export(workdir: Path, out: Path) -> None:
  """Writes the averaged weights of stage 2 as a folder that `load` takes.

  HVS-SD is the one that the generator was trained with, even where stage 1 has gone on.

  Args:
    workdir: The working folder, with both stages trained.
    out: The folder to write; must not exist, or be empty.

  Raises:
    TrainError: If stage 2 has no checkpoint.
    CheckpointError: If its newest one is damaged.
    WeightsError: If the folder cannot be written.
  """
  model = JNDModel(rngs=nnx.Rngs(0))
  second = restore_weights(model, workdir, "jnd")
  training = {"hvs_sd": second.pop("hvs_sd"), "jnd": second}
  objective = second["config"]["jnd"]
  for run in training.values():
    data = run["config"]["data"] if "config" in run else {}  # converted weights tell no config
    for section, names in (
      (data, ("images", "tfds")),
      (objective, ("hvs_sd", "vgg16", "classifier")),
    ):
      for name in section.keys() & set(names):
        section[name] = Path(section[name]).name  # nobody's private paths
  model.resolution, model.attention_layer = objective["resolution"], objective["attention"]
  weights.save(out, model, provenance={"training": training})

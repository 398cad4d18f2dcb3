"""The working folder: each stage's settings, checkpoints and weights.

A working folder holds `hvs_sd/` and `jnd/`, one for each stage, each with `config.json`,
`metrics.jsonl`, `sheets/`, `tensorboard/` and `checkpoints/`. The notes of a checkpoint are
its settings, its photographs and, in stage 2, the same of stage 1; `config.json` is for people.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

from flax import nnx

from hvsjnd_jax import weights
from hvsjnd_jax.data.atomic import whole_file
from hvsjnd_jax.data.paths import parse_path
from hvsjnd_jax.metrics.backbones import Backbones
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.training.checkpoints import Checkpoints
from hvsjnd_jax.training.config import Stage, TrainConfig
from hvsjnd_jax.training.jax_settings import fixed_jax_settings
from hvsjnd_jax.training.train_state import split_model

# Settings that hold a path, by section. The exported weights keep its last part alone, because
# nobody's private paths belong into published weights.
_PATHS = {"data": ("images", "tfds"), "jnd": ("hvs_sd", "generator", "vgg16", "classifier")}


TYPICAL_LEVEL = 0.009


class TrainError(HVSJNDError):
  """A run cannot start or go on. The message says why, and what to do."""


def settings_of(config: TrainConfig, stage: Stage) -> dict[str, Any]:
  """Returns what a stage is trained with.

  That is every setting but the choice of stages and the other stage's and, where the loss is
  computed with further networks, the hashes of their weights.
  """
  settings = dataclasses.asdict(config)
  for name in ("stage", *get_args(Stage)):
    if name != stage:
      del settings[name]
  if hashes := hash_backbones(config, stage):
    settings["backbones"] = hashes
  return settings


def write_settings(settings: dict[str, Any], folder: Path) -> None:
  """Writes config.json; a killed run leaves the old file or the new one."""
  with whole_file(folder / "config.json") as partial:
    partial.write_text(json.dumps(settings, indent=2) + "\n")


def hash_backbones(config: TrainConfig, stage: Stage) -> dict[str, str]:
  """Returns the SHA-256 of each network that the stage's loss is computed with.

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
  """Opens a stage's checkpoints for reading.

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


@fixed_jax_settings()
def restore_weights(model: JNDModel, workdir: Path, stage: Stage) -> dict[str, Any]:
  """Fills a model with the averaged weights of a stage's newest checkpoint.

  Args:
    model: Filled in place: by stage 1 its HVS-SD, by stage 2 its generator and the HVS-SD
      that this was trained with.
    workdir: The working folder.
    stage: "hvs_sd" or "jnd".

  Returns:
    How the weights were trained: the number of "steps" and the checkpoint's notes.

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


@fixed_jax_settings()
def export(workdir: Path, out: Path, *, level: float = TYPICAL_LEVEL) -> None:
  """Writes the averaged weights of stage 2 as a folder for `hvsjnd_jax.load`.

  HVS-SD is the one that the generator was trained with, even where stage 1 has gone on.

  Args:
    workdir: The working folder, with both stages trained; it and `out` may be on a disk or in an
      object store (gs://).
    out: The folder to write; must not exist, or be empty.
    level: Factor on "fine" maps, in (0, 1], which gives `lmbda` its meaning; training leaves it
      open. By default that of the shipped weights, roughly, so that the noise of `lmbda` 10 is
      about just noticeable.

  Raises:
    TrainError: If stage 2 has no checkpoint, or one of another version.
    CheckpointError: If its newest one is damaged.
    WeightsError: If the folder cannot be written.
  """
  workdir = parse_path(workdir)
  with open_checkpoints(workdir, "jnd") as checkpoints:
    notes = checkpoints.read_notes(checkpoints.latest_step() or 0)
  if "architecture" not in notes:
    raise TrainError(
      f"{workdir}/jnd holds a run of another version of hvsjnd_jax; export it with that version"
    )
  settings = notes["config"]["jnd"]
  model = JNDModel(
    resolution=settings["resolution"],
    attention_layer=settings["attention_layer"],
    level=level,
    **notes["architecture"],
    rngs=nnx.Rngs(0),
  )
  second = restore_weights(model, workdir, "jnd")
  training = {"jnd": second}
  if model.hvs_sd is not None:
    training = {"hvs_sd": second.pop("hvs_sd"), **training}
  for run in training.values():
    _shorten_paths(run.get("config", {}))  # converted weights tell no config
  weights.save(out, model, provenance={"training": training})


def _shorten_paths(config: dict[str, Any]) -> None:
  for section, names in _PATHS.items():
    settings = config.get(section, {})
    for name in settings.keys() & set(names):
      settings[name] = Path(settings[name]).name

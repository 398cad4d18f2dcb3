"""Finds where a stage's run starts: at its first step, or after its newest checkpoint."""

from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx
from jax.sharding import Mesh

from hvsjnd_jax import weights
from hvsjnd_jax.data.photo_source import PhotoSource
from hvsjnd_jax.data.sources import open_photos
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.runtime.sharding import PyTree, replicate
from hvsjnd_jax.training.checkpoints import Checkpoints
from hvsjnd_jax.training.config import Stage, TrainConfig
from hvsjnd_jax.training.guards import (
  check_not_past_the_end,
  check_same_everywhere,
  check_same_photographs,
  check_same_photographs_everywhere,
  check_same_settings,
  check_same_width,
)
from hvsjnd_jax.training.train_state import TrainState, build_model, init_state, split_model
from hvsjnd_jax.training.workdir import TrainError, open_checkpoints, restore_weights, settings_of


class Start(NamedTuple):
  """What a stage's run starts from."""

  step: int  # steps taken so far
  notes: dict[str, Any]  # saved with every checkpoint: settings, photographs, given networks
  photos: PhotoSource
  graph: nnx.GraphDef
  state: TrainState
  frozen: PyTree


def load_given_generator(config: TrainConfig) -> nnx.State:
  """Loads the generator that training goes on from, that of config.jnd.generator.

  Raises:
    WeightsError: If the weights are missing or damaged.
    TrainError: If their generator has another form than the run's.
  """
  source = config.jnd.generator
  given = nnx.state(weights.load(source).generator)
  wanted = nnx.state(nnx.eval_shape(lambda: build_model(config)).generator)
  if _shapes(given) != _shapes(wanted):
    raise TrainError(
      f"config.jnd.generator {source!r} has a generator of another form than this run's; set "
      "config.jnd.resolution, priors and generator_channels to what its manifest.json says"
    )
  return given


def find_start(
  config: TrainConfig, stage: Stage, workdir: Path, checkpoints: Checkpoints, mesh: Mesh
) -> Start | None:
  """Begins a stage's run, or restores it from its newest checkpoint.

  Returns:
    The start; None where the stage is already trained to its end.

  Raises:
    DataError, CheckpointError, TrainError, WeightsError: As `loop.train`.
  """
  # The order of resuming: the settings, the photographs, the state, and then the stream, which
  # follows from the step. Each is opened only when the one before has proved to be the same.
  folder, settings = workdir / stage, settings_of(config, stage)
  step = checkpoints.latest_step() or 0
  check_same_everywhere(settings, step)
  notes: dict[str, Any] = checkpoints.read_notes(step) if step else {}
  if step:
    check_same_settings(settings, notes["config"], folder)
  check_not_past_the_end(step, config.settings(stage), folder)
  if step == config.settings(stage).num_steps:
    return None

  photos = open_photos(config.data)
  check_same_photographs_everywhere(photos)
  if step:
    check_same_photographs(photos, notes["photographs"], folder)
  else:
    notes["photographs"] = photos.fingerprint()

  model = build_model(config)
  nnx.update(model, replicate(nnx.state(model), mesh))
  if stage == "jnd" and step:
    saved = notes["architecture"]["hvs_sd_channels"]
    check_same_width(saved, model.hvs_sd_channels, folder)
  elif stage == "jnd":
    notes["architecture"] = weights.describe_architecture(model)
    if model.hvs_sd is not None:
      notes["hvs_sd"] = _fill_hvs_sd(model, config, workdir, mesh)
    if config.jnd.generator:
      notes["generator"] = _fill_generator(model, config, mesh)
  graph, params, frozen = split_model(model, stage)
  state = replicate(init_state(params, config.settings(stage)), mesh)
  start = Start(step, notes | {"config": settings}, photos, graph, state, frozen)
  return _restore(start, checkpoints) if step else start


def _restore(start: Start, checkpoints: Checkpoints) -> Start:
  """Restores what is trained and what is frozen; the start gives their shapes and placement."""
  restored = checkpoints.restore(start.step, frozen=start.frozen, **start.state._asdict())
  frozen = restored.pop("frozen")
  return start._replace(state=TrainState(**restored), frozen=frozen)


def _fill_hvs_sd(model: JNDModel, config: TrainConfig, workdir: Path, mesh: Mesh) -> dict[str, Any]:
  """Fills in the HVS-SD that the generator is trained behind; returns how it was trained."""
  if source := config.jnd.hvs_sd:
    given = weights.load(source).require_hvs_sd(f"config.jnd.hvs_sd {source!r}")
    nnx.update(model.hvs_sd, replicate(nnx.state(given), mesh))
    manifest = weights.read_manifest(source)
    return {"weights": manifest["sha256"], **manifest.get("training", {}).get("hvs_sd", {})}
  with open_checkpoints(workdir, "hvs_sd") as first:
    saved = first.read_notes(first.latest_step() or 0)["config"]["hvs_sd"]["channels"]
  check_same_width(saved, model.hvs_sd_channels, workdir / "hvs_sd")
  run = restore_weights(model, workdir, "hvs_sd")
  wanted = run["config"]["hvs_sd"]["num_steps"]
  if run["steps"] < wanted:
    raise TrainError(
      f"stage 'hvs_sd' in {workdir} stands at step {run['steps']} of {wanted}; train it to its "
      "end first, with the command that began it"
    )
  return run


def _fill_generator(model: JNDModel, config: TrainConfig, mesh: Mesh) -> dict[str, Any]:
  """Fills in the generator that training goes on from; returns how it was trained."""
  nnx.update(model.generator, replicate(load_given_generator(config), mesh))
  manifest = weights.read_manifest(config.jnd.generator)
  return {"weights": manifest["sha256"], **manifest.get("training", {}).get("jnd", {})}


def _shapes(state: nnx.State) -> dict[tuple[Any, ...], tuple[int, ...]]:
  return {path: leaf.shape for path, leaf in nnx.to_flat_state(state)}

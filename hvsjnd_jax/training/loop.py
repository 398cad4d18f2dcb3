"""The training loop as a library: stages of training, from a config into a folder.

What the folder holds, `runs` says. Stage 2 reads stage 1's weights from there. Many
processes (see `sharding`) run the same calls on a folder that all of them see.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from hvsjnd_jax import weights
from hvsjnd_jax.data.crops import Crops, crop_stream, first_crop
from hvsjnd_jax.data.images import to_uint8
from hvsjnd_jax.data.sources import PhotoSource, open_photos
from hvsjnd_jax.estimator import analyze, degrade
from hvsjnd_jax.metrics.backbones import Backbones
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.noise import inject, random_signs
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.runtime.sharding import local_copy, make_mesh, replicate, shard_batch
from hvsjnd_jax.training.checkpoints import Checkpoints
from hvsjnd_jax.training.config import Stage, TrainConfig
from hvsjnd_jax.training.guards import (
  check_batch,
  check_same_everywhere,
  check_same_run,
  hold_folder,
)
from hvsjnd_jax.training.metric_writer import Logbook
from hvsjnd_jax.training.preemption import Preemption
from hvsjnd_jax.training.running_means import Figures, NotFiniteError, RunningMeans
from hvsjnd_jax.training.train_step import TrainState, init_state, make_step, split_model
from hvsjnd_jax.training.workdir import TrainError, hash_backbones, restore_weights, settings_of
from hvsjnd_jax.viz import sheets

Report = Callable[[Stage, int, Figures | None], None]


class PreemptedError(Exception):
  """A run that SIGTERM ended; everything up to there is saved."""


def train(config: TrainConfig, workdir: Path, *, report: Report) -> None:
  """Trains the stages of a config, each going on from its newest checkpoint if it has one.

  Resuming is exact: on as many devices, a run that was killed ends with the bits of one
  that was not. On another number of devices or processes it goes on with the same crops
  and noise, and differs by rounding.

  Args:
    config: The run. Checked before any work.
    workdir: The working folder.
    report: Called after every step of this process with the stage, the step and, after
      the first step and then every `log_every_steps`, figures: the means of each term
      since they were last told.

  Raises:
    ValueError: If a setting is impossible.
    DataError: If there are no photographs, or one cannot be read.
    CheckpointError: If the newest checkpoint is damaged.
    TrainError: If the devices cannot share a batch, another run holds the folder, stage 1
      is missing or unfinished for stage 2, the checkpoints are of a run with other settings
      or photographs, or a loss is not finite.
    WeightsError: If a network that the loss needs is missing or damaged.
    PreemptedError: On SIGTERM, after saving.
  """
  config.validate()
  for stage in config.stages:
    hash_backbones(config, stage)  # whether they are there, before hours of another stage
  mesh = make_mesh()
  for stage in config.stages:
    check_batch(config.settings(stage), stage, mesh)
  with Preemption() as preemption:
    for stage in config.stages:
      _train_stage(config, stage, workdir, mesh, preemption, report)


def build_model(config: TrainConfig) -> JNDModel:
  """Both networks with initial weights, as the config wants them trained."""
  dtype = jnp.bfloat16 if config.compute_dtype == "bfloat16" else None
  return JNDModel(
    resolution=config.jnd.resolution,
    attention_layer=config.jnd.attention,
    dtype=dtype,
    rngs=nnx.Rngs(config.seed),
  )


def _train_stage(
  config: TrainConfig,
  stage: Stage,
  workdir: Path,
  mesh: Mesh,
  preemption: Preemption,
  report: Report,
) -> None:
  settings = config.settings(stage)
  written = settings_of(config, stage)
  folder = workdir / stage
  with ExitStack() as stack:
    if jax.process_index() == 0:
      stack.enter_context(hold_folder(folder))
    checkpoints = stack.enter_context(
      Checkpoints(
        folder / "checkpoints",
        keep=config.keep_checkpoints,
        keep_every_steps=config.keep_every_steps,
      )
    )
    # In order: the settings, the photographs, the state, and the stream, which follows from
    # the step.
    step = checkpoints.latest_step() or 0
    check_same_everywhere(written, step)
    notes: dict[str, Any] = checkpoints.read_notes(step) if step else {}
    if step:
      check_same_run(written, notes, folder)
    if step > settings.num_steps:
      raise TrainError(f"{folder} stands at step {step}, past num_steps {settings.num_steps}")
    if step == settings.num_steps:
      return
    photos = open_photos(config.data)
    if step and photos.fingerprint() != notes["photographs"]:
      raise TrainError(
        f"{folder} was trained on other photographs: {notes['photographs']}, not "
        f"{photos.fingerprint()}. Give it the same, or choose another --workdir."
      )
    model = build_model(config)
    nnx.update(model, replicate(nnx.state(model), mesh))
    if not step:
      notes = {"photographs": photos.fingerprint()}
      if stage == "jnd":
        notes["hvs_sd"] = _take_hvs_sd(model, config, workdir, mesh)
    notes |= {"config": written}
    graph, params, frozen = split_model(model, stage)
    state = replicate(init_state(params, settings), mesh)
    if step:
      restored = checkpoints.restore(step, frozen=frozen, **state._asdict())
      frozen = restored.pop("frozen")
      state = TrainState(**restored)
    run_step = make_step(config, stage, graph, mesh)
    backbones = replicate(_load_backbones(config, stage), mesh)
    stream = _open_stream(config, stage, photos, first_step=step)

    log = None
    if jax.process_index() == 0:
      _write_config(written, folder)
      log = stack.enter_context(Logbook(folder, step=step))
    first_step = step + 1
    unread = RunningMeans()
    while step < settings.num_steps:
      crops = next(stream)
      batch = shard_batch(crops, mesh)
      state, terms = run_step(state, step, frozen, batch, backbones)
      step += 1
      unread.append(f"at step {step}", terms, crops)
      last = step == settings.num_steps
      stops = preemption.reached()
      logs = last or step == first_step or step % config.log_every_steps == 0
      saves = last or stops or step % config.checkpoint_every_steps == 0
      if saves:
        # A step's terms are of the weights before it. Those to be saved are tried too.
        _, tried = run_step(jax.tree.map(jnp.copy, state), step, frozen, batch, backbones)
        unread.append(f"after step {step}", tried, crops, counts=False)
      if logs or saves:
        try:
          unread.read()
        except NotFiniteError as error:
          raise TrainError(_explain_not_finite(error, photos, checkpoints)) from None
      figures = unread.take_means(settings.batch_size) if logs else None
      report(stage, step, figures)
      if log and figures:
        log.write(step, figures)
      if log and (last or step % config.sheet_every_steps == 0):
        averaged = nnx.merge(graph, local_copy(state.ema), local_copy(frozen))
        log.write_sheet(step, _draw_sheet(averaged, stage, config, photos))
      if saves:
        checkpoints.save(step, notes, frozen=frozen, **state._asdict())
      if stops:
        checkpoints.wait()
        raise PreemptedError(f"stopped by SIGTERM; step {step} of stage {stage!r} is saved")


def _load_backbones(config: TrainConfig, stage: Stage) -> Backbones | None:
  if not hash_backbones(config, stage):
    return None
  return Backbones(
    weights.load_vgg16(config.jnd.vgg16), weights.load_classifier(config.jnd.classifier)
  )


def _take_hvs_sd(model: JNDModel, config: TrainConfig, workdir: Path, mesh: Mesh) -> dict[str, Any]:
  """Fills in the HVS-SD that the generator is trained behind; gives what is known of it."""
  if source := config.jnd.hvs_sd:
    trained = nnx.state(weights.load(source).hvs_sd)
    nnx.update(model.hvs_sd, replicate(trained, mesh))
    manifest = weights.read_manifest(source)
    return {"weights": manifest["sha256"], **manifest.get("training", {}).get("hvs_sd", {})}
  run = restore_weights(model, workdir, "hvs_sd")
  wanted = run["config"]["hvs_sd"]["num_steps"]
  if run["steps"] < wanted:
    raise TrainError(
      f"stage 'hvs_sd' in {workdir} stands at step {run['steps']} of {wanted}; train it to its "
      "end first, with the command that began it"
    )
  return run


def _open_stream(
  config: TrainConfig, stage: Stage, photos: PhotoSource, *, first_step: int
) -> Iterator[Crops]:
  settings = config.settings(stage)
  return crop_stream(
    photos,
    config.data,
    crop_px=settings.crop_px,
    batch_size=settings.batch_size,
    seed=config.seed,
    first_step=first_step,
    process=jax.process_index(),
    processes=jax.process_count(),
  )


def _explain_not_finite(
  error: NotFiniteError, photos: PhotoSource, checkpoints: Checkpoints
) -> str:
  names = sorted({photos.name(int(index)) for index in error.photos})
  shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
  checkpoints.wait()
  latest = checkpoints.latest_step()
  kept = f"the checkpoint of step {latest} is kept" if latest else "no checkpoint was made yet"
  return (
    f"{', '.join(error.names)} not finite {error.when}, on a batch of {shown}; {kept}. "
    "A lower learning_rate may help."
  )


def _draw_sheet(model: JNDModel, stage: Stage, config: TrainConfig, photos: PhotoSource) -> Pixels:
  """What the averaged weights make of the run's first crop: the same each time."""
  crop_px = config.settings(stage).crop_px
  pixels = first_crop(photos, config.data, crop_px=crop_px, seed=config.seed).pixels
  image = pixels[None].astype(np.float32) / 255
  if stage == "hvs_sd":
    degraded = to_uint8(np.asarray(degrade(model, image)[0]))
    return sheets.sheet([("image", pixels), ("x2: after degradation", degraded)])
  analysis = analyze(model, image)
  signs = random_signs(jax.random.key(config.seed), pixels.shape[:2])
  distorted = inject(image, np.asarray(analysis.jnd), signs, lmbda=config.jnd.lmbda)
  return sheets.analysis_sheet(
    pixels,
    attention=np.asarray(analysis.priors.attention[0, ..., 0]),
    jnd=np.asarray(analysis.jnd[0]),
    distorted=np.asarray(distorted[0]),
    note=f"lmbda {config.jnd.lmbda:g}",
  )


def _write_config(settings: dict[str, Any], folder: Path) -> None:
  partial = folder / "config.partial"
  partial.write_text(json.dumps(settings, indent=2) + "\n")
  partial.replace(folder / "config.json")  # a killed run leaves the old one or the new one

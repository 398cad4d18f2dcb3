"""Trains the stages of a config, from photographs to checkpoints in a working folder.

`workdir` says what the folder holds. Stage 2 reads stage 1's weights from it. Many processes
(see `runtime.sharding`) run the same calls on a folder that all of them see.
"""

from contextlib import ExitStack
from pathlib import Path

import jax
from jax.sharding import Mesh

from hvsjnd_jax.data.paths import parse_path
from hvsjnd_jax.data.sources import check_crops
from hvsjnd_jax.runtime.sharding import choose_devices, make_mesh
from hvsjnd_jax.training.checkpoints import Checkpoints
from hvsjnd_jax.training.config import Stage, StageConfig, TrainConfig
from hvsjnd_jax.training.guards import check_batch, hold_folder
from hvsjnd_jax.training.jax_settings import fixed_jax_settings
from hvsjnd_jax.training.lease import Lease
from hvsjnd_jax.training.metric_writer import MetricWriter
from hvsjnd_jax.training.preemption import Preemption
from hvsjnd_jax.training.resume import find_start, load_given_generator
from hvsjnd_jax.training.stage_run import Report, StageRun
from hvsjnd_jax.training.workdir import hash_backbones, write_settings


@fixed_jax_settings()
def train(config: TrainConfig, workdir: Path, *, report: Report) -> None:
  """Trains the stages of a config; each goes on from its newest checkpoint if it has one.

  Resuming is exact: on as many devices, a run that was killed ends with the bits of one
  that was not, also where the environment now sets JAX_ENABLE_X64 or the like (see
  `jax_settings`). On another number of devices or processes it goes on with the same crops
  and noise, and differs by rounding.

  Args:
    config: The run. Checked before any work.
    workdir: The working folder, on a disk or in an object store (gs://).
    report: Called after every step of this process with the stage, the step and, after
      the first step and then every `log_every_steps`, the mean of each term since the last
      such call; otherwise None.

  Raises:
    ValueError: If a setting is impossible.
    DataError: If there are no photographs, one cannot be read, or tiles do not fit the crops.
    CheckpointError: If the newest checkpoint is damaged.
    TrainError: If the devices cannot share a batch, another run holds the folder, stage 1
      is missing or unfinished for stage 2, the checkpoints are of a run with other settings
      or photographs, or a loss is not finite.
    WeightsError: If a network that the loss needs is missing or damaged.
    PreemptedError: On SIGTERM, after saving.
  """
  workdir = parse_path(workdir)
  config.validate()
  meshes = {stage: _make_mesh(config.settings(stage)) for stage in config.stages}
  # What stage 2 needs is looked for now, and not after the hours of stage 1.
  for stage in config.stages:
    hash_backbones(config, stage)
    check_batch(config.settings(stage), stage, meshes[stage])
    check_crops(config.data, crop_px=config.settings(stage).crop_px)
  if config.jnd.generator and "hvs_sd" in config.stages:
    load_given_generator(config)
  with Preemption() as preemption:
    for stage in config.stages:
      _train_stage(config, stage, workdir, meshes[stage], preemption, report)


def _make_mesh(settings: StageConfig) -> Mesh:
  return make_mesh(choose_devices(parts=settings.batch_size // settings.accumulation_steps))


def _train_stage(
  config: TrainConfig,
  stage: Stage,
  workdir: Path,
  mesh: Mesh,
  preemption: Preemption,
  report: Report,
) -> None:
  folder, is_first_process = workdir / stage, jax.process_index() == 0
  with ExitStack() as stack:
    if is_first_process:
      lock = stack.enter_context(hold_folder(folder))
      if isinstance(lock, Lease):
        report = lock.checking(report)
    keep, keep_every_steps = config.keep_checkpoints, config.keep_every_steps
    checkpoints = stack.enter_context(
      Checkpoints(folder / "checkpoints", keep=keep, keep_every_steps=keep_every_steps)
    )
    start = find_start(config, stage, workdir, checkpoints, mesh)
    if start is None:
      return
    run = StageRun(config, stage, mesh, start, checkpoints)
    writer = None
    if is_first_process:
      write_settings(start.notes["config"], folder)
      writer = stack.enter_context(MetricWriter(folder, step=start.step))
    run.train(writer, preemption, report)

"""Takes the steps of one stage, and logs, draws and saves between them."""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from hvsjnd_jax import weights
from hvsjnd_jax.data.crops import Crops, crop_stream
from hvsjnd_jax.metrics.backbones import Backbones
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.runtime.sharding import local_copy, replicate, shard_batch
from hvsjnd_jax.training.checkpoints import Checkpoints
from hvsjnd_jax.training.config import Stage, TrainConfig
from hvsjnd_jax.training.guards import check_finite
from hvsjnd_jax.training.metric_writer import MetricWriter
from hvsjnd_jax.training.preemption import PreemptedError, Preemption
from hvsjnd_jax.training.resume import Start
from hvsjnd_jax.training.run_sheet import draw_sheet
from hvsjnd_jax.training.running_means import Means, RunningMeans
from hvsjnd_jax.training.train_step import make_step
from hvsjnd_jax.training.workdir import hash_backbones

Report = Callable[[Stage, int, Means | None], None]


class _Due(NamedTuple):
  """What is to be done after a step."""

  log: bool
  draw: bool
  save: bool


class StageRun:
  """The run of one stage from its start on.

  Args:
    config: The run.
    stage: The stage to train.
    mesh: The devices.
    start: Where it starts.
    checkpoints: Where it is saved.
  """

  def __init__(
    self, config: TrainConfig, stage: Stage, mesh: Mesh, start: Start, checkpoints: Checkpoints
  ):
    self._config, self._mesh = config, mesh
    self._stage: Stage = stage
    self._settings = config.settings(stage)
    self._start, self._state = start, start.state
    self._checkpoints = checkpoints
    self._means = RunningMeans()
    self._run_step = make_step(config, stage, start.graph, mesh)
    self._backbones = replicate(_load_backbones(config, stage), mesh)

  def train(self, writer: MetricWriter | None, preemption: Preemption, report: Report) -> None:
    """Takes the steps that are left.

    Args:
      writer: Writes the means and sheets; None in every process but the first.
      preemption: Asked after each step whether to stop.
      report: Called after each step.

    Raises:
      DataError, CheckpointError, TrainError, PreemptedError: As `loop.train`.
    """
    stream = crop_stream(
      self._start.photos,
      self._config.data,
      crop_px=self._settings.crop_px,
      batch_size=self._settings.batch_size,
      seed=self._config.seed,
      first_step=self._start.step,
      process=jax.process_index(),
      processes=jax.process_count(),
    )
    with contextlib.closing(stream):
      for step in range(self._start.step + 1, self._settings.num_steps + 1):
        self._advance(step, next(stream), writer, preemption, report)

  def _advance(
    self,
    step: int,
    crops: Crops,
    writer: MetricWriter | None,
    preemption: Preemption,
    report: Report,
  ) -> None:
    """Takes one step, and does what is due after it."""
    batch = shard_batch(crops, self._mesh)
    self._take_step(step, crops, batch)
    stops = preemption.reached()
    due = self._find_due(step, stops=stops)
    if due.save:
      self._try_weights(step, crops, batch)
    if due.log or due.save:
      check_finite(self._means, self._start.photos, self._checkpoints)
    means = self._means.take_means(self._settings.batch_size) if due.log else None
    report(self._stage, step, means)
    if writer and means:
      writer.write(step, means)
    if writer and due.draw:
      writer.write_sheet(step, self._draw())
    if writer and due.save:
      writer.keep_rows()
    if due.save:
      self._save(step)
    if stops:
      self._checkpoints.wait()
      raise PreemptedError(
        f"stopped by SIGTERM; step {step} of stage {self._stage!r} is saved; the same command "
        "goes on from there"
      )

  def _take_step(self, step: int, crops: Crops, batch: Crops) -> None:
    self._state, terms = self._run_step(
      self._state, step - 1, self._start.frozen, batch, self._backbones
    )
    # JAX would queue dozens of steps, and all of them have to end before a SIGTERM is obeyed.
    self._means.wait()  # for the step before
    self._means.append(f"at step {step}", terms, crops)

  def _find_due(self, step: int, *, stops: bool) -> _Due:
    first, last = step == self._start.step + 1, step == self._settings.num_steps
    return _Due(
      log=first or last or step % self._config.log_every_steps == 0,
      draw=last or step % self._config.sheet_every_steps == 0,
      save=last or stops or step % self._config.checkpoint_every_steps == 0,
    )

  def _try_weights(self, step: int, crops: Crops, batch: Crops) -> None:
    """Tries the weights that are to be saved: the terms of a step are of those before it."""
    state = jax.tree.map(jnp.copy, self._state)  # a copy, because a step donates its state
    _, terms = self._run_step(state, step, self._start.frozen, batch, self._backbones)
    self._means.append(f"after step {step}", terms, crops, counts=False)

  def _draw(self) -> Pixels:
    ema, frozen = local_copy(self._state.ema), local_copy(self._start.frozen)
    averaged = nnx.merge(self._start.graph, ema, frozen)
    return draw_sheet(averaged, self._stage, self._config, self._start.photos)

  def _save(self, step: int) -> None:
    items = {"frozen": self._start.frozen, **self._state._asdict()}
    self._checkpoints.save(step, self._start.notes, **items)


def _load_backbones(config: TrainConfig, stage: Stage) -> Backbones | None:
  if not hash_backbones(config, stage):
    return None
  return Backbones(
    weights.load_vgg16(config.jnd.vgg16), weights.load_classifier(config.jnd.classifier)
  )

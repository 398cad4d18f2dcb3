"""The training loop as a library: one stage of training, from a config into a folder.

A working folder holds `hvs_sd/` and `jnd/`, one for each stage, each with `config.json`,
`metrics.jsonl` and `checkpoints/`. Stage 2 reads stage 1's weights from there.
"""

import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, traverse_util
from jaxtyping import Array, UInt8

from hvsjnd_jax import weights
from hvsjnd_jax.checkpoint import Checkpoints
from hvsjnd_jax.config import Stage, TrainConfig
from hvsjnd_jax.data import crop_stream
from hvsjnd_jax.estimator import JNDModel
from hvsjnd_jax.losses import Terms, jnd_objective, rate_distortion_objective

PyTree = Any
# On the host until the jitted step takes them.
Crops = UInt8[np.ndarray, "b h w 3"]
Report = Callable[[int, dict[str, float]], None]

# The part of a JNDModel that a stage trains.
_NETWORK: dict[Stage, str] = {"hvs_sd": "hvs_sd", "jnd": "generator"}

_CONFIG_FILE = "config.json"
# What may differ when a run goes on: nothing that it computes, but for where it ends.
_MAY_CHANGE = (
  "num_steps",
  "log_every_steps",
  "checkpoint_every_steps",
  "data.images",
  "data.tfds",
  "data.threads",
)


class TrainError(Exception):
  """A run that cannot start or go on. The message says why, and what to do."""


class TrainState(NamedTuple):
  """What training changes; `ema`, the weights' moving average, is what is exported.

  A checkpoint holds these and, as "frozen", the network that the stage leaves alone: a
  run that goes on, and an export, need nothing else.
  """

  params: PyTree
  optimizer: PyTree
  ema: PyTree


Step = Callable[[TrainState, int, PyTree, Crops], tuple[TrainState, Terms]]


def train(config: TrainConfig, workdir: Path, *, report: Report) -> None:
  """Trains one stage, going on from its newest checkpoint if there is one.

  Args:
    config: The run. Checked before any work.
    workdir: The working folder.
    report: Called with the step and its figures after the first step, which waits for
      the compiler, and then every `log_every_steps`.

  Raises:
    ValueError: If a setting is impossible.
    DataError: If there are no photographs, or one cannot be read.
    TrainError: If stage 1 is missing for stage 2, the checkpoints are of a run with other
      settings, or a loss is not finite.
  """
  config.validate()
  folder = workdir / config.stage
  model = JNDModel(rngs=nnx.Rngs(config.seed))
  checkpoints = Checkpoints(folder / "checkpoints")
  try:
    step = checkpoints.latest_step() or 0
    if step:
      _check_same_run(config, folder)
    elif config.stage == "jnd":
      restore_weights(model, workdir, "hvs_sd")
    graph, params, frozen = nnx.split(model, nnx.PathContains(_NETWORK[config.stage]), ...)
    optimizer = make_optimizer(config)
    run_step = make_step(config, graph, optimizer)
    # The average starts as a copy: a donated buffer must not stand in the state twice.
    state = TrainState(params, optimizer.init(params), jax.tree.map(jnp.copy, params))
    if step:
      restored = checkpoints.restore(step, frozen=frozen, **state._asdict())
      frozen = restored.pop("frozen")
      state = TrainState(**restored)
    batches = crop_stream(
      config.data, batch_size=config.batch_size, seed=config.seed, first_step=step
    )

    _write_config(config, folder)
    with (folder / "metrics.jsonl").open("a") as log:
      first_step, logged_step, logged_time = step + 1, step, time.perf_counter()
      while step < config.num_steps:
        state, terms = run_step(state, step, frozen, next(batches))
        step += 1
        last = step == config.num_steps
        logs = last or step == first_step or step % config.log_every_steps == 0
        saves = last or step % config.checkpoint_every_steps == 0
        if not (logs or saves):
          continue
        figures = {name: float(value) for name, value in terms.items()}
        bad = [name for name, value in figures.items() if not math.isfinite(value)]
        if bad:
          raise TrainError(
            f"{', '.join(bad)} not finite at step {step}; the newest checkpoint is of step "
            f"{checkpoints.latest_step()}. A lower optimizer.learning_rate may help."
          )
        if logs:
          now = time.perf_counter()
          images = (step - logged_step) * config.batch_size
          figures["images_per_second"] = images / (now - logged_time)
          logged_step, logged_time = step, now
          log.write(json.dumps({"step": step, **figures}) + "\n")
          log.flush()
          report(step, figures)
        if saves:
          checkpoints.save(step, frozen=frozen, **state._asdict())
  finally:
    checkpoints.close()


def _check_same_run(config: TrainConfig, folder: Path) -> None:
  """Refuses to go on with settings that the checkpoints were not made with."""
  saved = _flatten(read_config(folder))
  given = _flatten(dataclasses.asdict(config))
  changed = [
    f"{name} was {saved.get(name)!r} and is {value!r}"
    for name, value in given.items()
    if name not in _MAY_CHANGE and saved.get(name) != value
  ]
  if changed:
    raise TrainError(
      f"{folder} holds a run with other settings: {'; '.join(changed)}. "
      "Give it the same settings, or choose another --workdir."
    )


def read_config(folder: Path) -> dict[str, Any]:
  """The settings that a stage was last trained with, as they were written."""
  return json.loads((folder / _CONFIG_FILE).read_text())


def _write_config(config: TrainConfig, folder: Path) -> None:
  text = json.dumps(dataclasses.asdict(config), indent=2)
  (folder / _CONFIG_FILE).write_text(text + "\n")


def _flatten(settings: dict[str, Any]) -> dict[str, Any]:
  return traverse_util.flatten_dict(settings, sep=".")


def export(workdir: Path, out: Path) -> None:
  """Writes the averaged weights of both stages as a folder that `load` takes.

  HVS-SD is the one that the generator was trained with, even where stage 1 has gone on.

  Args:
    workdir: The working folder, with both stages trained.
    out: The folder to write; must not exist, or be empty.

  Raises:
    TrainError: If a stage is missing.
    WeightsError: If the folder cannot be written.
  """
  model = JNDModel(rngs=nnx.Rngs(0))
  training = {}
  for stage in get_args(Stage):
    steps = restore_weights(model, workdir, stage)
    config = read_config(workdir / stage)
    for name, value in config["data"].items():
      if Path(str(value)).is_absolute():
        config["data"][name] = Path(value).name  # nobody's private paths
    training[stage] = {"steps": steps, "config": config}
  objective = training["jnd"]["config"]["jnd"]
  model.resolution, model.attention = objective["resolution"], objective["attention"]
  weights.save(out, model, provenance={"training": training})


def restore_weights(model: JNDModel, workdir: Path, stage: Stage) -> int:
  """Fills a model with what a stage's newest checkpoint holds: averaged and frozen weights.

  Args:
    model: Both networks are filled in place.
    workdir: The working folder.
    stage: "hvs_sd" or "jnd".

  Returns:
    The step of the checkpoint.

  Raises:
    TrainError: If the stage has no checkpoint.
  """
  folder = workdir / stage / "checkpoints"
  if not folder.is_dir():
    raise TrainError(_missing_stage(workdir, stage))
  checkpoints = Checkpoints(folder)
  try:
    step = checkpoints.latest_step()
    if step is None:
      raise TrainError(_missing_stage(workdir, stage))
    _, trained, frozen = nnx.split(model, nnx.PathContains(_NETWORK[stage]), ...)
    restored = checkpoints.restore(step, ema=trained, frozen=frozen)
    nnx.update(model, restored["ema"], restored["frozen"])
  finally:
    checkpoints.close()
  return step


def _missing_stage(workdir: Path, stage: Stage) -> str:
  return (
    f"no checkpoint of stage {stage!r} in {workdir}; train it first: "
    f"python -m hvsjnd_jax.train --config configs/{stage}.py --workdir {workdir}"
  )


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
  """Adam after clipping by the global norm; warm-up, then cosine decay to 1/100."""
  settings = config.optimizer
  schedule = optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=settings.learning_rate,
    warmup_steps=settings.warmup_steps,
    decay_steps=config.num_steps,
    end_value=settings.learning_rate / 100,
  )
  return optax.chain(optax.clip_by_global_norm(settings.clip_norm), optax.adam(schedule))


def make_step(
  config: TrainConfig, graph: nnx.GraphDef, optimizer: optax.GradientTransformation
) -> Step:
  """Builds the jitted update: (state, step, frozen, uint8 crops) → (state, terms).

  The state's buffers are donated: the old state cannot be used afterwards. The noise of
  a step follows from the seed and the step alone.
  """
  noise_key = jax.random.key(config.seed)

  def objective(params: PyTree, frozen: PyTree, images: Array, key: Array):
    model = nnx.merge(graph, params, frozen)
    if config.stage == "hvs_sd":
      return rate_distortion_objective(model.hvs_sd, images, key, config=config.hvs_sd)
    return jnd_objective(model, images, key, config=config.jnd)

  @functools.partial(jax.jit, donate_argnums=0)
  def run_step(
    state: TrainState, step: int, frozen: PyTree, crops: Crops
  ) -> tuple[TrainState, Terms]:
    images = jnp.asarray(crops, jnp.float32) / 255
    key = jax.random.fold_in(noise_key, step)
    gradient = jax.value_and_grad(objective, has_aux=True)
    (total, terms), grads = gradient(state.params, frozen, images, key)
    updates, opt_state = optimizer.update(grads, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    # Young averages follow fast, so that the start does not weigh on them.
    decay = jnp.minimum(config.optimizer.ema_decay, (1 + step) / (10 + step))
    ema = optax.incremental_update(params, state.ema, 1 - decay)
    terms = {"loss": total, **terms, "gradient_norm": optax.tree.norm(grads)}
    return TrainState(params, opt_state, ema), terms

  return run_step

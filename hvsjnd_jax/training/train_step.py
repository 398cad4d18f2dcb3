"""One step of each stage: a pure function, compiled once for all devices of the mesh.

Parameters, optimiser and averages are float32, with a copy on every device; crops are uint8
[B, crop, crop, 3], RGB, split over the devices.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array

from hvsjnd_jax.data.crops import Crops
from hvsjnd_jax.metrics.backbones import Backbones
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.runtime.sharding import AXIS, REPLICATED, SHARDED, PyTree
from hvsjnd_jax.training.config import Stage, StageConfig, TrainConfig
from hvsjnd_jax.training.objectives import Terms, jnd_objective, rate_distortion_objective

# The part of a JNDModel that a stage trains.
_NETWORK: dict[Stage, str] = {"hvs_sd": "hvs_sd", "jnd": "generator"}


class TrainState(NamedTuple):
  """What training changes; `ema`, the weights' moving average, is what is exported."""

  params: PyTree
  optimizer: PyTree
  ema: PyTree


Step = Callable[[TrainState, int, PyTree, Crops, Backbones | None], tuple[TrainState, Terms]]


def split_model(model: JNDModel, stage: Stage) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
  """A model as its structure, the parameters that a stage trains, and those it leaves alone."""
  graph, params, frozen = nnx.split(model, nnx.PathContains(_NETWORK[stage]), ...)
  return graph, params, frozen


def init_state(params: PyTree, settings: StageConfig) -> TrainState:
  """The state before the first step."""
  # The average starts as a copy: a donated buffer must not stand in the state twice.
  return TrainState(params, make_optimizer(settings).init(params), jax.tree.map(jnp.copy, params))


def make_optimizer(settings: StageConfig) -> optax.GradientTransformation:
  """Adam after clipping by the global norm."""
  adam = optax.adam(make_schedule(settings))
  return optax.chain(optax.clip_by_global_norm(settings.clip_norm), adam)


def make_schedule(settings: StageConfig) -> optax.Schedule:
  """The learning rate by step: linear warm-up, then cosine decay to 1/100."""
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=settings.learning_rate,
    warmup_steps=settings.warmup_steps,
    decay_steps=settings.num_steps,
    end_value=settings.learning_rate / 100,
  )


def make_step(config: TrainConfig, stage: Stage, graph: nnx.GraphDef, mesh: Mesh) -> Step:
  """Builds the jitted update: (state, step, frozen, crops, backbones) → (state, terms).

  Each device computes the gradient of its own crops, in `accumulation_steps` parts one
  after the other; one all-reduce averages gradients and terms over the mesh. The state's
  buffers are donated: the old state cannot be used afterwards. `backbones` are those of
  the quality form "aic", else None.

  Args:
    config: The run.
    stage: Which objective.
    graph: The model's structure, from `split_model`.
    mesh: The devices. Their number times `accumulation_steps` must divide `batch_size`.
  """
  settings = config.settings(stage)
  optimizer, schedule = make_optimizer(settings), make_schedule(settings)
  parts = settings.accumulation_steps

  def objective(
    params: PyTree, frozen: PyTree, backbones: Backbones | None, crops: Crops
  ) -> tuple[Array, Terms]:
    model = nnx.merge(graph, params, frozen)
    images = jnp.asarray(crops.pixels, jnp.float32) / 255
    keys = jax.vmap(jax.random.key)(crops.noise_seeds)
    if stage == "hvs_sd":
      total, terms = rate_distortion_objective(model.hvs_sd, images, keys, config=config.hvs_sd)
    else:
      total, terms = jnd_objective(model, images, keys, config=config.jnd, backbones=backbones)
    return total, {"loss": total, **terms}

  # Not left to the compiler: it may gather a whole batch on every device, and would reduce
  # after every part. Nothing is differentiated through the map, so its own bookkeeping of
  # copies (check_vma), which custom derivatives do not know, is not needed.
  @functools.partial(
    jax.shard_map,
    mesh=mesh,
    in_specs=(REPLICATED, REPLICATED, REPLICATED, SHARDED),
    out_specs=REPLICATED,
    check_vma=False,
  )
  def average_gradient(
    params: PyTree, frozen: PyTree, backbones: Backbones | None, crops: Crops
  ) -> tuple[PyTree, Terms]:
    def compute(part: Crops) -> tuple[PyTree, Terms]:
      return jax.grad(objective, has_aux=True)(params, frozen, backbones, part)

    def add(sums: PyTree, part: Crops) -> tuple[PyTree, None]:
      return jax.tree.map(jnp.add, sums, compute(part)), None

    if parts == 1:
      return lax.pmean(compute(crops), AXIS)
    stacked = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), crops)
    shapes = jax.eval_shape(compute, jax.tree.map(lambda x: x[0], stacked))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    sums, _ = lax.scan(add, zeros, stacked)
    return lax.pmean(jax.tree.map(lambda x: x / parts, sums), AXIS)

  copied = NamedSharding(mesh, REPLICATED)

  @functools.partial(jax.jit, donate_argnums=0, out_shardings=(copied, copied))
  def run_step(
    state: TrainState,
    step: int,
    frozen: PyTree,
    crops: Crops,
    backbones: Backbones | None = None,
  ) -> tuple[TrainState, Terms]:
    grads, terms = average_gradient(state.params, frozen, backbones, crops)
    updates, opt_state = optimizer.update(grads, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    # Young averages follow fast, so that the start does not weigh on them.
    decay = jnp.minimum(settings.ema_decay, (1 + step) / (10 + step))
    ema = optax.incremental_update(params, state.ema, 1 - decay)
    terms |= {"gradient_norm": optax.tree.norm(grads), "learning_rate": jnp.asarray(schedule(step))}
    return TrainState(params, opt_state, ema), terms

  return run_step

"""One step of each stage: a pure function, compiled once for all devices of the mesh.

The state is replicated on every device; crops are uint8 [B, crop, crop, 3], RGB, sharded over
the devices.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array

from hvsjnd_jax.data.crops import Crops
from hvsjnd_jax.metrics.backbones import Backbones
from hvsjnd_jax.runtime.sharding import AXIS, REPLICATED, SHARDED, PyTree
from hvsjnd_jax.training.config import Stage, TrainConfig
from hvsjnd_jax.training.objectives import Terms, jnd_objective, rate_distortion_objective
from hvsjnd_jax.training.train_state import TrainState, make_optimizer, make_schedule

Step = Callable[[TrainState, int, PyTree, Crops, Backbones | None], tuple[TrainState, Terms]]

# (params, frozen, backbones, crops) -> (total, terms)
_Objective = Callable[[PyTree, PyTree, Backbones | None, Crops], tuple[Array, Terms]]

# (params, frozen, backbones, crops) -> (gradient, terms)
_Gradient = Callable[[PyTree, PyTree, Backbones | None, Crops], tuple[PyTree, Terms]]


def make_step(config: TrainConfig, stage: Stage, graph: nnx.GraphDef, mesh: Mesh) -> Step:
  """Builds the jitted update: (state, step, frozen, crops, backbones) → (state, terms).

  Each device computes the gradient of its own crops, in `accumulation_steps` parts one
  after the other; one all-reduce averages gradients and terms over the mesh. The state's
  buffers are donated: the old state cannot be used afterwards. `backbones` are the networks
  of the quality form "aic", and None for every other form.

  Args:
    config: The run.
    stage: The stage whose objective is minimised.
    graph: The model's structure, from `split_model`.
    mesh: The devices. Their number times `accumulation_steps` must divide `batch_size`.
  """
  settings = config.settings(stage)
  optimizer, schedule = make_optimizer(settings), make_schedule(settings)
  objective = _make_objective(config, stage, graph)
  average_gradient = _make_gradient(objective, mesh, parts=settings.accumulation_steps)
  replicated = NamedSharding(mesh, REPLICATED)

  @functools.partial(jax.jit, donate_argnums=0, out_shardings=(replicated, replicated))
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
    # The decay is low at first, so that the initial weights soon leave the average.
    decay = jnp.minimum(settings.ema_decay, (1 + step) / (10 + step))
    ema = optax.incremental_update(params, state.ema, 1 - decay)
    terms |= {"gradient_norm": optax.tree.norm(grads), "learning_rate": jnp.asarray(schedule(step))}
    return TrainState(params, opt_state, ema), terms

  return run_step


def _make_objective(config: TrainConfig, stage: Stage, graph: nnx.GraphDef) -> _Objective:
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

  return objective


def _make_gradient(objective: _Objective, mesh: Mesh, *, parts: int) -> _Gradient:
  """Builds the gradient and the terms, averaged over the crops of all devices."""

  # The split over devices is not left to the compiler, which may gather a whole batch on every
  # device, and would reduce after every part. Nothing is differentiated through the shard_map,
  # so its own bookkeeping of replicas (check_vma) is not needed; custom derivatives, which the
  # networks have, do not know it.
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

  return average_gradient

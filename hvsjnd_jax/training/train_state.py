"""What a stage trains and what it leaves alone: the model's parts and the optimiser's state.

Parameters, the optimiser's state and averages are float32.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from hvsjnd_jax import weights
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.runtime.sharding import PyTree
from hvsjnd_jax.training.config import Stage, StageConfig, TrainConfig

# The part of a JNDModel that a stage trains.
_NETWORK: dict[Stage, str] = {"hvs_sd": "hvs_sd", "jnd": "generator"}


class TrainState(NamedTuple):
  """What training changes."""

  params: PyTree
  optimizer: PyTree
  ema: PyTree  # moving average of the parameters, which is exported


def build_model(config: TrainConfig) -> JNDModel:
  """Builds the networks, with initial weights drawn from the config's seed."""
  return JNDModel(
    resolution=config.jnd.resolution,
    attention_layer=config.jnd.attention_layer,
    hvs_sd_channels=_find_channels(config),
    generator_channels=config.jnd.generator_channels if config.jnd.resolution == "fine" else None,
    dtype=jnp.bfloat16 if config.compute_dtype == "bfloat16" else None,
    rngs=nnx.Rngs(config.seed),
  )


def _find_channels(config: TrainConfig) -> int | None:
  if not config.jnd.priors:
    return None
  if source := config.jnd.hvs_sd:
    return weights.read_manifest(source)["architecture"]["hvs_sd_channels"]
  return config.hvs_sd.channels


def split_model(model: JNDModel, stage: Stage) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
  """Splits a model into its structure, the parameters a stage trains, and the frozen ones."""
  graph, params, frozen = nnx.split(model, nnx.PathContains(_NETWORK[stage]), ...)
  return graph, params, frozen


def init_state(params: PyTree, settings: StageConfig) -> TrainState:
  """Returns the state before the first step."""
  # The average starts as a copy, because a donated buffer must not stand in the state twice.
  return TrainState(params, make_optimizer(settings).init(params), jax.tree.map(jnp.copy, params))


def make_optimizer(settings: StageConfig) -> optax.GradientTransformation:
  """Makes Adam behind clipping by the global norm."""
  adam = optax.adam(make_schedule(settings))
  return optax.chain(optax.clip_by_global_norm(settings.clip_norm), adam)


def make_schedule(settings: StageConfig) -> optax.Schedule:
  """Makes the learning rate by step: linear warm-up, then cosine decay to a hundredth."""
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=settings.learning_rate,
    warmup_steps=settings.warmup_steps,
    decay_steps=settings.num_steps,
    end_value=settings.learning_rate / 100,
  )

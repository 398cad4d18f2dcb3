"""Our training steps, ready to be timed, without PyTorch."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

import hvsjnd_jax
from hvsjnd_jax.cli.config_file import load_config
from hvsjnd_jax.data.crops import Crops
from hvsjnd_jax.data.images import to_uint8
from hvsjnd_jax.runtime.sharding import PyTree, choose_devices, make_mesh, replicate, shard_batch
from hvsjnd_jax.training.config import Stage, TrainConfig
from hvsjnd_jax.training.train_state import TrainState, init_state, split_model
from hvsjnd_jax.training.train_step import Step, make_step
from tests.benchmarks.pictures import draw_image

_CONFIGS = Path(__file__).parents[2] / "configs"


class OurStep(NamedTuple):
  """A step of training, and what it starts from."""

  run: Step
  state: TrainState
  frozen: PyTree
  batch: Crops


def load_recipe(name: str) -> TrainConfig:
  """Loads a config by name; PyTorch's twin has the objectives of "paper"."""
  return load_config(str(_CONFIGS / f"{name}.py"), [], photographs=False)


def draw_crops(batch_size: int, crop_px: int) -> Crops:
  """Draws a batch, as the trainer reads it."""
  images = np.concatenate([draw_image(crop_px, crop_px, seed=i) for i in range(batch_size)])
  indices = np.arange(batch_size)
  return Crops(to_uint8(images), indices.astype(np.uint32), indices)


def build_step(
  config: TrainConfig, stage: Stage, crops: Crops, *, weights: str, dtype: str = "float32"
) -> OurStep:
  """Builds a step from shipped weights, on the first device, or all that share a CPU."""
  on_cpu = jax.default_backend() == "cpu"
  mesh = make_mesh(choose_devices(parts=len(crops.pixels)) if on_cpu else jax.devices()[:1])
  graph, params, frozen = split_model(hvsjnd_jax.load(weights, dtype=dtype), stage)
  state = replicate(init_state(params, config.settings(stage)), mesh)
  run = make_step(config, stage, graph, mesh)
  return OurStep(run, state, replicate(frozen, mesh), shard_batch(crops, mesh))

"""A training step of each stage, timed in both libraries."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import hvsjnd_jax
from hvsjnd_jax.data.crops import Crops
from hvsjnd_jax.training.config import Stage, TrainConfig
from tests.benchmarks import machine
from tests.benchmarks.contenders import (
  Form,
  Run,
  build_twin,
  check_difference,
  list_forms,
  take_turns,
  to_torch,
)
from tests.benchmarks.steps import build_step, draw_crops, load_recipe
from tests.benchmarks.tables import OURS, Row, say
from tests.benchmarks.torch_twin import Trainer

# Relative difference of a first step's loss and gradient norm; 3e-6 was measured.
STEP_TOLERANCE = 1e-5


def measure_train(args: argparse.Namespace, _machine_gflops: float) -> list[Row]:
  """Times a step of each stage."""
  config = load_recipe("paper")
  rows = []
  for stage in config.stages:
    say(f"  {stage}")
    settings = config.settings(stage)
    crops = draw_crops(settings.batch_size, settings.crop_px)
    runs = {OURS: prepare_our_step(config, stage, crops)} | {
      name: prepare_their_step(config, stage, crops, form=form)
      for name, form in list_forms().items()
    }
    seconds, first_seconds, (ours, *others) = take_turns(runs, args.runs)
    difference = max(float(np.abs(figures / ours - 1).max()) for figures in others)
    check_difference(f"train {stage}", difference, STEP_TOLERANCE, args)
    name = f"train {stage}, {settings.batch_size} of {settings.crop_px}x{settings.crop_px}"
    rows.append(Row(name, seconds, first_seconds, difference))
  return rows


def prepare_our_step(config: TrainConfig, stage: Stage, crops: Crops) -> Run:
  """Prepares steps of our training from the weights "paper"; each returns loss and norm."""
  run_step, state, frozen, batch = build_step(config, stage, crops, weights="paper")
  step = 0

  def run() -> np.ndarray:
    nonlocal state, step
    state, terms = jax.block_until_ready(run_step(state, step, frozen, batch, None))
    step += 1
    return np.asarray([float(terms["loss"]), float(terms["gradient_norm"])])

  return run


def prepare_their_step(config: TrainConfig, stage: Stage, crops: Crops, *, form: Form) -> Run:
  """Prepares the twin's steps; the first uses the noise of our first, to compare the two."""
  trainer = Trainer(build_twin(hvsjnd_jax.load("paper"), form), config, stage)
  pixels, our_noise = to_torch(crops.pixels, form), to_torch(_draw_our_noise(crops, stage), form)

  def run() -> np.ndarray:
    images = pixels / 255
    noise = trainer.draw_noise(images) if trainer.steps else our_noise
    loss, norm = trainer.step(images, noise)
    machine.synchronize()
    return np.asarray([loss.item(), norm.item()])

  return run


def _draw_our_noise(crops: Crops, stage: Stage) -> np.ndarray:
  """Draws the noise that the objectives draw for a batch, NHWC."""
  side = crops.pixels.shape[1]

  def draw(seed: jax.Array) -> jax.Array:
    key = jax.random.key(seed)
    if stage == "hvs_sd":
      return jax.random.uniform(key, (side // 8, side // 8, 128), minval=-0.5, maxval=0.5)
    return hvsjnd_jax.random_signs(key, (side, side))[..., None]

  return np.asarray(jax.vmap(draw)(jnp.asarray(crops.noise_seeds)))

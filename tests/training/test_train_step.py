"""One update of each stage: what it computes, in what precision, and what becomes of its state."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params

from hvsjnd_jax.data.crops import Crops
from hvsjnd_jax.data.sources import SyntheticPhotos
from hvsjnd_jax.model.hvs_sd import HVSSD
from hvsjnd_jax.runtime.sharding import PyTree, make_mesh, replicate, shard_batch
from hvsjnd_jax.training.config import RateDistortionConfig, Stage, TrainConfig
from hvsjnd_jax.training.objectives import Terms
from hvsjnd_jax.training.train_state import TrainState, build_model, init_state, split_model
from hvsjnd_jax.training.train_step import make_step
from tests.training.runs import paper_config

CROP_PX: dict[Stage, int] = {"hvs_sd": 16, "jnd": 168}
BATCH_SIZE: dict[Stage, int] = {"hvs_sd": 4, "jnd": 2}


# Those of configs/paper.py.
WEIGHTS: dict[str, float] = {
  "magnitude_weight": 1.0,
  "quality_weight": 3.0,
  "attention_weight": 0.3,
  "visibility_weight": 0.25,
}


def make_config(stage: Stage, **settings: Any) -> TrainConfig:
  """Small crops, and descent from the first step on, by whole gradients."""
  base: dict[str, Any] = {
    "crop_px": CROP_PX[stage],
    "batch_size": BATCH_SIZE[stage],
    "warmup_steps": 0,
    "clip_norm": 1e9,
  } | settings
  if stage == "hvs_sd":
    return TrainConfig(hvs_sd=RateDistortionConfig(ordering_weight=0.0, **base))
  # The fine map of a fresh generator is faint: what it does to attention is rounding.
  return TrainConfig(jnd=paper_config(**WEIGHTS, **base))


class Run:
  """A stage's step with what it takes: a narrow HVS-SD, and random crops."""

  def __init__(self, config: TrainConfig, stage: Stage):
    self.mesh = make_mesh(jax.devices()[:1])
    model = build_model(config)
    model.hvs_sd = HVSSD(8, dtype=model.require_hvs_sd("test").encoder.dtype, rngs=nnx.Rngs(1))
    graph, params, self.frozen = split_model(model, stage)
    settings = config.settings(stage)
    self.state = replicate(init_state(params, settings), self.mesh)
    self.frozen = replicate(self.frozen, self.mesh)
    self.step: Any = make_step(config, stage, graph, self.mesh)
    self._batch_size, self._crop_px = settings.batch_size, settings.crop_px

  def crops(self) -> Crops:
    photos = SyntheticPhotos(self._batch_size)
    pixels = [photos[i][: self._crop_px, : self._crop_px] for i in range(self._batch_size)]
    seeds = np.arange(self._batch_size, dtype=np.uint32)
    return shard_batch(Crops(np.stack(pixels), seeds, seeds.astype(np.int32)), self.mesh)

  def arguments(self) -> tuple[TrainState, int, PyTree, Crops]:
    return self.state, 0, self.frozen, self.crops()


@functools.cache
def run_once(
  stage: Stage, *, accumulation_steps: int = 1, compute_dtype: Any = "float32"
) -> tuple[TrainState, Terms]:
  config = make_config(stage, accumulation_steps=accumulation_steps)
  config.compute_dtype = compute_dtype
  run = Run(config, stage)
  return run.step(*run.arguments())


def read_gradient(state: TrainState) -> PyTree:
  """What the first update descended along: a tenth of it is Adam's momentum."""
  ((_, (adam, *_)),) = [state.optimizer]
  return jax.tree.map(lambda leaf: np.asarray(leaf) / 0.1, adam.mu)


# Float32 sums in another order: 5e-7 of a term was measured, and 8e-6 of the largest entry of
# a stage-1 gradient. That of stage 2 passes through the scaling of two attention maps, which
# magnifies rounding: five equal forms of the layers gave between 2e-5 and 1.4e-4.
SAME_TERM = 2e-6
SAME_GRADIENT: dict[Stage, float] = {"hvs_sd": 3e-5, "jnd": 2e-4}


@pytest.mark.parametrize(
  ("stage", "parts"),
  [("hvs_sd", 2), ("hvs_sd", 4), pytest.param("jnd", 2, marks=pytest.mark.slow)],
)
def test_parts_of_a_batch_give_the_gradient_of_the_whole(stage: Stage, parts: int):
  state, terms = run_once(stage)
  state_of_parts, terms_of_parts = run_once(stage, accumulation_steps=parts)
  assert terms_of_parts.keys() == terms.keys()
  for name, value in terms.items():
    tolerance = SAME_GRADIENT[stage] if name == "gradient_norm" else SAME_TERM
    np.testing.assert_allclose(terms_of_parts[name], value, rtol=tolerance, err_msg=name)
  gradients = [jax.tree.leaves(read_gradient(found)) for found in (state, state_of_parts)]
  for want, found in zip(*gradients, strict=True):
    largest = np.abs(want).max()
    assert largest > 0
    np.testing.assert_allclose(found, want, rtol=0, atol=SAME_GRADIENT[stage] * largest)


# Twice what was measured. Bfloat16 keeps 8 bits, 4e-3 a rounding; the gradient of stage 2
# passes through that of the attention, and through many more layers.
NEAR_TERM: dict[Stage, float] = {"hvs_sd": 1.5e-3, "jnd": 0.03}
NEAR_GRADIENT: dict[Stage, float] = {"hvs_sd": 1.5e-3, "jnd": 0.15}


@pytest.mark.parametrize("stage", ["hvs_sd", "jnd"])
def test_bfloat16_is_near_float32(stage: Stage):
  _, terms = run_once(stage)
  state, near = run_once(stage, compute_dtype="bfloat16")
  for name, value in terms.items():
    tolerance = NEAR_GRADIENT if name == "gradient_norm" else NEAR_TERM
    np.testing.assert_allclose(near[name], value, rtol=tolerance[stage], err_msg=name)
  assert near["gradient_norm"] != terms["gradient_norm"]
  for leaf in jax.tree.leaves((state, near)):
    assert leaf.dtype in (jnp.float32, jnp.int32), "int32: Adam's count of steps"


# XLA's, and those of `layers`, which are primitives of their own.
CONVOLUTIONS = ("conv_general_dilated", "convolve_with_stride", "convolve_transposed")


def walk(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
  """Goes through all equations, those of inner functions too, as often as they are called."""
  for equation in jaxpr.eqns:
    yield equation
    for inner in jaxprs_in_params(equation.params):
      yield from walk(inner)


@pytest.mark.parametrize("stage", ["hvs_sd", "jnd"])
def test_bfloat16_is_what_layers_compute_in(stage: Stage):
  def convolutions(compute_dtype: Any) -> list[str]:
    config = make_config(stage)
    config.compute_dtype = compute_dtype
    run = Run(config, stage)
    equations = walk(jax.make_jaxpr(run.step)(*run.arguments()).jaxpr)
    found = (equation for equation in equations if equation.primitive.name in CONVOLUTIONS)
    results: list[Any] = [equation.outvars[0].aval for equation in found]
    return [result.dtype.name for result in results]

  plain, near = convolutions("float32"), convolutions("bfloat16")
  assert set(plain) == {"float32"}
  assert len(near) == len(plain)
  # Feature and reconstruction come from layers in float32; those of the priors are float32.
  assert set(near) == {"float32", "bfloat16"}
  assert near.count("bfloat16") > 2 / 3 * len(near) - 1


@pytest.mark.parametrize("stage", ["hvs_sd", "jnd"])
def test_step_compiles_once_and_takes_the_state_over(
  stage: Stage, caplog: pytest.LogCaptureFixture
):
  run = Run(make_config(stage, batch_size=1), stage)
  states, crops = [run.state], run.crops()
  with caplog.at_level("WARNING"), jax.log_compiles():
    for step in range(3):
      states.append(run.step(states[-1], step, run.frozen, crops)[0])
  compiled = [record for record in caplog.records if "Compiling jit(run_step)" in record.message]
  assert len(compiled) == 1
  *old, newest = states
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((newest, run.frozen, crops)))


def test_young_average_follows_fast():
  run = Run(make_config("hvs_sd"), "hvs_sd")
  before = jax.tree.map(np.asarray, run.state.ema)
  state, _ = run.step(*run.arguments())
  leaves = map(jax.tree.leaves, (before, state.params, state.ema))
  for old, new, average in zip(*leaves, strict=True):
    assert not np.array_equal(old, new)
    # (1 + step) / (10 + step) of the old, and one rounding.
    np.testing.assert_allclose(average, 0.1 * old + 0.9 * new, rtol=1e-6, atol=1e-8)

"""What `accelerator` measures of this package: networks, training steps, models of vision."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import hvsjnd_jax
from hvsjnd_jax.metrics import butteraugli, cvvdp, ssimulacra2
from hvsjnd_jax.model import layers
from hvsjnd_jax.ops import axis_maps
from hvsjnd_jax.training.config import Stage
from tests.benchmarks.machine import Precision
from tests.benchmarks.pictures import draw_image
from tests.benchmarks.steps import build_step, draw_crops, load_recipe
from tests.benchmarks.tables import OURS
from tests.benchmarks.work import Program, Sizes, Subject, compile_and_count

PLAIN, PHASES = "plain", "four phases"

STAGES: tuple[Stage, ...] = ("hvs_sd", "jnd")

_INPUTS = 3

_FORMS = {PLAIN: layers._convolve_dilated, PHASES: layers._convolve_phases}

_METRICS: dict[str, Callable[..., jax.Array]] = {
  "butteraugli": butteraugli,
  "ssimulacra2": ssimulacra2,
  "cvvdp": cvvdp,
}

# Products of float32 arrays in bfloat16 proper, which "bfloat16" is not on a GPU. Only models of
# vision can be run so: it is not for convolutions, of which they have none.
_PRODUCTS_IN_BFLOAT16 = "BF16_BF16_F32"


def list_upsampling(sizes: Sizes) -> list[Subject]:
  """Lists both forms of the two kinds of transposed convolutions in the paper's decoder."""
  height, width = sizes.image
  batch = max(sizes.batches)
  subjects = []
  for outputs, cell_px in ((128, 4), (3, 2)):
    shape = (batch, height // cell_px // 2, width // cell_px // 2, 128)
    task = f"upsample {batch} of {shape[1]}x{shape[2]}, 128 to {outputs}"
    for name, form in _FORMS.items():
      build = functools.partial(_build_upsampling, form, shape, outputs)
      subjects.append(Subject("upsampling", task, name, batch, build))
  return subjects


def name_estimate(weights: str, batch: int, sizes: Sizes) -> str:
  """Names the task of an estimate."""
  return f"estimate {weights}, {batch} of {sizes.image_name}"


def list_estimates(weights: str, sizes: Sizes) -> list[Subject]:
  """Lists the estimates of shipped weights, one for each size of a batch."""
  return [
    Subject(
      "estimate",
      name_estimate(weights, batch, sizes),
      OURS,
      batch,
      functools.partial(_build_estimate, weights, batch, sizes),
    )
    for batch in sizes.batches
  ]


def name_step(recipe: str, stage: Stage, sizes: Sizes) -> str:
  """Names the task of a training step."""
  side = find_crop_px(recipe, stage, sizes)
  return f"train {recipe} {stage}, {sizes.crops} of {side}x{side}"


def find_crop_px(recipe: str, stage: Stage, sizes: Sizes) -> int:
  """Finds the side of a stage's crops."""
  return sizes.crop_px.get(stage) or load_recipe(recipe).settings(stage).crop_px


def list_steps(recipe: str, sizes: Sizes) -> list[Subject]:
  """Lists the training steps of a config, from the shipped weights of its name."""
  return [
    Subject(
      "train",
      name_step(recipe, stage, sizes),
      OURS,
      sizes.crops,
      functools.partial(_build_step, recipe, stage, sizes),
    )
    for stage in STAGES
  ]


def list_vision(sizes: Sizes) -> list[Subject]:
  """Lists the models of vision."""
  batch = max(sizes.batches)
  return [
    Subject(
      "vision",
      f"{name}, {batch} pairs of {sizes.image_name}",
      OURS,
      batch,
      functools.partial(_build_metric, metric, batch, sizes),
    )
    for name, metric in _METRICS.items()
  ]


@functools.lru_cache(maxsize=2)
def draw_batches(batch: int, size: tuple[int, int]) -> list[np.ndarray]:
  """Draws several batches of images."""
  return [
    np.concatenate([draw_image(*size, seed=batch * i + j) for j in range(batch)])
    for i in range(_INPUTS)
  ]


def _prepare(function: Callable[..., jax.Array], inputs: Sequence[tuple[Any, ...]]) -> Program:
  """Compiles a pure function of arrays, of which there are several."""
  compiled, flop = compile_and_count(jax.jit(function).lower(*inputs[0]))
  return Program(
    lambda i: compiled(*inputs[i % len(inputs)]), jax.block_until_ready, np.asarray, flop
  )


def _build_upsampling(
  form: Callable[..., jax.Array], shape: tuple[int, ...], outputs: int, precision: Precision
) -> Program:
  dtype = _name_dtype(precision)
  keys = jax.random.split(jax.random.key(0), _INPUTS)
  kernel = jax.random.normal(keys[0], (5, 5, outputs, shape[-1])).astype(dtype)
  inputs = [(jax.random.normal(key, shape).astype(dtype), kernel) for key in keys]
  program = _prepare(form, inputs)
  return program._replace(read=lambda result: np.asarray(result, np.float32))


def _build_estimate(weights: str, batch: int, sizes: Sizes, precision: Precision) -> Program:
  model = hvsjnd_jax.load(weights, dtype=_name_dtype(precision))
  # The form of maps that PyTorch's twin draws as well.
  resolution = "native" if weights == "paper" else None
  estimate = functools.partial(hvsjnd_jax.estimate, resolution=resolution)
  batches = draw_batches(batch, sizes.image)
  return _prepare(estimate, [(model, jnp.asarray(images)) for images in batches])


def _build_step(recipe: str, stage: Stage, sizes: Sizes, precision: Precision) -> Program:
  """Builds steps that follow each other, as in training; the first one's gradient is compared."""
  config = load_recipe(recipe)
  config.settings(stage).batch_size = sizes.crops
  crops = draw_crops(sizes.crops, find_crop_px(recipe, stage, sizes))
  step = build_step(config, stage, crops, weights=recipe, dtype=_name_dtype(precision))
  run: Any = step.run  # the type Step hides that it is jitted
  compiled, flop = compile_and_count(run.lower(step.state, 0, step.frozen, step.batch, None))
  state, number = step.state, 0

  def call(_: int) -> Any:
    nonlocal state, number
    state, terms = compiled(state, number, step.frozen, step.batch, None)
    number += 1
    return state, terms

  def read(result: Any) -> np.ndarray:
    # Adam's mean after one step is the gradient, clipped, times a constant.
    means = jax.tree.leaves(optax.tree.get(result[0].optimizer, "mu"))
    return np.concatenate([np.asarray(mean).ravel() for mean in means])

  return Program(call, jax.block_until_ready, read, flop)


def _build_metric(
  metric: Callable[..., jax.Array], batch: int, sizes: Sizes, precision: Precision
) -> Program:
  rng = np.random.default_rng(1)
  inputs = []
  for reference in draw_batches(batch, sizes.image):
    noise = 0.03 * rng.standard_normal(reference.shape, np.float32)
    pair = (np.clip(reference + noise, 0, 1), reference)
    inputs.append(tuple(jnp.asarray(images) for images in pair))
  if precision == "float32":
    return _prepare(metric, inputs)
  with _lowering_precision(_PRODUCTS_IN_BFLOAT16 if precision == "bfloat16" else "tensorfloat32"):
    return _prepare(metric, inputs)


@contextmanager
def _lowering_precision(name: str) -> Iterator[None]:
  """Lets the models of vision multiply in less than float32, which the package never does."""
  before, axis_maps.PRECISION = axis_maps.PRECISION, None
  try:
    with jax.default_matmul_precision(name):
      yield
  finally:
    axis_maps.PRECISION = before


def _name_dtype(precision: Precision) -> str:
  return "bfloat16" if precision == "bfloat16" else "float32"

"""Every public function works where a program makes errors of JAX's implicit promotions."""

from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import hvsjnd_jax
from hvsjnd_jax import metrics
from hvsjnd_jax.baselines import BASELINES
from hvsjnd_jax.metrics import METRICS
from hvsjnd_jax.metrics.backbones import VGG16, Backbones, ResNet34
from hvsjnd_jax.model.hvs_sd import HVSSD
from hvsjnd_jax.model.jnd_map import Resolution
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.model.masking import threshold
from hvsjnd_jax.training.config import (
  AttentionForm,
  JNDConfig,
  MagnitudeForm,
  QualityForm,
  RateDistortionConfig,
)
from hvsjnd_jax.training.objectives import jnd_objective, rate_distortion_objective
from tests.training.runs import paper_config

# Tracing raises what computing would: nothing here is compiled.
IMAGES = jax.ShapeDtypeStruct((2, 168, 176, 3), jnp.float32)
SMALL = jax.ShapeDtypeStruct((2, 16, 24, 3), jnp.float32)
KEY = jax.random.key(0)


MODEL = nnx.eval_shape(lambda: JNDModel(hvs_sd_channels=8, rngs=nnx.Rngs(0)))
FINE = nnx.eval_shape(
  lambda: JNDModel(resolution="fine", hvs_sd_channels=8, generator_channels=8, rngs=nnx.Rngs(0))
)
BACKBONES = nnx.eval_shape(lambda: Backbones(VGG16(rngs=nnx.Rngs(0)), ResNet34(rngs=nnx.Rngs(0))))


def differentiate(function: Callable[..., Any]) -> Callable[..., Any]:
  return jax.grad(lambda *arguments: jnp.sum(function(*arguments)))


def measure(name: str) -> None:
  metric = METRICS[name]
  if metric.backbone:
    function = differentiate(lambda x, y, vgg16: metric.function(x, y, vgg16=vgg16))
    jax.eval_shape(function, IMAGES, IMAGES, BACKBONES.vgg16)
  else:
    jax.eval_shape(differentiate(metric.function), IMAGES, IMAGES)


def estimate(**options: Any) -> None:
  def function(images: jax.Array, model: JNDModel) -> jax.Array:
    return hvsjnd_jax.estimate(model, images, **options)

  model = FINE if options.get("resolution") == "fine" else MODEL
  jax.eval_shape(differentiate(function), SMALL, model)


def inject(*shape: int) -> None:
  def function(images: jax.Array, jnd: jax.Array) -> jax.Array:
    return hvsjnd_jax.inject(images, jnd, hvsjnd_jax.random_signs(KEY, shape), lmbda=10)

  jax.eval_shape(function, SMALL, SMALL)


def train_generator(**settings: Any) -> None:
  def function(model: JNDModel, images: jax.Array, backbones: Backbones) -> jax.Array:
    keys = jax.random.split(KEY, len(images))
    return jnd_objective(model, images, keys, config=config, backbones=backbones)[0]

  config = paper_config(**settings) if settings else JNDConfig(quality_weight=1.0)
  model = FINE if config.resolution == "fine" else MODEL
  jax.eval_shape(jax.grad(function), model, IMAGES, BACKBONES)


def train_hvs_sd() -> None:
  def function(hvs_sd: HVSSD, images: jax.Array) -> jax.Array:
    keys = jax.random.split(KEY, len(images))
    return rate_distortion_objective(hvs_sd, images, keys, config=RateDistortionConfig())[0]

  jax.eval_shape(jax.grad(function), MODEL.hvs_sd, SMALL)


CALLS: dict[str, Callable[[], Any]] = {
  **{
    f"estimate {name}": lambda name=name: estimate(resolution=name) for name in get_args(Resolution)
  },
  "estimate feature": lambda: estimate(attention_layer="feature"),
  "degrade": lambda: jax.eval_shape(hvsjnd_jax.degrade, MODEL, SMALL),
  **{
    f"inject {shape}": lambda shape=shape: inject(*shape)
    for shape in ((16, 24), (16, 24, 3), (2, 16, 24), (2, 16, 24, 3))
  },
  "threshold": lambda: jax.eval_shape(threshold, SMALL),
  **{
    name: lambda baseline=baseline: jax.eval_shape(baseline.function, SMALL)
    for name, baseline in BASELINES.items()
  },
  **{name: lambda name=name: measure(name) for name in METRICS},
  "ssim wang2004": lambda: jax.eval_shape(
    lambda x, y: metrics.ssim(x, y, variant="wang2004"), IMAGES, IMAGES
  ),
  "butteraugli_map": lambda: jax.eval_shape(metrics.butteraugli_map, IMAGES, IMAGES),
  "cvvdp_map": lambda: jax.eval_shape(metrics.cvvdp_map, IMAGES, IMAGES),
  "stage 1": train_hvs_sd,
  "stage 2": train_generator,
  **{
    f"stage 2 {field} {value}": lambda field=field, value=value: train_generator(**{field: value})
    for field, values in {
      "magnitude_form": get_args(MagnitudeForm),
      "quality_form": get_args(QualityForm),
      "attention_form": get_args(AttentionForm),
      "quality_domain": ("pixels",),
    }.items()
    for value in values
  },
}

PROMOTIONS = {
  "ranks": lambda: jax.numpy_rank_promotion("raise"),
  "types": lambda: jax.numpy_dtype_promotion("strict"),
}


@pytest.mark.parametrize("promotion", PROMOTIONS)
@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_promoted(name: str, promotion: str):
  with PROMOTIONS[promotion]():
    CALLS[name]()


@pytest.mark.parametrize("promotion", PROMOTIONS)
@pytest.mark.parametrize("resolution", get_args(Resolution))
def test_nothing_is_promoted_in_windows(
  small_model: JNDModel, fine_model: JNDModel, resolution: Resolution, promotion: str
):
  image = np.zeros((1, 16, 24, 3), np.float32)
  model = fine_model if resolution == "fine" else small_model
  with PROMOTIONS[promotion]():
    hvsjnd_jax.estimate(model, image, resolution=resolution, window=(120, 128))

"""The objectives of both training stages."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hvsjnd_jax.estimator import analyze
from hvsjnd_jax.metrics.backbones import VGG16, Backbones, ResNet34
from hvsjnd_jax.model.hvs_sd import HVSSD
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.noise import inject, random_signs
from hvsjnd_jax.training import losses, objectives, released_losses
from hvsjnd_jax.training.config import JNDConfig, RateDistortionConfig
from hvsjnd_jax.training.vision_losses import VISION_TERMS
from tests.training.runs import paper_config

DrawImages = Callable[..., jax.Array]
FlatImages = Callable[[int], jax.Array]

# Weights that are all different, so that none can stand for another.
CONFIG = paper_config()
# A weighted sum of a few float32 terms.
SUM = 1e-5


def draw_keys(*seeds: int) -> jax.Array:
  return jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))


RunRateDistortion = Callable[[jax.Array, jax.Array], tuple[jax.Array, objectives.Terms]]


@pytest.fixture(scope="module")
def run_rate_distortion(small_hvs_sd: HVSSD) -> RunRateDistortion:
  @jax.jit
  def run(images: jax.Array, keys: jax.Array) -> tuple[jax.Array, objectives.Terms]:
    config = RateDistortionConfig(rate_distortion_lambda=128.0, ordering_weight=0.0)
    return objectives.rate_distortion_objective(small_hvs_sd, images, keys, config=config)

  return run


def test_rate_distortion_objective(run_rate_distortion: RunRateDistortion, draw_images: DrawImages):
  images = draw_images(2, 16, 24)
  total, terms = run_rate_distortion(images, draw_keys(0, 1))
  assert terms.keys() == {"mse", "bpp"}
  assert total.shape == terms["mse"].shape == terms["bpp"].shape == ()
  assert jnp.isfinite(total)
  np.testing.assert_allclose(total, 128 * terms["mse"] + terms["bpp"], rtol=SUM)

  # The noise is used, in the distortion and in the rate, and comes from the keys alone.
  _, again = run_rate_distortion(images, draw_keys(0, 1))
  for keys in (draw_keys(0, 2), draw_keys(2, 1), draw_keys(1, 0)):
    _, other = run_rate_distortion(images, keys)
    for name, value in terms.items():
      assert again[name] == value
      assert other[name] != value


def test_rate_distortion_of_a_batch_is_the_mean_of_its_images(
  run_rate_distortion: RunRateDistortion, draw_images: DrawImages
):
  images, keys = draw_images(3, 16, 24), draw_keys(5, 6, 7)
  batch = run_rate_distortion(images, keys)
  alone = [run_rate_distortion(images[i : i + 1], keys[i : i + 1]) for i in range(3)]
  assert_is_mean(batch, alone)


def assert_is_mean(batch: tuple, alone: list[tuple]) -> None:
  total, terms = batch
  np.testing.assert_allclose(total, np.mean([one for one, _ in alone]), rtol=SUM)
  for name, value in terms.items():
    np.testing.assert_allclose(value, np.mean([one[name] for _, one in alone]), rtol=SUM)


RunJND = Callable[[jax.Array, jax.Array], tuple]


@pytest.fixture(scope="module")
def run_jnd_objective(model: JNDModel) -> RunJND:
  """(Total, terms) and the generator's gradient."""
  graph, generator, frozen = nnx.split(model, nnx.PathContains("generator"), ...)

  @jax.jit
  def run(images: jax.Array, keys: jax.Array) -> tuple:
    def objective(generator: nnx.State) -> tuple[jax.Array, objectives.Terms]:
      merged = nnx.merge(graph, generator, frozen)
      return objectives.jnd_objective(merged, images, keys, config=CONFIG)

    return jax.value_and_grad(objective, has_aux=True)(generator)

  return run


def test_jnd_objective(run_jnd_objective: RunJND, draw_images: DrawImages):
  images = draw_images(1, 168, 168)
  (total, terms), gradient = run_jnd_objective(images, draw_keys(0))
  assert terms.keys() == {"magnitude", "quality", "attention", "visibility"}
  want = sum(getattr(CONFIG, f"{name}_weight") * value for name, value in terms.items())
  np.testing.assert_allclose(total, want, rtol=SUM)
  for value in (total, *terms.values()):
    assert value.shape == ()
    assert value > 0
  for leaf in jax.tree.leaves(gradient):
    assert jnp.isfinite(leaf).all()
    assert (leaf != 0).any()

  # The signs come from the key, and matter where the distorted image does.
  (_, other), _ = run_jnd_objective(images, draw_keys(1))
  assert {name for name, value in terms.items() if other[name] != value} == {
    "quality",
    "attention",
  }


def test_jnd_objective_of_a_batch_is_the_mean_of_its_images(
  run_jnd_objective: RunJND, draw_images: DrawImages
):
  images, keys = draw_images(2, 168, 168), draw_keys(5, 6)
  batch, _ = run_jnd_objective(images, keys)
  alone = [run_jnd_objective(images[i : i + 1], keys[i : i + 1])[0] for i in range(2)]
  assert_is_mean(batch, alone)


@pytest.mark.parametrize("index", [0, 1, 2], ids=["black", "grey", "white"])
def test_jnd_objective_on_flat_images_is_finite(
  run_jnd_objective: RunJND, flat_images: FlatImages, index: int
):
  image = flat_images(168)[index : index + 1]
  for leaf in jax.tree.leaves(run_jnd_objective(image, draw_keys(0))):
    assert jnp.isfinite(leaf).all()


def test_vision_objective(fine_model: JNDModel, draw_images: DrawImages):
  """The default weights' objective, with a term of HVS-SD's beside it."""
  config = JNDConfig(quality_weight=0.5)
  images = draw_images(2, 168, 168)
  graph, generator, frozen = nnx.split(fine_model, nnx.PathContains("generator"), ...)

  @jax.jit
  def run(images: jax.Array, keys: jax.Array) -> tuple:
    def objective(generator: nnx.State) -> tuple[jax.Array, objectives.Terms]:
      merged = nnx.merge(graph, generator, frozen)
      return objectives.jnd_objective(merged, images, keys, config=config)

    return jax.value_and_grad(objective, has_aux=True)(generator)

  (total, terms), gradient = run(images, draw_keys(0, 1))
  assert terms.keys() == {*VISION_TERMS, "structure", "departure", "quality"}
  want = sum(getattr(config, f"{name}_weight") * value for name, value in terms.items())
  np.testing.assert_allclose(total, want, rtol=SUM)
  for leaf in jax.tree.leaves(gradient):
    assert jnp.isfinite(leaf).all()
    assert (leaf != 0).any()
  (_, other), _ = run(images, draw_keys(0, 2))
  assert {name for name in terms if other[name] == terms[name]} == {"departure"}

  for flat in (0.0, 0.5, 1.0):
    for leaf in jax.tree.leaves(run(jnp.full_like(images, flat), draw_keys(0, 1))):
      assert jnp.isfinite(leaf).all()


def test_ordering_objective(small_hvs_sd: HVSSD, draw_images: DrawImages):
  graph, state = nnx.split(small_hvs_sd)
  config = RateDistortionConfig(ordering_weight=3.0, rate_distortion_lambda=128.0)

  @jax.jit
  def run(images: jax.Array, keys: jax.Array) -> tuple:
    def objective(state: nnx.State) -> tuple[jax.Array, objectives.Terms]:
      merged = nnx.merge(graph, state)
      return objectives.rate_distortion_objective(merged, images, keys, config=config)

    return jax.value_and_grad(objective, has_aux=True)(state)

  images, keys = draw_images(2, 128, 128), draw_keys(0, 1)
  (total, terms), gradient = run(images, keys)
  want = 128 * terms["mse"] + terms["bpp"] + 3 * terms["ordering"]
  np.testing.assert_allclose(total, want, rtol=SUM)
  assert terms["ordering"] > 0
  for leaf in jax.tree.leaves(gradient):
    assert jnp.isfinite(leaf).all()
  for flat in (0.0, 0.5, 1.0):
    for leaf in jax.tree.leaves(run(jnp.full_like(images, flat), keys)):
      assert jnp.isfinite(leaf).all()


def test_objective_without_hvs_sd(fast_model: JNDModel, draw_images: DrawImages):
  weights: dict[str, Any] = {f"{term}_weight": 0.0 for term in (*VISION_TERMS, "structure")}
  config = JNDConfig(priors=False, **weights)
  total, terms = objectives.jnd_objective(
    fast_model, draw_images(1, 168, 168), draw_keys(0), config=config
  )
  assert terms.keys() == {"departure"}
  np.testing.assert_allclose(total, 0.05 * terms["departure"], rtol=SUM)


@pytest.mark.slow
def test_released_objective(
  model: JNDModel, vgg16: VGG16, classifier: ResNet34, draw_images: DrawImages
):
  """The first released form; each term is the one that its name says."""
  config = paper_config(
    magnitude_form="mean", quality_form="aic", attention_form="kl", magnitude_weight=0.1
  )
  images, keys = draw_images(1, 168, 168), draw_keys(0)
  backbones = Backbones(vgg16, classifier)
  graph, generator, frozen = nnx.split(model, nnx.PathContains("generator"), ...)

  def objective(generator: nnx.State, frozen: Any) -> tuple[jax.Array, objectives.Terms]:
    frozen, backbones = frozen
    merged = nnx.merge(graph, generator, frozen)
    return objectives.jnd_objective(merged, images, keys, config=config, backbones=backbones)

  run = jax.jit(jax.value_and_grad(objective, has_aux=True))
  (total, terms), gradient = run(generator, (frozen, backbones))
  want = sum(getattr(config, f"{name}_weight") * value for name, value in terms.items())
  np.testing.assert_allclose(total, want, rtol=SUM)
  for leaf in jax.tree.leaves(gradient):
    assert jnp.isfinite(leaf).all()
    assert (leaf != 0).any()

  analysis = analyze(
    model, images, resolution=config.resolution, attention_layer=config.attention_layer
  )
  signs = jax.vmap(lambda key: random_signs(key, (168, 168)))(keys)
  distorted = inject(images, analysis.jnd, signs, lmbda=config.lmbda)
  noisy = analyze(model, distorted, attention_layer=config.attention_layer).priors
  clean = analysis.priors
  assert noisy is not None
  assert clean is not None
  quality = jax.jit(released_losses.aic_loss)(
    noisy.degraded,
    clean.degraded,
    released_losses.classify(classifier, noisy.degraded),
    vgg16=vgg16,
    gradient_floor=1.0,
  )
  others = {
    "magnitude": released_losses.mean_magnitude_loss(analysis.jnd, images),
    "quality": quality,
    "attention": losses.attention_loss(noisy.attention, clean.attention, form="kl"),
  }
  for name, value in others.items():
    np.testing.assert_allclose(terms[name], value[0], rtol=1e-3, err_msg=name)


@pytest.mark.slow
def test_quality_of_pixels(model: JNDModel, draw_images: DrawImages):
  """The distorted image itself is compared, not what the perceptual domain makes of it."""
  images, keys = draw_images(1, 168, 168), draw_keys(0)
  config = paper_config(quality_domain="pixels")
  _, terms = jax.jit(lambda: objectives.jnd_objective(model, images, keys, config=config))()
  jnd = analyze(
    model, images, resolution=config.resolution, attention_layer=config.attention_layer
  ).jnd
  signs = random_signs(keys[0], (168, 168))
  wanted = losses.quality_loss(inject(images, jnd, signs, lmbda=config.lmbda), images)
  np.testing.assert_allclose(terms["quality"], wanted[0], rtol=1e-3)


def test_aic_objective_needs_its_backbones(model: JNDModel, draw_images: DrawImages):
  config = paper_config(quality_form="aic")
  with pytest.raises(ValueError, match=r"'aic' needs backbones: see weights\.load_vgg16"):
    jax.eval_shape(
      lambda images: objectives.jnd_objective(model, images, draw_keys(0), config=config),
      draw_images(1, 168, 168),
    )

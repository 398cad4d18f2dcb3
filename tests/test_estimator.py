"""The public functions of a model: estimate, analyze, degrade."""

import functools
import warnings
from collections.abc import Callable
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import hvsjnd_jax
from hvsjnd_jax.model.jnd_map import Resolution
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.model.priors import AttentionLayer

DrawImages = Callable[..., jax.Array]
FlatImages = Callable[[int], jax.Array]

# The same sums in another order, through eleven convolutions; maps lie in [0, 1].
SELF = 1e-5

RESOLUTIONS = pytest.mark.parametrize("resolution", get_args(Resolution))
LAYERS = pytest.mark.parametrize("layer", ["reconstruction", "feature"])


def _inject_own_jnd(model: JNDModel, images: jax.Array) -> jax.Array:
  jnd = hvsjnd_jax.estimate(model, images)
  signs = hvsjnd_jax.random_signs(jax.random.key(0), images.shape[1:3])
  return hvsjnd_jax.inject(images, jnd, signs, lmbda=0.1)


def test_jit_equals_eager(small_model: JNDModel, draw_images: DrawImages):
  images = draw_images(1, 16, 24)
  with jax.disable_jit():
    eager = hvsjnd_jax.estimate(small_model, images)
  jitted = jax.jit(hvsjnd_jax.estimate)(small_model, images)
  np.testing.assert_allclose(jitted, eager, rtol=0, atol=SELF)


def test_outer_jit_changes_nothing(small_model: JNDModel, draw_images: DrawImages):
  images = draw_images(1, 16, 24)
  jitted = jax.jit(_inject_own_jnd)(small_model, images)
  np.testing.assert_allclose(jitted, _inject_own_jnd(small_model, images), rtol=0, atol=SELF)


def test_batch_equals_loop_and_vmap(small_model: JNDModel, draw_images: DrawImages):
  images = draw_images(3, 16, 24)
  estimate = functools.partial(hvsjnd_jax.estimate, small_model)
  together = estimate(images)
  loop = jnp.concatenate([estimate(images[i : i + 1]) for i in range(3)])
  mapped = jax.jit(jax.vmap(estimate))(images[:, None])[:, 0]
  np.testing.assert_allclose(together, loop, rtol=0, atol=SELF)
  np.testing.assert_allclose(mapped, loop, rtol=0, atol=SELF)


def test_analyze_is_estimate_and_degrade_in_one(small_model: JNDModel, draw_images: DrawImages):
  images = draw_images(1, 16, 24)
  jnd, priors = hvsjnd_jax.analyze(small_model, images)
  np.testing.assert_allclose(hvsjnd_jax.estimate(small_model, images), jnd, atol=SELF)
  assert priors is not None
  np.testing.assert_allclose(hvsjnd_jax.degrade(small_model, images), priors.degraded, atol=SELF)


@pytest.mark.parametrize(
  ("resolution", "layer"), [("reference", "reconstruction"), ("native", "feature")]
)
@pytest.mark.parametrize(
  "size", [(8, 8), (9, 13), (17, 8), (23, 50)], ids=lambda size: f"{size[0]}x{size[1]}"
)
def test_any_size(
  small_model: JNDModel,
  draw_images: DrawImages,
  size: tuple[int, int],
  layer: AttentionLayer,
  resolution: Resolution,
):
  images = draw_images(1, *size)
  jnd, priors = hvsjnd_jax.analyze(
    small_model, images, resolution=resolution, attention_layer=layer
  )
  assert priors is not None
  assert jnd.shape == priors.degraded.shape == images.shape
  assert jnd.dtype == images.dtype
  assert ((jnd >= 0) & (jnd <= 1)).all()
  assert jnd.std() > 0


def test_defaults_are_the_models(small_model: JNDModel, draw_images: DrawImages):
  images = draw_images(1, 16, 24)
  assert (small_model.resolution, small_model.attention_layer) == ("reference", "reconstruction")
  named = hvsjnd_jax.estimate(
    small_model, images, resolution="reference", attention_layer="reconstruction"
  )
  np.testing.assert_array_equal(hvsjnd_jax.estimate(small_model, images), named)
  for other in (
    hvsjnd_jax.estimate(small_model, images, resolution="native"),
    hvsjnd_jax.estimate(small_model, images, attention_layer="feature"),
  ):
    assert jnp.abs(other - named).max() > SELF


@pytest.mark.usefixtures("optimized")  # the trap is in what the optimiser computes twice
@RESOLUTIONS
@LAYERS
def test_flat_images_give_finite_values_and_gradients(
  model: JNDModel,
  fine_model: JNDModel,
  flat_images: FlatImages,
  layer: AttentionLayer,
  resolution: Resolution,
):
  model = fine_model if resolution == "fine" else model
  signs = hvsjnd_jax.random_signs(jax.random.key(0), (16, 16))

  @jax.jit
  def run(images: jax.Array) -> tuple:
    def total(images: jax.Array) -> tuple[jax.Array, hvsjnd_jax.Analysis]:
      analysis = hvsjnd_jax.analyze(model, images, resolution=resolution, attention_layer=layer)
      return hvsjnd_jax.inject(images, analysis.jnd, signs, lmbda=0.1).sum(), analysis

    return jax.value_and_grad(total, has_aux=True)(images)

  for leaf in jax.tree.leaves(run(flat_images(16))):
    assert jnp.isfinite(leaf).all()


def test_gradients_reach_every_parameter(model: JNDModel, draw_images: DrawImages):
  @jax.jit
  def gradient(model: JNDModel, images: jax.Array) -> tuple[JNDModel, jax.Array]:
    def total(model: JNDModel, images: jax.Array) -> jax.Array:
      return jnp.square(_inject_own_jnd(model, images)).sum()

    return jax.grad(total, argnums=(0, 1))(model, images)

  of_model, of_images = gradient(model, draw_images(1, 16, 16))
  for network in (of_model.hvs_sd.encoder, of_model.hvs_sd.decoder, of_model.generator):
    for leaf in jax.tree.leaves(network):
      assert np.isfinite(leaf).all()
      assert (np.asarray(leaf) != 0).any()
  assert np.isfinite(of_images).all()


@pytest.mark.usefixtures("x64")
def test_estimate_gradient_equals_finite_differences(
  check_gradient: Callable[..., None], small_model: JNDModel, draw_images: DrawImages
):
  def forward(model: JNDModel, images: jax.Array) -> jax.Array:
    return hvsjnd_jax.estimate(model, images, resolution="native")

  # Off GDN's bound, where the gradient is a rule and not the derivative.
  shifted = nnx.clone(small_model)
  shifted.hvs_sd = jax.tree.map(lambda leaf: leaf + 0.01, shifted.hvs_sd)
  check_gradient(forward, shifted, draw_images(1, 16, 16), forward=False)


@pytest.mark.parametrize("function", [hvsjnd_jax.estimate, hvsjnd_jax.degrade])
@pytest.mark.parametrize(
  ("shape", "dtype", "error", "message"),
  [
    ((1, 8, 8, 3), jnp.uint8, TypeError, "float images in .*got images of uint8; divide"),
    ((8, 8, 3), jnp.float32, ValueError, r"\[B, H, W, 3\], got shape \(8, 8, 3\)"),
    ((1, 8, 8, 1), jnp.float32, ValueError, r"RGB images .*got shape \(1, 8, 8, 1\)"),
    ((1, 7, 64, 3), jnp.float32, ValueError, r"at least 8 pixels, got 7x64"),
    ((1, 64, 7, 3), jnp.float32, ValueError, r"at least 8 pixels, got 64x7"),
  ],
  ids=["uint8", "rank", "grey", "low", "narrow"],
)
def test_bad_images_are_named(
  small_model: JNDModel,
  function: Callable[[JNDModel, jax.Array], jax.Array],
  shape: tuple[int, ...],
  dtype: jnp.dtype,
  error: type[Exception],
  message: str,
):
  with pytest.raises(error, match=message):
    function(small_model, jnp.zeros(shape, dtype))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"resolution": "fine"}, "these weights draw maps of resolution 'reference' or 'native' alone"),
    ({"resolution": "full"}, "resolution must be one of reference, native, fine; got 'full'"),
    (
      {"attention_layer": "encoder"},
      "attention_layer must be one of reconstruction, feature; got 'encoder'",
    ),
  ],
  ids=["other generator", "resolution", "attention"],
)
def test_unknown_options_are_named(small_model: JNDModel, options: dict, message: str):
  with pytest.raises(ValueError, match=message):
    hvsjnd_jax.estimate(small_model, jnp.zeros((1, 8, 8, 3)), **options)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64])
def test_images_of_any_precision_give_the_weights_own(small_model: JNDModel, dtype: type):
  images = np.full((1, 8, 8, 3), 0.5, dtype)
  for function in (hvsjnd_jax.estimate, hvsjnd_jax.degrade):
    assert function(small_model, images).dtype == jnp.float32


def test_options_are_static_under_jit(small_model: JNDModel, draw_images: DrawImages):
  images = draw_images(1, 8, 8)
  estimate = jax.jit(hvsjnd_jax.estimate, static_argnames=("resolution", "attention_layer"))
  got = estimate(small_model, images, resolution="native")
  want = hvsjnd_jax.estimate(small_model, images, resolution="native")
  np.testing.assert_allclose(got, want, atol=SELF)


def test_small_window_is_told_once(small_model: JNDModel):
  images = np.full((2, 128, 250, 3), 0.5, np.float32)
  for part in (images, images[:, :100, :100]):
    hvsjnd_jax.estimate(small_model, part, window=(128, 256))  # a warning would be an error
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("default")
    for width in (250, 249, 250):
      hvsjnd_jax.estimate(small_model, images[:, :, :width], window=(128, 128))
  (warning,) = caught
  reason = "window 128x128 is so small that overlaps more than double the work; "
  assert str(warning.message).startswith(reason)
  assert warning.filename == __file__

"""The priors: degraded image, attention and input gradient."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvsjnd_jax.model import priors
from hvsjnd_jax.model.hvs_sd import HVSSD
from hvsjnd_jax.model.priors import AttentionLayer

DrawImages = Callable[..., jax.Array]

# Maps scaled to [0, 1]: float32 roundings through the network, divided by their contrast.
MAPS = 1e-5
# XLA may divide by multiplying with the reciprocal: one float32 rounding below 1.
ROUNDING = 1e-7

LAYERS = pytest.mark.parametrize("layer", ["reconstruction", "feature"])

compute = jax.jit(priors.compute_priors, static_argnames="attention_layer")


def _scale(maps: np.ndarray) -> np.ndarray:
  return (maps - maps.min()) / (maps.max() - maps.min())


def _grad_cam(activation: jax.Array, gradient: jax.Array) -> jax.Array:
  return priors.grad_cam(activation, gradient.mean(axis=(1, 2), keepdims=True))


def test_gradient_is_the_scaled_positive_part_of_the_distortions(
  small_hvs_sd: HVSSD, draw_images: DrawImages
):
  image = draw_images(1, 16, 24)

  @jax.jit
  def gradient(image: jax.Array) -> jax.Array:
    return jax.grad(lambda x: jnp.square(small_hvs_sd(x) - x).mean())(image)

  want = _scale(np.maximum(gradient(image), 0))
  np.testing.assert_allclose(compute(small_hvs_sd, image).gradient, want, rtol=0, atol=MAPS)


@LAYERS
def test_attention_is_the_scaled_grad_cam_of_its_layer(
  small_hvs_sd: HVSSD, draw_images: DrawImages, layer: AttentionLayer
):
  image = draw_images(1, 16, 24)
  feature = jax.jit(small_hvs_sd.encoder)(image)

  @jax.jit
  def gradient(activation: jax.Array) -> jax.Array:
    def distortion(activation: jax.Array) -> jax.Array:
      decode = small_hvs_sd.decoder if layer == "feature" else lambda r: r
      return jnp.square(decode(activation) - image).mean()

    return jax.grad(distortion)(activation)

  decoded = jax.jit(small_hvs_sd.decoder)(feature)
  activation = np.asarray(feature if layer == "feature" else decoded)
  weights = np.asarray(gradient(activation)).mean(axis=(1, 2))
  cam = np.abs(np.einsum("bhwc,bc->bhw", activation, weights))
  cam = jax.image.resize(cam, (1, 16, 24), "bilinear", antialias=False)
  got = compute(small_hvs_sd, image, attention_layer=layer).attention
  np.testing.assert_allclose(got[..., 0], _scale(np.asarray(cam)), rtol=0, atol=MAPS)


@LAYERS
def test_padding_does_not_count(
  small_hvs_sd: HVSSD, draw_images: DrawImages, layer: AttentionLayer
):
  """On 9x13: distortion, and what follows from it, of the image's own pixels alone."""
  image = draw_images(1, 9, 13)
  padded = jnp.pad(image, ((0, 0), (0, 7), (0, 3), (0, 0)), mode="reflect")

  @jax.jit
  def gradients(padded: jax.Array) -> tuple[jax.Array, jax.Array]:
    def distortion(padded: jax.Array, feature_shift: jax.Array | float) -> jax.Array:
      decoded = small_hvs_sd.decoder(small_hvs_sd.encoder(padded) + feature_shift)
      return jnp.square(decoded - padded)[:, :9, :13].mean()

    return jax.grad(distortion, argnums=(0, 1))(padded, jnp.zeros((1, 2, 2, 8)))

  of_image, of_feature = gradients(padded)
  seen = compute(small_hvs_sd, image, attention_layer=layer)
  want = _scale(np.maximum(of_image, 0)[:, :9, :13])
  np.testing.assert_allclose(seen.gradient, want, rtol=0, atol=MAPS)

  if layer == "feature":
    cam = _grad_cam(jax.jit(small_hvs_sd.encoder)(padded), of_feature)
    cam = jax.image.resize(cam, (1, 16, 16, 1), "bilinear", antialias=False)[:, :9, :13]
  else:
    cam = _grad_cam(seen.degraded, 2 * (seen.degraded - image) / image.size)
  np.testing.assert_allclose(seen.attention, _scale(np.asarray(cam)), rtol=0, atol=MAPS)


def test_grad_cam_by_hand():
  activation = jnp.asarray([[[[1.0, 2.0], [3.0, -1.0]]]])
  gradient = jnp.asarray([[[[1.0, -2.0], [3.0, 0.0]]]])
  # Weights 2 and -1: |2 - 2| and |6 + 1|.
  np.testing.assert_array_equal(_grad_cam(activation, gradient), [[[[0.0], [7.0]]]])


def test_normalize_is_the_same_on_the_host_and_overwrites_it():
  maps = np.random.default_rng(0).normal(size=(3, 4, 5, 2)).astype(np.float32)
  maps[1] = 0.25  # without contrast
  want = np.asarray(priors.normalize(jnp.asarray(maps)))
  assert (want.min(axis=(1, 2, 3)).tolist(), want.max(axis=(1, 2, 3)).tolist()) == (
    [0, 0, 0],
    [1, 0, 1],
  )
  assert priors.normalize(maps) is maps
  np.testing.assert_allclose(maps, want, rtol=0, atol=ROUNDING)


@LAYERS
def test_batch_equals_its_images_one_by_one(
  small_hvs_sd: HVSSD, draw_images: DrawImages, layer: AttentionLayer
):
  images = draw_images(2, 16, 24).at[1].multiply(0.3)  # of another contrast
  together = compute(small_hvs_sd, images, attention_layer=layer)
  for i in range(2):
    alone = compute(small_hvs_sd, images[i : i + 1], attention_layer=layer)
    for got, want in zip(together, alone, strict=True):
      np.testing.assert_allclose(got[i : i + 1], want, rtol=0, atol=MAPS)


@LAYERS
@pytest.mark.parametrize("size", [(16, 24), (9, 13)], ids=["16x24", "9x13"])
def test_maps_span_0_to_1(
  small_hvs_sd: HVSSD,
  draw_images: DrawImages,
  layer: AttentionLayer,
  size: tuple[int, int],
):
  seen = compute(small_hvs_sd, draw_images(1, *size), attention_layer=layer)
  assert seen.degraded.shape == seen.gradient.shape == (1, *size, 3)
  assert seen.attention.shape == (1, *size, 1)
  assert seen.gradient.min() == 0
  assert seen.gradient.max() == pytest.approx(1, abs=ROUNDING)
  # On 9x13 the feature's extremes may lie in the padding.
  assert seen.attention.min() == 0
  assert seen.attention.max() == pytest.approx(1, abs=ROUNDING)


def test_degrade_pads_by_reflection_and_crops(small_hvs_sd: HVSSD, draw_images: DrawImages):
  image = draw_images(1, 9, 13)
  padded = np.pad(image, ((0, 0), (0, 7), (0, 3), (0, 0)), mode="reflect")
  network = jax.jit(lambda x: small_hvs_sd(x))
  degraded = jax.jit(priors.degrade)(small_hvs_sd, image)
  np.testing.assert_allclose(degraded, network(padded)[:, :9, :13], rtol=0, atol=MAPS)


def test_multiples_of_8_are_not_padded(small_hvs_sd: HVSSD, draw_images: DrawImages):
  image = draw_images(1, 16, 24)
  degraded = jax.jit(priors.degrade)(small_hvs_sd, image)
  np.testing.assert_allclose(degraded, jax.jit(lambda x: small_hvs_sd(x))(image), atol=MAPS)
  np.testing.assert_allclose(degraded, compute(small_hvs_sd, image).degraded, atol=MAPS)


@pytest.mark.usefixtures("x64")
def test_gradients(
  check_gradient: Callable[..., None], small_hvs_sd: HVSSD, draw_images: DrawImages
):
  def forward(hvs_sd: HVSSD, images: jax.Array) -> priors.Priors:
    return priors.compute_priors(hvs_sd, images, attention_layer="feature")

  # Off GDN's bound, where the gradient is a rule and not the derivative. An odd side, so
  # through the padding too.
  shifted = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64) + 0.01, small_hvs_sd)
  check_gradient(forward, shifted, draw_images(1, 9, 8), forward=False)


def test_gradients_through_extremes_are_finite(small_hvs_sd: HVSSD, draw_images: DrawImages):
  """Where a map is computed twice, rounded differently, no pixel equals its minimum."""

  def total(images: jax.Array) -> jax.Array:
    seen = priors.compute_priors(small_hvs_sd, images)
    return (seen.attention + seen.gradient).sum()

  gradient = jax.jit(jax.grad(total))
  for seed in range(20):
    assert jnp.isfinite(gradient(draw_images(1, 16, 24, seed=seed))).all()

"""The losses of the published code."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvsjnd_jax.metrics.backbones import VGG16, ResNet34
from hvsjnd_jax.training import released_losses
from tests.support.golden_backbones import build
from tests.support.golden_pairs import PAIRS, read_pair, to_images

DrawImages = Callable[..., jax.Array]
FlatImages = Callable[[int], jax.Array]
# A weighted sum of a few float32 terms.
SUM = 1e-5


@pytest.mark.parametrize("detail", [0.0, 0.2])
def test_mean_magnitude_loss_compares_the_map_with_the_image_s_detail(detail: float):
  # A ramp of `detail` a pixel across: Prewitt's difference spans two pixels, or one where
  # the border is repeated.
  ramp = detail * jnp.arange(5.0)[None, None, :, None] * jnp.ones((1, 4, 1, 3))
  edges = released_losses.edge_magnitude(ramp)
  np.testing.assert_allclose(edges[0, :, 1:-1], max(2 * detail, 1e-6), rtol=SUM)
  np.testing.assert_allclose(edges[0, :, [0, -1]], max(detail, 1e-6), rtol=SUM)
  amount = 3 * float(edges.mean())
  for mean in (0.0, 0.3, 1.0):
    m = 0.1 * 3 * mean
    want = np.log((amount**2 + m**2 + 0.001) / (2 * amount * m + 0.001))
    loss = released_losses.mean_magnitude_loss(jnp.full((1, 4, 5, 3), mean), ramp)
    np.testing.assert_allclose(loss, [want], rtol=1e-4)
  equal = released_losses.mean_magnitude_loss(jnp.full((1, 4, 5, 3), amount / 0.3), ramp)
  np.testing.assert_allclose(equal, [0], atol=1e-9)


def test_total_variation_loss_is_the_released_formula(draw_images: DrawImages):
  images = draw_images(2, 8, 9)
  jnd = 0.1 * draw_images(2, 8, 9, seed=1)
  rows, columns = np.asarray([1, 1, 1]) / 3, np.asarray([1, 0, -1])
  padded = np.pad(np.asarray(images, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
  x, y = np.zeros(images.shape), np.zeros(images.shape)
  for i in range(3):
    for j in range(3):
      part = padded[:, i : i + 8, j : j + 9]
      x += rows[i] * columns[j] * part
      y += columns[i] * rows[j] * part
  variation = np.hypot(x, y).sum(axis=(1, 2, 3))
  t1, t2 = 1 / (variation + 1), 1 / (np.asarray(jnd).sum(axis=(1, 2, 3)) + 1)
  want = np.log((t1**2 + t2**2 + 0.001) / (2 * t1 * t2 + 0.001))
  np.testing.assert_allclose(released_losses.total_variation_loss(jnd, images), want, rtol=1e-4)


MAGNITUDE_LOSSES = (released_losses.mean_magnitude_loss, released_losses.total_variation_loss)


@pytest.mark.parametrize("loss", MAGNITUDE_LOSSES)
def test_gradient_of_the_released_magnitude_losses(
  loss: Callable[..., jax.Array], draw_images: DrawImages, check_gradient: Callable[..., None]
):
  images, jnd = np.asarray(draw_images(2, 4, 4)), np.asarray(0.1 * draw_images(2, 4, 4, seed=1))
  with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
    check_gradient(loss, jnd, images)


@pytest.mark.parametrize("loss", MAGNITUDE_LOSSES)
def test_released_magnitude_losses_of_nothing_are_finite(loss: Callable[..., jax.Array]):
  zero = jnp.zeros((1, 4, 4, 3))
  for leaf in jax.value_and_grad(lambda jnd, x: loss(jnd, x).sum(), argnums=(0, 1))(zero, zero):
    assert jnp.isfinite(jnp.asarray(leaf)).all()


RunAIC = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


@pytest.fixture(scope="module")
def run_aic(vgg16: VGG16) -> RunAIC:
  """Losses, and the gradient of their sum with respect to the distorted images."""

  @jax.jit
  def run(distorted: jax.Array, reference: jax.Array, classes: jax.Array) -> Any:
    def total(distorted: jax.Array) -> tuple[jax.Array, jax.Array]:
      loss = released_losses.aic_loss(distorted, reference, classes, vgg16=vgg16)
      return loss.sum(), loss

    gradient, loss = jax.grad(total, has_aux=True)(distorted)
    return loss, gradient

  return run


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
  "name",
  [pytest.param(name, marks=[pytest.mark.slow] * (name != "coffee_176_noise")) for name in PAIRS],
)
def test_aic_is_the_published_code_s(name: str):
  golden = read_pair(name)
  vgg16 = build("vgg16", int(golden["weights_seed"]))
  # One batch of all classes: no image's choice touches another's.
  distorted, reference = (images.repeat(5, axis=0) for images in to_images(golden))
  loss = jax.jit(released_losses.aic_loss)(distorted, reference, jnp.arange(5), vgg16=vgg16)
  for kind, got in enumerate(loss):
    # SSIM's variances, as differences of squares, cost it three digits: 5e-5 of its score.
    atol = 5e-5 / 3 if kind in (1, 4) else 1e-6
    np.testing.assert_allclose(got, golden[f"aic_{kind}"], rtol=0, atol=atol)


def test_aic_of_equal_and_flat_images(
  run_aic: RunAIC, draw_images: DrawImages, flat_images: FlatImages
):
  flat = flat_images(168)
  reference = jnp.concatenate([draw_images(2, 168, 168), flat])
  classes = jnp.arange(5)
  loss, gradient = run_aic(reference, reference, classes)
  np.testing.assert_allclose(loss, 0, atol=1e-6)
  assert jnp.isfinite(gradient).all()
  for leaf in run_aic(reference[::-1], reference, classes):
    assert jnp.isfinite(leaf).all()


def test_aic_refuses_classes_that_are_none(vgg16: VGG16):
  images = jnp.zeros((2, 168, 168, 3))
  with pytest.raises(TypeError, match="aic_loss: expected integer classes, got float32"):
    released_losses.aic_loss(images, images, jnp.zeros(2), vgg16=vgg16)
  with pytest.raises(ValueError, match=r"aic_loss: expected a class for each of 2 images, got \(3"):
    released_losses.aic_loss(images, images, jnp.zeros(3, jnp.int32), vgg16=vgg16)


def test_class_is_the_greatest_logit_and_carries_no_gradient(
  classifier: ResNet34, draw_images: DrawImages
):
  images = draw_images(2, 40, 40)
  got = jax.jit(released_losses.classify)(classifier, images)
  np.testing.assert_array_equal(got, jax.jit(ResNet34.__call__)(classifier, images).argmax(axis=-1))

  def of_class(images: jax.Array) -> jax.Array:
    return released_losses.classify(classifier, images).astype(jnp.float32).sum()

  np.testing.assert_array_equal(jax.jit(jax.grad(of_class))(images), 0)
  # Nothing was computed for it: no more convolutions than forward.
  forward, backward = (
    str(jax.make_jaxpr(function)(images)).count("conv_general_dilated[")
    for function in (of_class, jax.grad(of_class))
  )
  assert forward == backward == 36

"""The objectives of both training stages."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hvsjnd_jax import losses
from hvsjnd_jax.config import JNDConfig, RateDistortionConfig
from hvsjnd_jax.estimator import JNDModel
from hvsjnd_jax.hvs_sd import HVSSD

DrawImages = Callable[..., jax.Array]
FlatImages = Callable[[int], jax.Array]

# Weights that are all different, so that none can stand for another.
CONFIG = JNDConfig(
  magnitude_weight=2.0, quality_weight=3.0, attention_weight=5.0, visibility_weight=7.0
)

# The floor under the logarithm, 4e-5, beside amplitudes of 0.02 and more.
FLOOR = 5e-3
# A weighted sum of a few float32 terms.
SUM = 1e-5


def _noise(*amplitudes: float) -> jax.Array:
  """One image of even noise, with an amplitude for each channel."""
  return jnp.broadcast_to(jnp.asarray(amplitudes, jnp.float32), (1, 8, 8, 3))


@pytest.mark.parametrize("target", [0.02, 0.3])
def test_magnitude_loss_is_zero_at_the_target(target: float):
  loss = losses.magnitude_loss(_noise(target, target, target), target=target)
  np.testing.assert_allclose(loss, [0], atol=FLOOR)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_magnitude_loss_counts_every_channel(channel: int):
  amplitudes = [0.1, 0.1, 0.1]
  amplitudes[channel] = 0.2
  loss = losses.magnitude_loss(_noise(*amplitudes), target=0.1)
  # log((N^2 + T^2) / 2NT) = log(5 / 4), in one channel of three.
  np.testing.assert_allclose(loss, [np.log(5 / 4) / 3], rtol=FLOOR)


@pytest.mark.parametrize("factor", [1.5, 4.0])
def test_magnitude_loss_is_symmetric_in_log(factor: float):
  above, below = (
    losses.magnitude_loss(_noise(n, n, n), target=0.1) for n in (0.1 * factor, 0.1 / factor)
  )
  np.testing.assert_allclose(above, below, rtol=FLOOR)
  assert above[0] > 0


def test_magnitude_loss_punishes_noise_in_one_channel():
  spread = losses.magnitude_loss(_noise(0.1, 0.1, 0.1), target=0.1)
  one = losses.magnitude_loss(_noise(0.0, 0.1 * 3**0.5, 0.0), target=0.1)
  assert one[0] > spread[0] + 0.1


def test_magnitude_loss_of_no_noise_is_finite():
  value, gradient = jax.value_and_grad(
    lambda noise: losses.magnitude_loss(noise, target=0.02).sum()
  )(_noise(0, 0, 0))
  assert jnp.isfinite(value)
  assert jnp.isfinite(gradient).all()


def test_magnitude_loss_is_not_met_by_peaks():
  peaks = jnp.full((1, 8, 8, 3), 1e-3).at[:, ::4, ::4].set(1.6)
  assert peaks.mean() == pytest.approx(0.1, rel=0.05)
  even, peaked = (
    losses.magnitude_loss(noise, target=0.1)[0] for noise in (_noise(*[0.1] * 3), peaks)
  )
  assert peaked > even + 0.1


def test_visibility_loss_on_a_flat_image_is_noise_over_its_threshold():
  loss = losses.visibility_loss(_noise(0.1, 0.1, 0.1), jnp.full((1, 8, 8, 3), 0.5))
  # Two gray levels, to the power 2 · 0.6; float32 leaves 1e-7 of variance beside 6e-5.
  np.testing.assert_allclose(loss, [0.01 / (2 / 255) ** 1.2], rtol=5e-3)


def test_visibility_loss_lets_contrast_mask():
  signs = jnp.where(jnp.indices((8, 8)).sum(axis=0) % 2 == 0, 1.0, -1.0)
  weak, strong = (
    0.5 + contrast * signs[None, :, :, None] * jnp.ones(3) for contrast in (0.05, 0.3)
  )
  noise = _noise(0.1, 0.1, 0.1)
  assert losses.visibility_loss(noise, strong)[0] < 0.5 * losses.visibility_loss(noise, weak)[0]


def test_quality_loss_is_zero_for_equal_images(draw_images: DrawImages):
  images = draw_images(1, 168, 168)
  both = jnp.concatenate([images, images**2]), jnp.concatenate([images, images])
  equal, darker = jax.jit(losses.quality_loss)(*both)
  np.testing.assert_allclose(equal, 0, atol=SUM)
  assert darker > 0.01


def draw_keys(*seeds: int) -> jax.Array:
  return jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))


RunRateDistortion = Callable[[jax.Array, jax.Array], tuple[jax.Array, losses.Terms]]


@pytest.fixture(scope="module")
def run_rate_distortion(small_hvs_sd: HVSSD) -> RunRateDistortion:
  @jax.jit
  def run(images: jax.Array, keys: jax.Array) -> tuple[jax.Array, losses.Terms]:
    config = RateDistortionConfig(train_lambda=128.0)
    return losses.rate_distortion_objective(small_hvs_sd, images, keys, config=config)

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
    def objective(generator: nnx.State) -> tuple[jax.Array, losses.Terms]:
      merged = nnx.merge(graph, generator, frozen)
      return losses.jnd_objective(merged, images, keys, config=CONFIG)

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

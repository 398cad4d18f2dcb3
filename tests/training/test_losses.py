"""The losses of stage 2, as the default weights were trained with."""

from collections.abc import Callable
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvsjnd_jax.training import losses
from hvsjnd_jax.training.config import AttentionForm

DrawImages = Callable[..., jax.Array]
FlatImages = Callable[[int], jax.Array]
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


def test_rms_magnitude_is_that_of_gray_levels():
  """Noise of one energy in gray levels has one magnitude, wherever it is."""
  thresholds = jnp.asarray([[0.01, 0.02], [0.03, 0.04]])[None, ..., None] * jnp.ones(3)
  unit = jnp.sqrt(jnp.mean(jnp.square(thresholds[..., 0])))
  even = 0.5 * jnp.ones_like(thresholds)
  one_pixel = jnp.zeros_like(thresholds).at[:, 0, 0].set(0.5 * 2 * unit / 0.01)
  for noise in (even, one_pixel):
    equal = losses.rms_magnitude_loss(noise, thresholds, target=0.5)
    np.testing.assert_allclose(equal, [0], atol=FLOOR)
    twice = losses.rms_magnitude_loss(2 * noise, thresholds, target=0.5)
    np.testing.assert_allclose(twice, [np.log(5 / 4)], rtol=FLOOR)


def test_rms_magnitude_of_no_noise_is_finite():
  thresholds = 0.01 * jnp.ones((1, 4, 4, 3))
  value, gradient = jax.value_and_grad(
    lambda noise: losses.rms_magnitude_loss(noise, thresholds, target=0.5).sum()
  )(jnp.zeros_like(thresholds))
  assert jnp.isfinite(value)
  assert jnp.isfinite(gradient).all()


def test_visibility_loss_is_least_for_even_noise():
  """Among maps of one geometric mean, as `magnitude_loss` asks for."""
  uneven = jnp.asarray([[0.5, 1.0], [1.0, 2.0]])[None, ..., None]
  assert losses.visibility_loss(jnp.ones_like(uneven))[0] == 1
  np.testing.assert_allclose(losses.visibility_loss(uneven), [6.25 / 4], rtol=SUM)
  sixth = losses.visibility_loss(uneven, power=6)
  np.testing.assert_allclose(sixth, [(2 + 2**6 + 2**-6) / 4], rtol=SUM)


def test_quality_loss_is_zero_for_equal_images(draw_images: DrawImages):
  images = draw_images(1, 168, 168)
  both = jnp.concatenate([images, images**2]), jnp.concatenate([images, images])
  equal, darker = jax.jit(losses.quality_loss)(*both)
  np.testing.assert_allclose(equal, 0, atol=SUM)
  assert darker > 0.01


ATTENTION_FORMS: tuple[AttentionForm, ...] = get_args(AttentionForm)


@pytest.fixture(scope="module")
def attention_maps() -> tuple[jax.Array, jax.Array]:
  rng = np.random.default_rng(0)
  a, b = rng.random((2, 3, 6, 7, 1), np.float32)
  return jnp.asarray(a), jnp.asarray(b)


def test_attention_losses_are_their_formulas(attention_maps: tuple[jax.Array, jax.Array]):
  a, b = (np.asarray(maps, np.float64).reshape(3, -1) for maps in attention_maps)
  p, q = ((m + 1 / 255) / (m + 1 / 255).sum(axis=1, keepdims=True) for m in (a, b))
  want = {
    "l1": np.abs(a - b).mean(axis=1),
    "kl": (q * np.log(q / p)).sum(axis=1),
    "correlation": [1 - np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)],
  }
  assert want.keys() == set(ATTENTION_FORMS)
  for form in ATTENTION_FORMS:
    got = losses.attention_loss(*attention_maps, form=form)
    np.testing.assert_allclose(got, want[form], rtol=1e-4, err_msg=form)  # e beside variances
  np.testing.assert_allclose(losses.attention_loss(*attention_maps), want["l1"], rtol=1e-4)


@pytest.mark.parametrize("form", ATTENTION_FORMS)
def test_attention_loss_of_equal_maps_is_zero(
  form: AttentionForm, attention_maps: tuple[jax.Array, jax.Array]
):
  flat = jnp.ones((3, 6, 7, 1)) * jnp.asarray([0.0, 0.5, 1.0])[:, None, None, None]
  for maps in (attention_maps[0], flat):
    np.testing.assert_allclose(losses.attention_loss(maps, maps, form=form), 0, atol=1e-6)
  for pair in ((flat, flat), (flat, attention_maps[0]), (attention_maps[0], flat)):
    gradient = jax.grad(lambda *ab: losses.attention_loss(*ab, form=form).sum(), argnums=(0, 1))
    assert all(jnp.isfinite(leaf).all() for leaf in gradient(*pair))


@pytest.mark.parametrize("form", ["kl", "correlation"])
def test_gradient_of_the_attention_loss(
  form: AttentionForm,
  attention_maps: tuple[jax.Array, jax.Array],
  check_gradient: Callable[..., None],
):
  with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
    check_gradient(
      lambda a, b: losses.attention_loss(a, b, form=form), *map(np.asarray, attention_maps)
    )


def test_distance_is_the_logarithm_of_the_rms():
  reference = jnp.zeros((2, 8, 8, 3))
  distorted = reference + jnp.asarray([0.1, 0.2])[:, None, None, None]
  np.testing.assert_allclose(
    losses.distance_loss(distorted, reference), np.log([0.1, 0.2]), atol=1e-4
  )


@pytest.mark.parametrize(
  ("error", "want"), [(0.0, 0.0), (0.25, 0.0625), (-0.25, 0.0625), (2, 1.75)]
)
def test_ordering_loss_compares_ratios(error: float, want: float):
  """What both copies have in common does not count."""
  visibilities = jnp.asarray([[0.5, 1.5]])
  distances = visibilities + 3 + jnp.asarray([[error, 0.0]])
  np.testing.assert_allclose(losses.ordering_loss(distances, visibilities), [want], rtol=SUM)


def test_departure_counts_from_the_level():
  thresholds = jnp.full((1, 8, 8, 3), 0.02)
  loss = losses.departure_loss(0.05 * thresholds, thresholds, level=0.05)
  np.testing.assert_allclose(loss, [0], atol=1e-10)
  loss = losses.departure_loss(0.05 * np.exp(0.3) * thresholds, thresholds, level=0.05)
  np.testing.assert_allclose(loss, [0.09], rtol=1e-4)

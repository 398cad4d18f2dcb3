"""SSIMULACRA 2.1: golden scores, features and gradients, closed forms, hard images."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvsjnd_jax.metrics.ssimulacra2 import (
  SSIMULACRA2_SMALLEST_PX,
  _norms,
  _scale_count,
  _weights,
  ssimulacra2,
  ssimulacra2_distance,
)
from tests.support.golden_vision import BY_SIZE, GRADS, SCORES, read_pairs, read_scores

Images = Callable[..., jax.Array]

# Points, of float64 against the float64 twin: other orders of summation (2e-11 measured).
F64 = 1e-9
# Points, of float32 against it: 2e-4 measured, of variances that are differences of squares.
F32 = 5e-4
# Points, of the program with an exact blur against it: it stores float32.
PROGRAM = 1.5e-3
# Of the largest gradient in float64, besides ten times what a central difference changes with
# its step: 2e-6 measured. Without the dead zone in flat parts it is 2e-5.
GRADIENT = 3e-6
# The same in float32, on noise (5e-5 measured). At a kink of |·| its sign may be the other.
F32_GRADIENT = 1e-4
# Of a derivative along a direction, besides the same: thousands of kinks are crossed.
DIRECTIONAL = 1e-4
# One float64 computation in two orders.
ORDER = 1e-11
# One float32 computation compiled in two ways, in points.
COMPILED = 1e-4


def _score_and_gradient(distorted: jax.Array, reference: jax.Array) -> tuple[jax.Array, jax.Array]:
  scores, vjp = jax.vjp(lambda d: ssimulacra2(d, reference), distorted)
  return scores, vjp(jnp.ones_like(scores))[0]


# --- golden numbers -------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", BY_SIZE)
def test_golden_scores_and_features(size: str):
  names = BY_SIZE[size]
  distorted, reference = read_pairs(names, np.float64)
  wanted = np.ones((_scale_count(*distorted.shape[1:3]), 2, 3), bool)

  @jax.jit
  def run(distorted: jax.Array, reference: jax.Array) -> tuple[jax.Array, jax.Array]:
    norms = _norms(distorted, reference, wanted=wanted, border="zero")
    return ssimulacra2(distorted, reference), jnp.moveaxis(norms, (4, 3), (0, 1))

  scores, features = run(distorted, reference)
  assert scores.dtype == jnp.float64
  np.testing.assert_allclose(scores, read_scores("s2_twin", names), rtol=0, atol=F64)
  np.testing.assert_allclose(scores, read_scores("s2_ref_exact_fir", names), rtol=0, atol=PROGRAM)
  want = [SCORES[f"{name}/s2_features"] for name in names]
  np.testing.assert_allclose(features, want, rtol=0, atol=ORDER)


@pytest.mark.parametrize("size", BY_SIZE)
def test_golden_scores_in_float32(size: str):
  names = BY_SIZE[size]
  scores = jax.jit(ssimulacra2)(*read_pairs(names, np.float32))
  assert scores.dtype == jnp.float32
  np.testing.assert_allclose(scores, read_scores("s2_twin", names), rtol=0, atol=F32)


FAST = ("64x64", "123x201")  # the sizes with gradients at points


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
  "size",
  [size if size in FAST else pytest.param(size, marks=pytest.mark.slow) for size in BY_SIZE],
)
def test_golden_gradients(size: str):
  names = [name for name in BY_SIZE[size] if f"{name}/directional" in GRADS]
  _, gradients = jax.jit(_score_and_gradient)(*read_pairs(names, np.float64))
  for name, gradient in zip(names, np.asarray(gradients), strict=True):
    y, x, c = np.indices(gradient.shape)
    slope = np.vdot(gradient, np.sin(1 + 0.37 * y + 0.73 * x + 1.1 * c))
    want, check = GRADS[f"{name}/directional"][0], GRADS[f"{name}/directional_check"][0]
    assert abs(slope - want) <= DIRECTIONAL * abs(want) + 10 * abs(check - want), name
    if f"{name}/yxc" in GRADS:
      want, spread = GRADS[f"{name}/grad"][:, 0], GRADS[f"{name}/fd_spread"][:, 0]
      error = np.abs(gradient[tuple(GRADS[f"{name}/yxc"].T)] - want)
      assert (error <= GRADIENT * np.abs(want).max() + 10 * spread).all(), name


def test_golden_gradients_in_float32():
  names = ["crop_64_noise4", "crop_64_swap"]
  _, gradients = jax.jit(_score_and_gradient)(*read_pairs(names, np.float32))
  for name, gradient in zip(names, np.asarray(gradients), strict=True):
    want = GRADS[f"{name}/grad"][:, 0]
    error = np.abs(gradient[tuple(GRADS[f"{name}/yxc"].T)] - want)
    assert error.max() <= F32_GRADIENT * np.abs(want).max(), name


# --- closed forms ---------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("side", "scales"),
  [(8, 2), (14, 2), (15, 3), (28, 3), (29, 4), (56, 4), (57, 5), (112, 5), (113, 6), (4000, 6)],
)
def test_scale_count_and_how_weights_slide(side: int, scales: int):
  assert _scale_count(side, side) == _scale_count(5000, side) == _scale_count(side, 5000) == scales
  whole, slid = (np.moveaxis(_weights(n), -1, 0).ravel() for n in (6, scales))
  np.testing.assert_array_equal(slid, whole[: 18 * scales])
  assert (whole > 0).sum() == 52


@pytest.mark.usefixtures("x64")
def test_flat_images_have_a_closed_form_where_borders_mirror(flat_images: Images):
  """No variance and no detail: every structure norm is the squared difference of X, Y and B."""
  black, grey, white = np.asarray(flat_images(16), np.float64)
  pairs = [(grey, white), (black, grey)]
  distorted, reference = (jnp.asarray(np.stack(images)) for images in zip(*pairs, strict=True))
  distances = jax.jit(functools.partial(ssimulacra2_distance, border="symmetric"))(
    distorted, reference
  )
  k = 0.0037930732552754493
  light = np.asarray([0, ((0.5 + 0.055) / 1.055) ** 2.4, 1])
  brightness = np.cbrt(light + k)  # of a grey: the same for all three responses
  # So X and B do not differ; and a map of the structure is 1 - (1 - dY²).
  squared = np.asarray([brightness[1] - brightness[2], brightness[0] - brightness[1]]) ** 2
  weight = _weights(3)[:, :, 0, 1].sum()
  np.testing.assert_allclose(distances, weight * squared, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_symmetric_border_is_that_of_a_mirrored_image(draw_images: Images):
  """An image and its mirror images beside it score as the image alone, at every scale."""
  pair = [np.asarray(draw_images(1, 32, 48, seed=seed), np.float64) for seed in (1, 2)]
  maps = functools.partial(_norms, wanted=np.ones((4, 2, 3), bool), border="symmetric")
  alone = jax.jit(maps)(*(jnp.asarray(image) for image in pair))
  margins = ((0, 0), (0, 32), (0, 48), (0, 0))
  four = (jnp.asarray(np.pad(image, margins, mode="symmetric")) for image in pair)
  np.testing.assert_allclose(jax.jit(maps)(*four), alone, rtol=0, atol=ORDER)


def test_border_moves_the_score(draw_images: Images):
  distorted, reference = (draw_images(1, 24, 24, seed=seed) for seed in (1, 2))
  zero, default, symmetric = (
    jax.jit(functools.partial(ssimulacra2, **options))(distorted, reference)
    for options in ({"border": "zero"}, {}, {"border": "symmetric"})
  )
  assert zero == default != symmetric


# --- derivatives ----------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [ssimulacra2, ssimulacra2_distance])
def test_hard_pairs_give_finite_values_and_gradients(
  draw_images: Images, flat_images: Images, metric: Callable[..., jax.Array]
):
  black, grey, white = flat_images(24)
  photo = draw_images(1, 24, 24)[0]
  saturated = jnp.round(photo)  # black and white pixels only
  equal = [(image, image) for image in (black, grey, white, photo, saturated)]
  pairs = [
    *((black, white), (white, black), (photo, grey), (grey, photo), (saturated, photo)),
    *((photo, saturated), (saturated, 1 - saturated), (grey, grey.at[3, 4].add(1e-6))),
    *equal,
  ]
  distorted, reference = (jnp.stack(images) for images in zip(*pairs, strict=True))

  @jax.jit
  def run(
    distorted: jax.Array, reference: jax.Array
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    scores, vjp = jax.vjp(metric, distorted, reference)
    return scores, vjp(jnp.ones_like(scores))

  scores, gradients = run(distorted, reference)
  assert jnp.isfinite(scores).all()
  best = 100 if metric is ssimulacra2 else 0
  np.testing.assert_array_equal(scores[-len(equal) :], best)
  for gradient in gradients:
    assert jnp.isfinite(gradient).all()
    assert jnp.abs(gradient[: -len(equal)]).max(axis=(1, 2, 3)).all()
    assert not gradient[-len(equal) :].any()


@pytest.mark.usefixtures("x64")
def test_forward_mode_is_reverse_mode(draw_images: Images):
  pair = [jnp.asarray(np.asarray(draw_images(1, 12, 17, seed=s)), jnp.float64) for s in (1, 2)]
  tangents = [jnp.cos(1 + jnp.arange(image.size, dtype=image.dtype)) for image in pair]
  tangents = [t.reshape(pair[0].shape) for t in tangents]

  @jax.jit
  def run(pair: list[jax.Array], tangents: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
    _, forward = jax.jvp(ssimulacra2, pair, tangents)
    _, vjp = jax.vjp(ssimulacra2, *pair)
    return forward[0], sum(
      (jnp.vdot(g, t) for g, t in zip(vjp(jnp.ones(1)), tangents, strict=True)),
      start=jnp.zeros(()),
    )

  forward, reverse = run(pair, tangents)
  np.testing.assert_allclose(forward, reverse, rtol=ORDER)


@pytest.mark.usefixtures("x64")
def test_a_saturated_pixel_has_its_whole_gradient(draw_images: Images):
  reference = jnp.asarray(np.asarray(draw_images(1, 12, 12)), jnp.float64)
  places = np.s_[0, [3, 4], 5, 1]
  gradients = [
    jax.jit(_score_and_gradient)(reference.at[places].set(ends), reference)[1][places]
    for ends in (jnp.asarray([0.0, 1.0]), jnp.asarray([1e-9, 1 - 1e-9]))
  ]
  np.testing.assert_allclose(*gradients, rtol=1e-6)


# --- the contract ---------------------------------------------------------------------------


def test_batch_is_one_by_one_and_jit_is_eager(draw_images: Images):
  distorted, reference = (draw_images(2, 15, 22, seed=seed) for seed in (1, 2))
  together = jax.jit(ssimulacra2)(distorted, reference)
  apart = [ssimulacra2(distorted[i : i + 1], reference[i : i + 1])[0] for i in range(2)]
  assert together.shape == (2,)
  np.testing.assert_allclose(together, apart, rtol=0, atol=COMPILED)
  mapped = jax.jit(jax.vmap(ssimulacra2))(distorted[:, None], reference[:, None])
  np.testing.assert_allclose(mapped[:, 0], together, rtol=0, atol=COMPILED)


def test_overshoot_is_clipped_and_nan_stays(draw_images: Images):
  distorted, reference = (draw_images(3, 16, 16, seed=seed) for seed in (1, 2))
  beyond = distorted.at[0, 3].set(1.3).at[0, 4].set(-0.3)
  clipped = jnp.clip(beyond, 0, 1)
  scores = jax.jit(ssimulacra2)(
    jnp.stack([beyond[0], clipped[0], beyond[2].at[5, 5, 0].set(jnp.nan)]),
    reference[jnp.asarray([0, 0, 2])],
  )
  assert scores[0] == scores[1]
  assert jnp.isnan(scores[2])


@pytest.mark.parametrize("metric", [ssimulacra2, ssimulacra2_distance])
def test_bad_arguments_are_named(metric: Callable[..., jax.Array]):
  name = metric.__name__
  least = SSIMULACRA2_SMALLEST_PX
  for size in ((least - 1, least + 9), (least + 9, least - 1)):
    images = jnp.zeros((1, *size, 3))
    with pytest.raises(ValueError, match=rf"{name}: expected .* {least} pixels, got {size[0]}x"):
      metric(images, images)
  grey = jnp.zeros((1, least, least, 1))
  with pytest.raises(ValueError, match=f"{name}: expected 3 channels, got 1"):
    metric(grey, grey)
  images = jnp.zeros((1, least, least, 3))
  with pytest.raises(ValueError, match=f"{name}: expected border zero or symmetric, got reflect"):
    metric(images, images, border="reflect")
  with pytest.raises(TypeError, match=f"{name}: expected float32 or float64"):
    metric(images, images.astype(jnp.bfloat16))

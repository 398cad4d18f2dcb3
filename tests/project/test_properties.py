"""What holds of `estimate` and `inject` whatever the values: Hypothesis looks for exceptions.

Shapes are few, as each compiles; values are free. The weights are the shipped ones.
"""

from typing import Any, NamedTuple

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hvsjnd_jax
from hvsjnd_jax.model.jnd_map import Resolution
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.model.priors import AttentionLayer

# The same sums in another order, through eleven convolutions; maps lie in [0, 1].
SELF = 1e-5
# In units of the type's precision: two products, their sum with the image, and lmbda's own.
ROUNDINGS = 2

NUMPY_FLOATS = (np.float32, np.float16, np.float64)
FLOATS = (*NUMPY_FLOATS, jnp.bfloat16)  # which NumPy makes float32 of beside any number
OTHERS = (np.uint8, np.int8, np.uint16, np.int32, np.int64, np.bool_, np.complex64)
BATCH = 2
# Each compiles: one cell of the feature; odd sides, two cells of it; and more.
SHAPES = ((8, 8), (9, 13), (64, 41))

UNIT = st.floats(0, 1, width=32)
SIGNS = st.sampled_from((-1.0, 1.0))
LMBDAS = st.floats(0, 1, width=16) | st.floats(0, 1000, width=16)  # exact in every type
KINDS = ("constant", "noise", "black and white", "few gray levels", "ramp", "edge", "tiny", "dots")


def _draw_image(kind: str, shape: tuple[int, int], level: float, seed: int) -> np.ndarray:
  rng = np.random.default_rng(seed)
  flat = np.full((*shape, 3), level)
  match kind:
    case "constant":
      return flat
    case "noise":
      return rng.random(flat.shape)
    case "black and white":
      return rng.integers(0, 2, flat.shape).astype(float)
    case "few gray levels":
      return np.clip(flat + rng.integers(-2, 3, flat.shape) / 255, 0, 1)
    case "ramp":
      return flat * np.linspace(0, 1, shape[1])[:, None]
    case "edge":
      return flat * (np.arange(shape[0]) >= rng.integers(shape[0]))[:, None, None]
    case "tiny":  # denormal in float32, zero in half the bits
      return rng.random(flat.shape) * 1e-38
    case _:  # dots
      return np.where(rng.random(flat.shape) < 0.01, 1 - level, level)


@st.composite
def draw_images(draw: st.DrawFn, shape: tuple[int, int], batch: int = BATCH) -> np.ndarray:
  """Images of a shape, each of another kind, float32."""
  images = [
    _draw_image(draw(st.sampled_from(KINDS)), shape, draw(UNIT), draw(st.integers(0, 99)))
    for _ in range(batch)
  ]
  return np.stack(images).astype(np.float32)


@pytest.fixture(scope="module")
def shipped() -> JNDModel:
  return hvsjnd_jax.load()


def load(resolution: Resolution) -> JNDModel:
  """Loads shipped weights that draw maps of this resolution."""
  return hvsjnd_jax.load("default" if resolution == "fine" else "paper")


FORMS = pytest.mark.parametrize(
  ("shape", "resolution", "attention_layer"),
  [
    (SHAPES[0], "fine", "reconstruction"),
    (SHAPES[1], "reference", "feature"),
    (SHAPES[2], "native", "reconstruction"),
  ],
)


@FORMS
@given(data=st.data())
def test_map_is_finite_and_in_range_and_a_batch_its_images(
  shape: tuple[int, int],
  resolution: Resolution,
  attention_layer: AttentionLayer,
  data: st.DataObject,
):
  images = data.draw(draw_images(shape)).astype(data.draw(st.sampled_from(FLOATS)))

  def estimate(images: Any) -> np.ndarray:
    options: Any = {"resolution": resolution, "attention_layer": attention_layer}
    return np.asarray(hvsjnd_jax.estimate(load(resolution), images, **options))

  jnd = estimate(images)
  assert (jnd.shape, jnd.dtype) == (images.shape, np.float32)
  assert np.isfinite(jnd).all()
  assert jnd.min() >= 0
  assert jnd.max() <= 1
  np.testing.assert_array_equal(jnd, estimate(jnp.asarray(images)))
  for i in range(BATCH):
    np.testing.assert_allclose(estimate(images[i : i + 1])[0], jnd[i], rtol=0, atol=SELF)


@FORMS
@given(data=st.data())
def test_a_value_that_is_not_finite_spoils_its_image_alone(
  shape: tuple[int, int],
  resolution: Resolution,
  attention_layer: AttentionLayer,
  data: st.DataObject,
):
  """It is refused outside `jax.jit`, and never hidden behind numbers that look well inside."""
  images = data.draw(draw_images(shape))
  spoilt = images.copy()
  place = [data.draw(st.integers(0, side - 1)) for side in (*shape, 3)]
  spoilt[1, *place] = data.draw(st.sampled_from((np.nan, np.inf, -np.inf)))
  options: Any = {"resolution": resolution, "attention_layer": attention_layer}
  with pytest.raises(ValueError, match="estimate: expected finite values, got images with"):
    hvsjnd_jax.estimate(load(resolution), spoilt, **options)
  whole, jnd = (_jitted_estimate(load(resolution), batch, **options) for batch in (images, spoilt))
  assert jnp.isnan(jnd[1]).all()
  np.testing.assert_array_equal(jnd[0], whole[0])


@given(images=draw_images(SHAPES[0]))
def test_jit_changes_nothing(shipped: JNDModel, images: np.ndarray):
  jitted = _jitted_estimate(shipped, images)
  np.testing.assert_allclose(jitted, hvsjnd_jax.estimate(shipped, images), rtol=0, atol=SELF)


_jitted_estimate = jax.jit(hvsjnd_jax.estimate, static_argnames=("resolution", "attention_layer"))


@pytest.mark.parametrize("dtype", OTHERS)
def test_other_types_are_refused(shipped: JNDModel, dtype: type):
  images = np.ones((1, 8, 8, 3), dtype)
  message = f"expected float images .* got images of {np.dtype(dtype)}; divide 8-bit images by 255"
  for function in (hvsjnd_jax.estimate, hvsjnd_jax.degrade, hvsjnd_jax.analyze):
    with pytest.raises(TypeError, match=message):
      function(shipped, images)
  with pytest.raises(TypeError, match=f"inject: {message}"):
    hvsjnd_jax.inject(images, images, np.ones((8, 8)))


class Noise(NamedTuple):
  """What `inject` takes."""

  images: np.ndarray
  jnd: np.ndarray
  signs: np.ndarray
  lmbda: float

  def inject(self, **changes: Any) -> np.ndarray:
    images, jnd, signs, lmbda = self._replace(**changes)
    return hvsjnd_jax.inject(images, jnd, signs, lmbda=lmbda)


@st.composite
def draw_noise(draw: st.DrawFn, shape: tuple[int, ...] | None = None) -> Noise:
  shape = shape or (*(draw(st.integers(1, most)) for most in (3, 9, 9)), 3)
  values = hnp.arrays(np.float32, shape, elements=UNIT)
  dtype = draw(st.sampled_from(NUMPY_FLOATS))
  images, jnd = (draw(values).astype(dtype) for _ in range(2))
  signs = draw(
    hnp.arrays(np.float32, draw(st.sampled_from((shape[:3], shape[1:3]))), elements=SIGNS)
  )
  return Noise(images, jnd, signs.astype(dtype), draw(LMBDAS))


INJECTED = settings(max_examples=100)  # NumPy alone, quick


@INJECTED
@given(noise=draw_noise())
def test_noise_is_within_the_map_and_the_result_in_range(noise: Noise):
  distorted = noise.inject()
  assert isinstance(distorted, np.ndarray)
  assert (distorted.shape, distorted.dtype) == (noise.images.shape, noise.images.dtype)
  assert np.isfinite(distorted).all()
  assert distorted.min() >= 0
  assert distorted.max() <= 1
  images, jnd = (np.asarray(maps, np.float64) for maps in (noise.images, noise.jnd))
  bound = noise.lmbda * jnd
  rounding = ROUNDINGS * jnp.finfo(noise.images.dtype).eps * (1 + bound)
  assert (np.abs(distorted - images) <= bound + rounding).all()


@INJECTED
@given(noise=draw_noise())
def test_no_noise_leaves_the_image(noise: Noise):
  np.testing.assert_array_equal(noise.inject(lmbda=0), noise.images)
  np.testing.assert_array_equal(noise.inject(jnd=0 * noise.jnd), noise.images)


@INJECTED
@given(noise=draw_noise())
def test_the_other_sign_is_the_other_way(noise: Noise):
  up, down = (noise.inject(signs=signs).astype(np.float64) for signs in (noise.signs, -noise.signs))
  inside = (np.minimum(up, down) > 0) & (np.maximum(up, down) < 1)
  moved = (up + down - 2 * noise.images.astype(np.float64))[inside]
  assert (np.abs(moved) <= 2 * ROUNDINGS * jnp.finfo(noise.images.dtype).eps).all()


@given(noise=draw_noise((2, 8, 9, 3)))
def test_numpy_jax_and_jit_give_the_same_noise(noise: Noise):
  want = noise.inject().astype(np.float64)
  images, jnd, signs = map(jnp.asarray, noise[:3])
  for inject in (hvsjnd_jax.inject, _jitted_inject):
    distorted = np.asarray(inject(images, jnd, signs, lmbda=noise.lmbda))
    rounding = 2 * ROUNDINGS * jnp.finfo(distorted.dtype).eps * (1 + noise.lmbda * np.float64(jnd))
    assert (np.abs(distorted - want) <= rounding).all()


_jitted_inject = jax.jit(hvsjnd_jax.inject)

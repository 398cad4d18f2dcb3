"""Image-quality metrics: one contract for all."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hvsjnd_jax import metrics
from hvsjnd_jax.metrics import METRICS
from hvsjnd_jax.metrics.backbones import VGG16
from tests.support.compiling import AS_USERS

Images = Callable[..., jax.Array]
Metric = Callable[[jax.Array, jax.Array], jax.Array]

# Scores near 1 from float32 images.
F32 = 1e-5
# Variances as differences of squares: float32 leaves 1e-7 beside C2 = 9e-4.
F32_VARIANCE = 5e-5
# One float32 computation compiled in two ways.
COMPILED = 2e-5
# One float64 computation, compiled and not.
COMPILED_F64 = 1e-12
# Scores of equal images: exact.
EQUAL = 1e-6

# These ask which of the two is the reference: what it holds hides what is added to it.
ASYMMETRIC = {name for name in METRICS if name.startswith(("ssimulacra2", "butteraugli", "cvvdp"))}


def _side(name: str) -> int:
  """The least that a metric takes, and enough for something to be in the image."""
  return max(METRICS[name].smallest_px, 16 if METRICS[name].backbone else 24)


@pytest.fixture(scope="module")
def vgg16() -> VGG16:
  return VGG16(rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def bind(vgg16: VGG16) -> Callable[[str], Metric]:
  """A metric of the table, given the network that it needs."""

  def bind(name: str) -> Metric:
    metric = METRICS[name]
    return functools.partial(metric.function, vgg16=vgg16) if metric.backbone else metric.function

  return bind


@pytest.mark.parametrize("name", METRICS)
def test_equal_in_range_in_order_and_symmetric_or_not(
  bind: Callable[[str], Metric], draw_images: Images, name: str
):
  side = _side(name)
  image = draw_images(1, side, side + 3)
  noise = 0.1 * jax.random.normal(jax.random.key(0), image.shape)
  some, more = (jnp.clip(image + scale * noise, 0, 1) for scale in (1, 3))
  scores = jax.jit(bind(name))(
    jnp.concatenate([image, some, more, image]), jnp.concatenate([image, image, image, some])
  )
  equal, some, more, swapped = np.asarray(scores, np.float64)
  table = METRICS[name]
  np.testing.assert_allclose(equal, table.equal, rtol=0, atol=EQUAL)
  if name in ASYMMETRIC:
    assert abs(some - swapped) > F32 * abs(some)
  else:
    np.testing.assert_allclose(some, swapped, rtol=F32)
  assert all(table.lowest <= score <= table.highest + 1e-6 for score in (equal, some, more))
  assert equal > some > more if table.better == "higher" else equal < some < more


@pytest.mark.parametrize("name", METRICS)
def test_hard_pairs_give_finite_values_and_gradients(
  bind: Callable[[str], Metric], draw_images: Images, flat_images: Images, name: str
):
  side = _side(name)
  black, grey, white = flat_images(side)
  photo = draw_images(1, side, side)[0]
  saturated = jnp.round(photo)  # black and white pixels only
  pairs = [
    *((black, white), (white, black), (photo, grey), (grey, photo), (saturated, photo)),
    *((photo, saturated), (saturated, 1 - saturated)),
    *((image, image) for image in (black, grey, white, photo, saturated)),
  ]
  if METRICS[name].backbone:  # slow, and tested at length in test_dists
    pairs = pairs[:2] + pairs[-2:]
  distorted, reference = (jnp.stack(images) for images in zip(*pairs, strict=True))
  metric = bind(name)

  @jax.jit
  def run(distorted: jax.Array, reference: jax.Array) -> tuple[jax.Array, jax.Array]:
    scores, vjp = jax.vjp(lambda d: metric(d, reference), distorted)
    return scores, vjp(jnp.ones_like(scores))[0]

  scores, gradients = run(distorted, reference)
  assert jnp.isfinite(scores).all()
  assert jnp.isfinite(gradients).all(axis=(1, 2, 3)).all()
  equal = scores[-2:] if METRICS[name].backbone else scores[-5:]
  np.testing.assert_allclose(equal, METRICS[name].equal, rtol=0, atol=EQUAL)


# Eager, each operation is compiled by itself: once is enough of a function with two variants.
@pytest.mark.parametrize("name", sorted(METRICS.keys() - {"butteraugli_max", "cvvdp_fhd"}))
def test_batch_is_one_by_one_and_jit_is_eager(
  bind: Callable[[str], Metric], draw_images: Images, name: str
):
  side = _side(name)
  distorted, reference = (draw_images(2, side, side + 5, seed=seed) for seed in (1, 2))
  metric = bind(name)
  compiled = jax.jit(metric, compiler_options=AS_USERS)
  together = compiled(distorted, reference)
  # The former are slow, and run without jit in test_dists. The latter's means are rounded too far
  # by XLA's former code generator, one operation at a time; float64 has room for that, below.
  if METRICS[name].backbone or name == "ms_ssim_reference":
    metric = compiled
  apart = [metric(distorted[i : i + 1], reference[i : i + 1])[0] for i in range(2)]
  assert together.shape == (2,)
  assert together.dtype == jnp.float32
  np.testing.assert_allclose(together, apart, rtol=COMPILED)


@pytest.mark.usefixtures("x64")
def test_jit_is_eager_in_float64(bind: Callable[[str], Metric], draw_images: Images):
  metric = bind("ms_ssim_reference")
  distorted, reference = (
    jnp.asarray(draw_images(2, 170, 175, seed=seed), jnp.float64) for seed in (1, 2)
  )
  np.testing.assert_allclose(
    jax.jit(metric)(distorted, reference), metric(distorted, reference), rtol=COMPILED_F64
  )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", METRICS)
def test_float64_and_float32_where_64_is_on(
  bind: Callable[[str], Metric], draw_images: Images, name: str
):
  side = _side(name)
  pair = [np.asarray(draw_images(1, side, side, seed=seed)) for seed in (1, 2)]
  metric = jax.jit(bind(name))
  double = metric(*(jnp.asarray(image, jnp.float64) for image in pair))
  single = metric(*(jnp.asarray(image, jnp.float32) for image in pair))
  assert (double.dtype, single.dtype) == (jnp.float64, jnp.float32)
  np.testing.assert_allclose(single, double, rtol=F32_VARIANCE)


BAD = {
  "channels": ((1, 170, 170, 3), (1, 170, 170, 1), r"got distorted .*3\) and reference .*1\)"),
  "batch": ((2, 170, 170, 3), (1, 170, 170, 3), r"one shape \[B, H, W, C\]"),
  "rank": ((170, 170, 3), (170, 170, 3), r"got distorted \(170, 170, 3\)"),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(("distorted", "reference", "message"), BAD.values(), ids=BAD)
def test_bad_shapes_are_named(
  bind: Callable[[str], Metric],
  name: str,
  distorted: tuple[int, ...],
  reference: tuple[int, ...],
  message: str,
):
  with pytest.raises(ValueError, match=message):
    bind(name)(jnp.zeros(distorted), jnp.zeros(reference))


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float16, jnp.bfloat16])
def test_bad_types_are_named(bind: Callable[[str], Metric], name: str, dtype: type):
  images = jnp.zeros((1, 170, 170, 3))
  with pytest.raises(TypeError, match=r"got reference of (uint8; divide 8-bit|b?float16; cast)"):
    bind(name)(images, images.astype(dtype))


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(("low", "high"), [(0, 255), (-1, 1)])
def test_other_ranges_are_named(bind: Callable[[str], Metric], name: str, low: int, high: int):
  images = jnp.full((1, 170, 170, 3), 0.5)
  odd = images.at[0, 0, :2, 0].set(jnp.asarray([low, high]))
  for pair, which in (((odd, images), "distorted"), ((images, odd), "reference")):
    with pytest.raises(ValueError, match=rf"in \[0, 1\], got {which} from {min(low, 0.5):g} to"):
      bind(name)(*pair)


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].smallest_px > 1])
def test_smallest_size(bind: Callable[[str], Metric], draw_images: Images, name: str):
  least = METRICS[name].smallest_px
  for size in ((least - 1, least + 9), (least + 9, least - 1)):
    images = jnp.zeros((1, *size, 3))
    with pytest.raises(ValueError, match=rf"at least {least} pixels, got {size[0]}x{size[1]}"):
      bind(name)(images, images)
  distorted, reference = (draw_images(1, least, least, seed=seed) for seed in (1, 2))
  assert jnp.isfinite(jax.jit(bind(name))(distorted, reference)).all()


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].bytes_per_pixel])
def test_memory_is_that_of_the_table(bind: Callable[[str], Metric], name: str):
  side = 1024
  image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  memory = jax.jit(bind(name)).lower(image, image).compile().memory_analysis()
  assert memory is not None
  # The table's numbers are of the process, which needs more than the arrays alone.
  share = memory.temp_size_in_bytes / side**2 / METRICS[name].bytes_per_pixel
  assert 0.6 < share <= 1


def test_overshoot_and_numpy_arrays_pass():
  image = np.linspace(-0.1, 1.1, 12).reshape(1, 2, 2, 3)
  assert metrics.psnr(image, image) == 100  # pyright: ignore[reportArgumentType]

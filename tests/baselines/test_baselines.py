"""Classical JND maps: one contract for all, closed forms, float64 oracles."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage

from hvsjnd_jax.baselines import BASELINES, SMALLEST_PX
from tests.baselines.oracles import ORACLES

Images = Callable[..., jax.Array]

# Of a map in [0, 1]. One float32 computation compiled in two ways, and float32 at all.
F32 = 1e-5
# The same sums in float64, in another order.
F64 = 1e-10
# Of float32 in 0.999 of a photograph's pixels, in gray levels; measured on four, 0.06 at any
# pixel (Jiang's eigenvectors), and 0.7 at 0.0004 of them (Wu's orientations: a decision).
SINGLE = 0.1


def _photograph(name: str, step: int = 3) -> np.ndarray:
  return np.asarray(getattr(skimage.data, name)()[None, ::step, ::step] / 255)


# --- the contract ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASELINES)
def test_maps_are_images_of_one_channel_in_range(
  draw_images: Images, flat_images: Images, name: str
):
  photo = draw_images(1, 24, 24)
  saturated = jnp.round(photo)  # pure colours only
  overshot = 1.4 * photo - 0.2
  images = [photo, saturated, overshot, overshot.clip(0, 1), flat_images(24)]
  images = jnp.concatenate(images)
  maps = BASELINES[name].function(images)
  assert (maps.shape, maps.dtype) == (images.shape, jnp.float32)
  assert jnp.isfinite(maps).all()
  assert (maps >= 0).all()
  assert (maps <= 1).all()
  np.testing.assert_array_equal(maps, maps[..., :1].repeat(3, axis=-1))
  np.testing.assert_allclose(maps[2], maps[3], atol=F32)


@pytest.mark.parametrize("name", BASELINES)
def test_batch_is_one_by_one_and_transforms_change_nothing(draw_images: Images, name: str):
  # Contrast apart by a factor: what is relative to a maximum is so in each image.
  images = draw_images(2, 24, 24).at[1].multiply(0.25)
  model = BASELINES[name].function
  together = model(images)
  apart = [model(images[i : i + 1])[0] for i in range(2)]
  np.testing.assert_allclose(together, apart, atol=F32)
  traced = jax.jit(jax.vmap(model))(images[:, None])[:, 0]
  np.testing.assert_allclose(together, traced, atol=F32)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", BASELINES)
def test_float64_and_float32_where_64_is_on(name: str):
  photo = _photograph("coffee")
  double = BASELINES[name].function(jnp.asarray(photo, jnp.float64))
  single = BASELINES[name].function(jnp.asarray(photo, jnp.float32))
  assert (double.dtype, single.dtype) == (jnp.float64, jnp.float32)
  error = 255 * np.abs(np.asarray(single, np.float64) - np.asarray(double))
  assert np.percentile(error, 99.9) < SINGLE


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("shape", [(16, 16, 3), (1, 16, 16, 1), (1, 16, 16), (1, 3, 16, 16)])
def test_bad_shapes_are_named(name: str, shape: tuple[int, ...]):
  with pytest.raises(ValueError, match=rf"{name}: expected RGB images \[B, H, W, 3\], got shape"):
    BASELINES[name].function(jnp.zeros(shape))


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float16, jnp.bfloat16])
def test_bad_types_are_named(name: str, dtype: type):
  with pytest.raises(TypeError, match=rf"{name}: .* got images of (uint8; divide|b?float16; cast)"):
    BASELINES[name].function(jnp.zeros((1, 16, 16, 3), dtype))


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("level", [255, -1])
def test_other_ranges_are_named(name: str, level: int):
  images = jnp.zeros((1, 16, 16, 3)).at[0, 3, 4, 1].set(level)
  message = rf"{name}: expected values in \[0, 1\], got images from {min(level, 0)} to"
  with pytest.raises(ValueError, match=message):
    BASELINES[name].function(images)


@pytest.mark.parametrize("name", BASELINES)
def test_smallest_size(draw_images: Images, name: str):
  for size in ((SMALLEST_PX - 1, 16), (16, SMALLEST_PX - 1)):
    with pytest.raises(ValueError, match=rf"{name}: .* at least 8 pixels, got {size[0]}x{size[1]}"):
      BASELINES[name].function(jnp.zeros((1, *size, 3)))
  assert jnp.isfinite(BASELINES[name].function(draw_images(1, SMALLEST_PX, SMALLEST_PX))).all()


def test_numpy_arrays_pass_and_names_are_the_table_s():
  images = np.full((1, 8, 8, 3), 0.5)
  for name, baseline in BASELINES.items():
    assert isinstance(baseline.function(images), jax.Array)
    assert baseline.function.__name__ == name
    assert baseline.year is None or not name[-4:].isdigit() or name.endswith(str(baseline.year))


# --- closed forms ---------------------------------------------------------------------------

LEVELS = (0, 31.75, 127, 191, 255)
# Of dark levels lifted to 32 and 56.
LIFTED = (20 - 17 * (32 / 127) ** 0.5, 20 - 17 * (56 / 127) ** 0.5, 3, 4.5, 6)
# Of a flat image only luminance adaptation is left, and in `wu_2013` a constant of masking.
FLAT = {
  "uniform": (1, 1, 1, 1, 1),
  "chou_li_1995": (20, 11.5, 3, 4.5, 6),
  "yang_2005": (20, 11.5, 3, 4.5, 6),
  "liu_2010": (20, 11.5, 3, 4.5, 6),
  "wu_2013": tuple(
    la + 0.7 * abs(0.5 - 0.01 * level) for la, level in zip(LIFTED, LEVELS, strict=True)
  ),
  "wu_2017": tuple(0.7 * la for la in LIFTED),
  "jiang_2022": (0, 0, 0, 0, 0),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("dtype", "atol"), [(jnp.float32, 1e-3), (jnp.float64, 1e-9)])
@pytest.mark.parametrize("name", FLAT)
def test_flat_images(name: str, dtype: type, atol: float):
  images = np.broadcast_to(np.reshape(LEVELS, (5, 1, 1, 1)) / 255, (5, 20, 12, 3))
  maps = 255 * np.asarray(BASELINES[name].function(jnp.asarray(images, dtype)), np.float64)
  if name == "wu_2013":
    np.testing.assert_array_equal(np.delete(maps, np.s_[3:-3], axis=1), 0)
    np.testing.assert_array_equal(np.delete(maps, np.s_[3:-3], axis=2), 0)
    maps = maps[:, 3:-3, 3:-3]
  want = np.broadcast_to(np.reshape(FLAT[name], (5, 1, 1, 1)), maps.shape)
  np.testing.assert_allclose(maps, want, rtol=0, atol=atol)


def test_flat_images_of_the_heuristic():
  """Inside: past the edge it sees black. At 127 it jumps, and rounding decides."""
  levels = np.asarray([0, 31.75, 126, 128, 255])
  images = jnp.broadcast_to(jnp.asarray(levels / 255)[:, None, None, None], (5, 9, 9, 3))
  maps = 255 * np.asarray(BASELINES["contrast_heuristic"].function(images))[:, 2:-2, 2:-2]
  dark = [17 * (1 - (level / 127 + 1e-5) ** 0.5) for level in levels[:3]]
  want = np.asarray([*dark, 3 + 3 / 128, 6])[:, None, None, None]
  np.testing.assert_allclose(maps, np.broadcast_to(want, maps.shape), atol=1e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", BASELINES)
def test_only_luma_counts(name: str):
  """Red, and the gray of its luma, have one map."""
  shape = np.random.default_rng(0).random((5, 20, 12, 1))
  red, gray = jnp.asarray(shape * [1.0, 0, 0]), jnp.asarray(0.299 * shape.repeat(3, axis=-1))
  model = BASELINES[name].function
  np.testing.assert_allclose(model(red), model(gray), rtol=0, atol=F64)


# --- oracles --------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("picture", ["coffee", "drawn"])
@pytest.mark.parametrize("name", ORACLES)
def test_float64_oracle(draw_images: Images, name: str, picture: str):
  if picture == "drawn":
    image = np.asarray(draw_images(1, 69, 76), np.float64)  # above 64 blocks
  else:
    image = _photograph(picture, 4)[:, :101, :115]
    # Off the grid of 8 bits: no ties, which another order of sums would decide otherwise.
    image = image * 0.99 + 0.01 * np.random.default_rng(0).random(image.shape)
  got = 255 * np.asarray(BASELINES[name].function(jnp.asarray(image))[0, ..., 0])
  want = ORACLES[name](255 * image[0] @ [0.299, 0.587, 0.114])
  np.testing.assert_allclose(got, want.clip(0, 255), rtol=0, atol=255 * F64)

"""Classical JND maps: one contract for all, closed forms, float64 oracles; Canny's edges."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage
from scipy import ndimage
from skimage import feature, morphology

from hvsjnd_jax.baselines import BASELINES, SMALLEST_PX, canny

Images = Callable[..., jax.Array]
Luma = np.ndarray

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
# Of a flat image only luminance adaptation is left.
FLAT = {
  "uniform": (1, 1, 1, 1, 1),
  "chou_li_1995": (20, 11.5, 3, 4.5, 6),
  "yang_2005": (20, 11.5, 3, 4.5, 6),
  # 31.75 is lifted to 55.75.
  "wu_2017": (14 - 11.9 * (32 / 127) ** 0.5, 14 - 11.9 * (56 / 127) ** 0.5, 2.1, 3.15, 4.2),
  "jiang_2022": (0, 0, 0, 0, 0),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("dtype", "atol"), [(jnp.float32, 1e-3), (jnp.float64, 1e-9)])
@pytest.mark.parametrize("name", FLAT)
def test_flat_images(name: str, dtype: type, atol: float):
  images = np.broadcast_to(np.reshape(LEVELS, (5, 1, 1, 1)) / 255, (5, 20, 12, 3))
  maps = 255 * np.asarray(BASELINES[name].function(jnp.asarray(images, dtype)), np.float64)
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
# Of luma on 0..255, in gray levels. SciPy's mode "reflect" repeats the outermost pixel.


def _gaussian(image: Luma, radius: int, sigma: float) -> Luma:
  return ndimage.gaussian_filter(image, sigma, radius=radius)


def _background_oracle(luma: Luma, mode: str = "reflect") -> Luma:
  weights = np.ones((5, 5))
  weights[1:4, 1:4] = 2
  weights[2, 2] = 0
  return ndimage.correlate(luma, weights / 32, mode=mode)


def _adaptation_oracle(background: Luma) -> Luma:
  dark, light = 17 * (1 - np.sqrt(background / 127)) + 3, 3 / 128 * (background - 127) + 3
  return np.where(background <= 127, dark, light)


def _gradient_oracle(luma: Luma) -> Luma:
  g1 = np.outer([0, 1, 0, -1, 0], [1, 3, 8, 3, 1])
  g2 = np.zeros((5, 5))
  g2[0, 2], g2[1, 1:3], g2[2, :2] = 1, (8, 3), (1, 3)
  g2 -= g2[::-1, ::-1]
  g3 = np.zeros((5, 5))
  g3[0, 2], g3[1, 2:4], g3[2, 3:] = 1, (3, 8), (3, 1)
  g3 -= g3[::-1, ::-1]
  return np.max([np.abs(ndimage.correlate(luma, g)) / 16 for g in (g1, g2, g3, g1.T)], axis=0)


def _canny_oracle(luma: Luma, high: float) -> np.ndarray:
  """scikit-image's, whose thresholds are not relative."""
  blurred = ndimage.gaussian_filter(luma, np.sqrt(2))
  peak = np.hypot(ndimage.sobel(blurred, axis=0), ndimage.sobel(blurred, axis=1)).max()
  return feature.canny(luma, np.sqrt(2), 0.4 * high * peak, high * peak, mode="reflect")


def _guard_oracle(luma: Luma) -> Luma:
  found = _canny_oracle(luma, min(60 / _gradient_oracle(luma).max(), 0.8))
  return _gaussian(1.0 - ndimage.binary_dilation(found, morphology.disk(3)), 2, 0.8)


def _add_oracle(a: Luma, b: Luma) -> Luma:
  return np.maximum(a, b) + 0.7 * np.minimum(a, b)


def _chou_li_oracle(luma: Luma) -> Luma:
  b = _background_oracle(luma)
  masking = _gradient_oracle(luma) * (1e-4 * b + 0.115) + (0.5 - 0.01 * b)
  return np.maximum(masking, _adaptation_oracle(b))


def _yang_oracle(luma: Luma) -> Luma:
  weight = _gaussian(1 - 0.9 * _canny_oracle(luma, 0.5), 3, 0.8)
  adaptation = _adaptation_oracle(_background_oracle(luma))
  return _add_oracle(adaptation, 0.117 * _gradient_oracle(luma) * weight)


def _wu_oracle(luma: Luma) -> Luma:
  h, w = luma.shape
  b = _background_oracle(luma)
  adaptation = 0.7 * _adaptation_oracle(np.where(b <= 127, np.round(32 + b * 95 / 127), b))

  spread = np.zeros((h, w))
  for y in range(2, h - 2):
    for x in range(2, w - 2):
      spread[y, x] = luma[y - 2 : y + 3, x - 2 : x + 3].std()
  contrast = 1.84 * spread**2.4 / (spread**2 + 676)

  kernel = np.asarray([[-1, 0, 1]] * 3) / 3
  gh, gv = ndimage.correlate(luma, kernel), ndimage.correlate(luma, kernel.T)
  degrees = np.round(np.degrees(np.arctan(gv / np.where(gh == 0, 1e-300, gh))))
  bins = np.floor(np.where(degrees < 0, degrees + 180, degrees) / 12 + 0.5)
  valid = np.hypot(gh, gv) >= 5
  bins[~valid] = 16
  count = np.ones((h, w))
  for y in range(1, h - 1):
    for x in range(1, w - 1):
      if valid[y, x]:
        count[y, x] = len(set(bins[y - 1 : y + 2, x - 1 : x + 2].ravel()))
  count = _gaussian(count, 1, 1)
  pattern = spread * 0.3 * count**2.7 / (count**2 + 1) * _guard_oracle(luma)
  return _add_oracle(adaptation, np.maximum(contrast, pattern))


def _contrast_oracle(luma: Luma) -> Luma:
  m = _background_oracle(luma, "constant")
  la = np.where(m <= 127, 17 * (1 - np.sqrt(m / 127 + 1e-5)), 3 / 128 * (m - 127) + 3)
  c = np.hypot(*(ndimage.sobel(luma, axis=axis, mode="constant") for axis in (0, 1)))
  cm = 0.117 * 16 * c**2.4 / (c**2 + 26**2)
  return np.maximum(0, la + cm - 0.3 * np.minimum(la, cm))


def _jiang_oracle(luma: Luma) -> Luma:
  h, w = luma.shape
  padded = np.pad(luma, ((0, -h % 8), (0, -w % 8)), mode="symmetric")
  corners = [(y, x) for y in range(0, len(padded), 8) for x in range(0, padded.shape[1], 8)]
  blocks = np.stack([padded[y : y + 8, x : x + 8].ravel() for y, x in corners], axis=1)
  values, vectors = np.linalg.eigh(np.cov(blocks, bias=True))
  vectors = vectors[:, np.argsort(-values)]
  components = vectors.T @ blocks
  shares = np.cumsum((components**2).mean(axis=1))
  shares /= shares[-1]
  b, e = 894.16, 0.99805
  logs = np.log(b / e) + (b - 1) * np.log(shares / e) - (shares / e) ** b
  density = np.exp(logs - logs.max())
  last = int(np.ceil((density * np.arange(1, 65)).sum() / density.sum()))
  assert 1 < last < 64  # else nothing is tested
  kept = vectors[:, :last] @ components[:last]
  critical = np.zeros_like(padded)
  for (y, x), block in zip(corners, kept.T, strict=True):
    critical[y : y + 8, x : x + 8] = block.reshape(8, 8)
  return np.abs(luma - critical[:h, :w]) * _guard_oracle(luma)


ORACLES = {
  "chou_li_1995": _chou_li_oracle,
  "yang_2005": _yang_oracle,
  "wu_2017": _wu_oracle,
  "contrast_heuristic": _contrast_oracle,
  "jiang_2022": _jiang_oracle,
}


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


# --- Canny's edges --------------------------------------------------------------------------


@pytest.mark.parametrize("picture", ["astronaut", "coffee", "camera"])
def test_canny_agrees_with_scikit_image(picture: str):
  luma = _photograph(picture, 2)[0] * 255
  luma = luma @ [0.299, 0.587, 0.114] if luma.ndim == 3 else luma
  thresholds = np.asarray([0.2, 0.5, 0.8], np.float32)
  stack = jnp.asarray(np.stack([luma] * 3), jnp.float32)
  found = np.asarray(jax.jit(canny.canny)(stack, jnp.asarray(thresholds)))
  for one, high in zip(found, thresholds.tolist(), strict=True):
    want = _canny_oracle(luma, high)
    assert want.any()
    # Measured: all pixels. A tie could go the other way in float32.
    assert (one != want).sum() <= 2


def test_canny_of_a_step_and_of_nothing():
  step = jnp.zeros((20, 20)).at[:, 10:].set(200.0)
  flat = jnp.full((20, 20), 0.1 + 0.2)
  found = np.asarray(
    jax.jit(canny.canny)(jnp.stack([step, 0.01 * step, flat, 255 + 0 * flat]), 0.8)
  )
  for one in found[:2]:  # relative to the maximum: contrast does not count
    assert one[1:-1, 9:11].any(axis=1).all()
    assert one.sum() == one[1:-1, 9:11].sum()
  assert not found[2:].any()


def test_canny_keeps_what_hangs_together():
  """An edge that fades below the high threshold, and one as weak that stands alone."""
  luma = np.zeros((60, 40))
  luma[:, 10:] = np.linspace(100, 40, 60)[:, None]  # 1 to 0.4 of the maximum
  luma[:, 25:] += 50  # 0.5
  found = np.asarray(jax.jit(canny.canny)(jnp.asarray(luma, jnp.float32)[None], 0.8))[0]
  assert found[1:-1, 9:11].any(axis=1).all()
  assert not found[:, 20:].any()


def test_growth_follows_the_allowed_to_its_end():
  allowed = np.random.default_rng(0).random((2, 40, 50)) < 0.4  # long and winding
  seeds = allowed & (np.random.default_rng(1).random(allowed.shape) < 0.01)
  want = [
    ndimage.binary_propagation(seed, np.ones((3, 3)), mask)
    for seed, mask in zip(seeds, allowed, strict=True)
  ]
  np.testing.assert_array_equal(
    jax.jit(canny._grow)(jnp.asarray(seeds), jnp.asarray(allowed)), want
  )


@pytest.mark.parametrize("radius", [1, 3, 6])
def test_dilation_by_a_disk(radius: int):
  masks = np.random.default_rng(radius).random((2, 17, 23)) < 0.02
  want = [ndimage.binary_dilation(mask, morphology.disk(radius)) for mask in masks]
  np.testing.assert_array_equal(canny.dilate(jnp.asarray(masks), canny.disk(radius)), want)

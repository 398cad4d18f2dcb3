"""ColorVideoVDP: golden scores, stages and gradients, closed forms, hard images."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvsjnd_jax.metrics.cvvdp import (
  CVVDP_SMALLEST_PX,
  Display,
  StandardDisplay,
  _band_frequencies,
  _decompose,
  _differences,
  _expand_map,
  _interpolate,
  _pixel_norm,
  _reduce_map,
  _sensitivities,
  _to_dkl,
  cvvdp,
  cvvdp_map,
)
from tests.support.golden_vision import BY_SIZE, GRADS, SCORES, STAGES, read_pairs, read_scores

Images = Callable[..., jax.Array]

# JOD, of float64 against the program, which prints float32: half its step, 1e-6, near 10.
PROGRAM = 1e-6
# JOD, of float64 against the float64 twin: other orders of summation.
F64 = 1e-13
# JOD, of float32 against it: 4e-6 measured.
F32 = 1e-5
# Of a band's norm in float64, against the twin, absolute: the norms reach 100.
BAND = 1e-11
# Of a plane, against one stored as float32.
STORED = 1e-7
# Of the largest gradient, besides ten times what a central difference changes with its step:
# 3.4e-7 measured. Without the dead zone in flat parts it is 1e-3.
GRADIENT = 1e-6
# The same of float32: 2.8e-5 measured.
F32_GRADIENT = 5e-5
# Of the largest gradient, against the program's own in float32: 3.3e-5 measured.
AUTOGRAD = 5e-5
# Of a derivative along a direction, besides ten times what it changes with its step.
DIRECTIONAL = 1e-7
# One float64 computation in two orders.
ORDER = 1e-12
# One float32 computation compiled in two ways, in JOD.
COMPILED = 1e-5

# What takes the least time, and covers both parities of both sides; the rest is slow.
QUICK = ("64x64", "123x201", "33x18", "9x40")
QUICK_FIRST = [
  pytest.param(size, marks=() if size in QUICK else pytest.mark.slow) for size in BY_SIZE
]


@jax.jit
def _score_and_gradient(distorted: jax.Array, reference: jax.Array) -> tuple[jax.Array, jax.Array]:
  scores, vjp = jax.vjp(lambda d: cvvdp(d, reference), distorted)
  return scores, vjp(jnp.ones_like(scores))[0]


# --- golden numbers -------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", BY_SIZE)
def test_golden_scores_and_bands(size: str):
  names = BY_SIZE[size]
  distorted, reference = read_pairs(names, np.float64)
  scores = cvvdp(distorted, reference)
  np.testing.assert_allclose(scores, read_scores("jod_4k", names), rtol=0, atol=PROGRAM)
  np.testing.assert_allclose(scores, read_scores("jod_4k_twin", names), rtol=0, atol=F64)
  differences = _differences(distorted, reference, Display())
  bands = np.stack([_pixel_norm(d.reshape(3, len(names), -1)) for d in differences], axis=-1)
  for i, name in enumerate(names):
    np.testing.assert_allclose(bands[:, i], SCORES[f"{name}/cvvdp_Q"], rtol=0, atol=BAND)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", QUICK_FIRST)
def test_golden_scores_of_full_hd(size: str):
  names = BY_SIZE[size]
  scores = cvvdp(*read_pairs(names, np.float64), display="standard_fhd")
  np.testing.assert_allclose(scores, read_scores("jod_fhd", names), rtol=0, atol=PROGRAM)
  np.testing.assert_allclose(scores, read_scores("jod_fhd_twin", names), rtol=0, atol=F64)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", QUICK_FIRST)
@pytest.mark.parametrize(
  "display", ["standard_4k", pytest.param("standard_fhd", marks=pytest.mark.slow)]
)
def test_golden_scores_in_float32(size: str, display: StandardDisplay):
  names = BY_SIZE[size]
  scores = cvvdp(*read_pairs(names, np.float32), display=display)
  assert scores.dtype == jnp.float32
  golden = read_scores(f"jod_{display.removeprefix('standard_')}_twin", names)
  np.testing.assert_allclose(np.asarray(scores, np.float64), golden, rtol=0, atol=F32)


def _check_gradients(names: list[str], dtype: type, tolerance: float) -> None:
  _, gradients = _score_and_gradient(*read_pairs(names, dtype))
  for name, gradient in zip(names, np.asarray(gradients, np.float64), strict=True):
    if f"{name}/grad" in GRADS:
      y, x, c = GRADS[f"{name}/yxc"].T
      golden, spread = (GRADS[f"{name}/{key}"][:, 3] for key in ("grad", "fd_spread"))
      largest = np.abs(golden).max()
      assert (np.abs(gradient[y, x, c] - golden) <= tolerance * largest + 10 * spread).all(), name
      autograd = GRADS[f"{name}/cvvdp_autograd"]
      np.testing.assert_allclose(gradient[y, x, c], autograd, rtol=0, atol=AUTOGRAD * largest)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", ["64x64", "123x201"])
def test_golden_gradients(size: str):
  _check_gradients(BY_SIZE[size], np.float64, GRADIENT)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["64x64", "123x201"])
def test_golden_gradients_in_float32(size: str):
  _check_gradients(BY_SIZE[size], np.float32, F32_GRADIENT)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", QUICK_FIRST)
def test_golden_derivatives_along_a_direction(size: str):
  names = BY_SIZE[size]
  _, gradients = _score_and_gradient(*read_pairs(names, np.float64))
  y, x, c = np.indices(gradients.shape[1:])
  direction = np.sin(1 + 0.37 * y + 0.73 * x + 1.1 * c)
  for name, gradient in zip(names, np.asarray(gradients), strict=True):
    if f"{name}/directional" in GRADS:
      golden, check = (GRADS[f"{name}/{key}"][3] for key in ("directional", "directional_check"))
      error = abs(np.vdot(gradient, direction) - golden)
      assert error <= 10 * abs(golden - check) + DIRECTIONAL, name


@pytest.mark.usefixtures("x64")
def test_golden_stages():
  images = read_pairs(["tiny_33x18_noise8"], np.float64)
  frequencies = _band_frequencies(Display().pixels_per_degree, 33, 18)
  np.testing.assert_allclose(frequencies, STAGES["cvvdp/band_freq"], rtol=STORED)

  @jax.jit
  def run(image: jax.Array) -> tuple[jax.Array, list[jax.Array], list[jax.Array]]:
    channels = _to_dkl(image, Display())
    contrasts, backgrounds = _decompose(channels, bands=len(frequencies))
    tables = [_sensitivities(frequency) for frequency in frequencies]
    return channels, contrasts, [*map(_interpolate, tables, backgrounds)]

  for who, image in zip(("dist", "ref"), images, strict=True):
    channels, contrasts, seen = run(image)
    golden = STAGES[f"cvvdp/{who}/dkl"].transpose(2, 0, 1)
    np.testing.assert_allclose(channels[:, 0], golden, rtol=STORED, atol=1e-5)
    for band in range(3):
      golden = STAGES[f"cvvdp/{who}/contrast{band}"].transpose(2, 0, 1)
      doubled = contrasts[band][:, 0] * (1 if band == 0 else 2)
      np.testing.assert_allclose(doubled, golden, rtol=0, atol=STORED)
      if who == "ref":
        golden = STAGES[f"cvvdp/S{band}"].transpose(2, 0, 1)
        np.testing.assert_allclose(seen[band][:, 0], golden, rtol=STORED)


# --- closed forms ---------------------------------------------------------------------------


def test_reduce_keeps_a_row_s_sum_where_rows_and_columns_end_alike():
  """And where they do not, the last column is off by a quarter, as in the program."""
  for size in (4, 5, 8, 9):
    np.testing.assert_allclose(_reduce_map(size, size % 2 == 1).to_matrix().sum(axis=1), 1)
  np.testing.assert_allclose(_reduce_map(8, True).to_matrix().sum(axis=1), [1, 1, 1, 1.25])
  np.testing.assert_allclose(_reduce_map(9, False).to_matrix().sum(axis=1), [1, 1, 1, 1, 0.75])


def test_expand_keeps_what_is_flat_and_goes_through_levels():
  for size in (2, 5, 8, 33):
    np.testing.assert_allclose(_expand_map(size).to_matrix().sum(axis=1), 1)
  twice = _expand_map(33).to_matrix() @ _expand_map(17).to_matrix()
  np.testing.assert_allclose(_expand_map(33, 2).to_matrix(), twice)
  np.testing.assert_array_equal(_expand_map(5, 0).to_matrix(), np.eye(5))


@pytest.mark.parametrize(
  ("display", "side", "bands"),
  [
    *(("standard_4k", 2, 0), ("standard_4k", 3, 0), ("standard_4k", 4, 1), ("standard_4k", 7, 1)),
    *(("standard_4k", 511, 7), ("standard_4k", 512, 8), ("standard_4k", 4000, 8)),
    *(("standard_fhd", 255, 6), ("standard_fhd", 256, 7), ("standard_fhd", 4000, 7)),
  ],
)
def test_bands_of_a_side(display: StandardDisplay, side: int, bands: int):
  pixels_per_degree = {"standard_4k": 75.40244934516303, "standard_fhd": 37.842503853602885}
  frequencies = _band_frequencies(pixels_per_degree[display], side, side + 1)
  assert len(frequencies) == bands + 1
  assert frequencies[-1] == 0.1


def test_pixels_per_degree():
  fhd = Display(resolution_px=(1920, 1080), diagonal_inches=24, distance_m=0.6)
  np.testing.assert_allclose(Display().pixels_per_degree, 75.40244934516303)
  np.testing.assert_allclose(fhd.pixels_per_degree, 37.842503853602885)
  far = Display(distance_m=2 * 0.7472)
  np.testing.assert_allclose(far.pixels_per_degree, 2 * Display().pixels_per_degree, rtol=1e-3)


def _fill(*colour: int, side: int = 32) -> jax.Array:
  return jnp.broadcast_to(jnp.asarray(colour, jnp.float32) / 255, (1, side, side, 3))


def test_brightness_goes_unseen_and_colour_does_not():
  grey = _fill(128, 128, 128)
  dark, red = _fill(64, 64, 64), _fill(132, 128, 128)
  scores = cvvdp(jnp.concatenate([dark, red]), jnp.concatenate([grey, grey]))
  np.testing.assert_allclose(scores, [10, 9.944], rtol=0, atol=5e-4)  # the printed digits


def test_a_display_that_is_described_is_the_one_that_is_named(draw_images: Images):
  images = draw_images(1, 9, 9), draw_images(1, 9, 9, seed=1)
  fhd = Display(resolution_px=(1920, 1080), diagonal_inches=24, distance_m=0.6)
  np.testing.assert_array_equal(cvvdp(*images, display=fhd), cvvdp(*images, display="standard_fhd"))


def test_farther_away_and_in_a_lit_room_less_is_seen(draw_images: Images):
  reference = 0.3 * draw_images(1, 8, 8)
  noise = 0.05 * jax.random.normal(jax.random.key(0), reference.shape)
  distorted = jnp.clip(reference + noise, 0)
  displays = (Display(), Display(distance_m=1.5), Display(ambient_lux=5000))
  near, far, lit = (float(cvvdp(distorted, reference, display=d)[0]) for d in displays)
  assert near < far < 10
  assert near < lit < 10


# --- the map --------------------------------------------------------------------------------


def test_map_of_an_even_difference_is_the_score():
  grey, red = _fill(128, 128, 128), _fill(140, 128, 128)
  lost = cvvdp_map(red, grey)
  np.testing.assert_allclose(lost, jnp.full((1, 32, 32), 10 - cvvdp(red, grey)[0]), atol=COMPILED)
  assert lost.min() > 0.1


def test_map_shows_where_and_how_much(draw_images: Images):
  reference = jnp.concatenate([draw_images(1, 31, 42)] * 3)
  noise = 0.1 * jax.random.normal(jax.random.key(0), (12, 12, 3))
  distorted = jnp.clip(
    reference.at[:2, 4:16, 30:42].add(noise * jnp.asarray([[[[1]]], [[[2]]]])), 0
  )
  maps, vjp = jax.jit(lambda d: jax.vjp(lambda d: cvvdp_map(d, reference), d))(distorted)
  some, more, equal = maps
  assert some.shape == (31, 42)
  assert some[4:16, 30:42].mean() > 10 * some[:, :20].mean()
  assert more[4:16, 30:42].mean() > some[4:16, 30:42].mean()
  np.testing.assert_allclose(equal, 0, atol=1e-9)
  assert jnp.isfinite(jax.jit(vjp)(jnp.ones_like(maps))[0]).all()


# --- the contract ---------------------------------------------------------------------------


def test_batch_is_one_by_one_and_jit_is_eager(draw_images: Images):
  distorted, reference = (draw_images(2, 9, 13, seed=seed) for seed in (1, 2))
  together = jax.jit(cvvdp)(distorted, reference)
  apart = [cvvdp(distorted[i : i + 1], reference[i : i + 1])[0] for i in range(2)]
  mapped = jax.vmap(lambda d, r: cvvdp(d[None], r[None])[0])(distorted, reference)
  assert together.shape == (2,)
  assert together.dtype == jnp.float32
  np.testing.assert_allclose(together, apart, rtol=0, atol=COMPILED)
  np.testing.assert_allclose(together, mapped, rtol=0, atol=COMPILED)


def test_hard_pairs_give_finite_scores_and_gradients(draw_images: Images, flat_images: Images):
  black, grey, white = flat_images(24)
  photo = draw_images(1, 24, 24)[0]
  saturated = jnp.round(photo)  # black and white pixels only
  pairs = [
    *((black, white), (white, black), (photo, grey), (grey, photo), (saturated, photo)),
    *((photo, saturated), (saturated, 1 - saturated)),
    *((image, image) for image in (black, grey, white, photo, saturated)),
  ]
  distorted, reference = (jnp.stack(images) for images in zip(*pairs, strict=True))
  scores, gradients = _score_and_gradient(distorted, reference)
  assert jnp.isfinite(scores).all()
  assert jnp.isfinite(gradients).all()
  assert (scores <= 10).all()
  np.testing.assert_array_equal(scores[-5:], 10)
  np.testing.assert_allclose(gradients[-5:], 0, atol=1e-12)
  assert (jnp.abs(gradients[2:7]).max(axis=(1, 2, 3)) > 1e-4).all()


@pytest.mark.usefixtures("x64")
def test_forward_mode_is_reverse_mode(draw_images: Images):
  distorted, reference, direction = (
    draw_images(1, 9, 10, seed=seed).astype(np.float64) for seed in range(3)
  )
  _, forward = jax.jit(lambda d, v: jax.jvp(lambda d: cvvdp(d, reference), (d,), (v,)))(
    distorted, direction
  )
  _, gradient = _score_and_gradient(distorted, reference)
  np.testing.assert_allclose(forward[0], jnp.vdot(gradient, direction), rtol=ORDER)


@pytest.mark.usefixtures("x64")
def test_gradient_of_the_reference(check_gradient: Callable[..., None], draw_images: Images):
  images = [draw_images(1, 9, 10, seed=seed) for seed in (1, 2)]
  check_gradient(cvvdp, *images)


def test_what_lies_beyond_is_clipped_and_gradients_at_the_ends_are_whole(draw_images: Images):
  reference = draw_images(1, 16, 16)
  beyond = (reference - 0.5) * 3 + 0.5
  beyond = jnp.clip(beyond, -0.4, 1.4)
  score, gradient = _score_and_gradient(beyond, reference)
  clipped, whole = _score_and_gradient(jnp.clip(beyond, 0, 1), reference)
  np.testing.assert_allclose(score, clipped, rtol=0, atol=COMPILED)
  outside = (beyond < 0) | (beyond > 1)
  assert outside.any()
  np.testing.assert_array_equal(gradient[outside], 0)
  assert (whole[outside] != 0).all()


@pytest.mark.parametrize("size", [(2, 2), (3, 2), (4, 9), (13, 7)])
def test_small_and_odd_sizes(draw_images: Images, size: tuple[int, int]):
  images = draw_images(2, *size)
  scores, gradients = _score_and_gradient(images, images[::-1])
  assert (scores < 10).all()
  assert jnp.isfinite(gradients).all()
  assert cvvdp_map(images, images[::-1]).shape == (2, *size)


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [cvvdp, cvvdp_map])
def test_refuses(metric: Callable[..., jax.Array]):
  name = metric.__name__
  image = jnp.zeros((1, 8, 8, 3))
  with pytest.raises(ValueError, match=rf"^{name}: expected 3 channels, got 1$"):
    metric(image[..., :1], image[..., :1])
  small = image[:, : CVVDP_SMALLEST_PX - 1]
  with pytest.raises(ValueError, match=rf"^{name}: expected sides of at least 2 pixels, got 1x8"):
    metric(small, small)
  message = rf"^{name}: expected display standard_4k, standard_fhd or a Display, got 4k$"
  with pytest.raises(ValueError, match=message):
    metric(image, image, display="4k")
  with pytest.raises(TypeError, match=rf"^{name}: expected float32 or float64"):
    metric(image.astype(jnp.uint8), image)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"diagonal_inches": 0}, "expected a finite diagonal_inches above 0, got 0"),
    ({"distance_m": -1}, "expected a finite distance_m above 0, got -1"),
    ({"peak_nits": float("nan")}, "expected a finite peak_nits above 0, got nan"),
    ({"contrast": 1}, "expected a finite contrast above 1, got 1"),
    ({"ambient_lux": -1}, "expected a finite ambient_lux of at least 0, got -1"),
    ({"reflectivity": float("inf")}, "expected a finite reflectivity of at least 0, got inf"),
    ({"resolution_px": (0, 9)}, r"expected resolution_px \(width, height\), got \(0, 9\)"),
    ({"resolution_px": (9,)}, r"expected resolution_px \(width, height\), got \(9,\)"),
    ({"resolution_px": [9, 9]}, r"expected resolution_px \(width, height\), got \[9, 9\]"),
  ],
)
def test_display_refuses(options: dict, message: str):
  with pytest.raises(ValueError, match=f"^Display: {message}$"):
    Display(**options)

"""Butteraugli: the programs' numbers, the gradients of its twin, and what must hold besides.

The golden files: see tests/goldens/README.md. The twin is a float64 program that agrees with
libjxl's to 1e-5, a flat grey pair to 5e-5.
"""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from hvsjnd_jax.metrics.butteraugli import Norm, butteraugli, butteraugli_map, pool
from hvsjnd_jax.ops.axis_maps import halve
from hvsjnd_jax.ops.malta import DENSE, SPARSE, Lines, malta
from tests.support.golden_vision import BY_SIZE, GRADS, STAGES, read_pairs, read_scores

# In the package, the function of this name hides its module.
module = importlib.import_module("hvsjnd_jax.metrics.butteraugli")

NORMS: tuple[Norm, ...] = ("3-norm", "max", 12)

# Against the twin, the same formulas in float64, in another order.
TWIN = 1e-6
# Against the programs, which compute in float32, as we do too.
PROGRAM = 1e-4
# Planes that were stored in float32, of their maximum: 1e-6 was seen.
STORED = 5e-6
# Of the largest golden gradient, beside ten times what its own two step widths differ by.
GRADIENT = 1e-4
# One float32 computation compiled in two ways.
COMPILED = 2e-5
F64 = 1e-10


@jax.jit
def _both_versions(distorted: jax.Array, reference: jax.Array) -> list[jax.Array]:
  """In one program: what they share is computed once."""
  return [butteraugli_map(distorted, reference, version=version) for version in ("0.7", "0.8")]


def _pool_gradient(difference_map: jax.Array, norm: Norm) -> tuple[jax.Array, jax.Array]:
  """Of each map."""
  scores, vjp = jax.vjp(lambda m: pool(m, norm=norm), difference_map)
  return scores, vjp(jnp.ones_like(scores))[0]


# --- golden numbers -------------------------------------------------------------------------

FAST = {
  *((size, "float64") for size in ("8x8", "9x40", "15x16", "17x31", "64x64")),
  *((size, "float32") for size in ("64x64", "123x201")),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
  ("size", "dtype"),
  [
    pytest.param(size, dtype, marks=[] if (size, dtype) in FAST else pytest.mark.slow)
    for size in BY_SIZE
    for dtype in ("float32", "float64")
  ],
)
def test_golden_scores(size: str, dtype: str):
  names = BY_SIZE[size]
  maps = _both_versions(*read_pairs(names, dtype))
  for version, difference_map in zip(("07", "08"), maps, strict=True):
    assert difference_map.dtype == dtype
    for key, got in (("p3", pool(difference_map)), ("max", pool(difference_map, norm="max"))):
      assert got.dtype == dtype
      key = f"bfly{version}_{key}"
      np.testing.assert_allclose(got, read_scores(key, names), rtol=PROGRAM)
      if dtype == "float64":
        np.testing.assert_allclose(got, read_scores(f"{key}_twin", names), rtol=TWIN)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", ["64x64", pytest.param("123x201", marks=pytest.mark.slow)])
def test_golden_gradients(size: str):
  """Of the 3-norm and of the maximum: at 64 values each, and along a wave."""
  names = [name for name in BY_SIZE[size] if f"{name}/grad" in GRADS]
  pair = read_pairs(names, jnp.float64)
  map_of = _map_of(pair[1], "0.7")
  difference_map, vjp = jax.vjp(map_of, pair[0])
  y, x, c = np.ogrid[: pair[0].shape[1], : pair[0].shape[2], :3]
  wave = np.sin(1 + 0.37 * y + 0.73 * x + 1.1 * c)
  metrics: dict[str, Norm] = {"butteraugli_pnorm3": "3-norm", "butteraugli_max": "max"}
  for metric, norm in metrics.items():
    column = GRADS["metrics"].tolist().index(metric)
    _, slope = _pool_gradient(difference_map, norm)
    for name, gradient in zip(names, np.asarray(vjp(slope)[0]), strict=True):
      want, spread = (GRADS[f"{name}/{key}"][:, column] for key in ("grad", "fd_spread"))
      tolerance = GRADIENT * np.abs(want).max() + 10 * spread
      got = gradient[tuple(GRADS[f"{name}/yxc"].T.astype(int))]
      assert (np.abs(got - want) <= tolerance).all(), name
      want, check = (GRADS[f"{name}/{key}"][column] for key in ("directional", "directional_check"))
      tolerance = GRADIENT * abs(want) + 10 * abs(want - check)
      assert abs((gradient * wave).sum() - want) <= tolerance, name


def _map_of(reference: jax.Array, version: Any) -> Callable[[jax.Array], jax.Array]:
  return jax.jit(lambda distorted: butteraugli_map(distorted, reference, version=version))


@pytest.mark.usefixtures("x64")
def test_stages():
  """Every plane on the way, of one pair and version."""
  constants = module._VERSIONS["0.7"]

  @jax.jit
  def run(distorted: jax.Array, reference: jax.Array) -> dict[str, Any]:
    d, r = module._to_nits(distorted), module._to_nits(reference)
    planes: dict[str, Any] = {}
    for name, nits in (("dist", d), ("ref", r)):
      bands = module._split(nits)
      x, y, b = bands.lf
      scaled = zip(constants.lf_scales, (x, y, b - 0.362267051518 * y), strict=True)
      bands = bands._replace(lf=[scale * plane for scale, plane in scaled])
      planes |= {f"{name}/{band}": jnp.stack(getattr(bands, band)) for band in bands._fields}
      planes[f"{name}/opsin_XYB"] = jnp.stack(module._opsin(nits))
      planes[f"{name}/m"] = module._mask(bands)
    planes["ref/e"] = module._erode(planes["ref/m"])
    planes["diffmap_full"] = module._difference(d, r, constants)
    planes["diffmap_half"] = module._difference(halve(d), halve(r), constants)
    planes["diffmap"] = butteraugli_map(distorted, reference, version="0.7")
    return planes

  for name, plane in run(*read_pairs(["tiny_33x18_noise8"], jnp.float64)).items():
    want = STAGES[f"butteraugli/{name}"]
    error = np.abs(np.asarray(plane).reshape(want.shape) - want).max() / np.abs(want).max()
    assert error < STORED, name


# --- derivatives ----------------------------------------------------------------------------


@jax.jit
def _vjp(
  distorted: jax.Array, reference: jax.Array, slope: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  """The map, and its gradient by both images."""
  difference_map, vjp = jax.vjp(butteraugli_map, distorted, reference)
  return difference_map, vjp(slope)


def test_hard_pairs_give_finite_values_and_gradients(
  draw_images: Callable[..., jax.Array], flat_images: Callable[[int], jax.Array]
):
  black, grey, white = flat_images(16)
  photo = draw_images(1, 16, 16)[0]
  saturated = jnp.round(photo)  # black and white pixels only
  unequal = [
    *((black, white), (white, black), (photo, grey), (grey, photo), (grey + 1 / 255, grey)),
    *((photo, saturated), (saturated, photo), (saturated, 1 - saturated)),
    *((photo + 0.3, photo), (black, photo), (saturated, white)),
  ]
  equal = [(image, image) for image in (black, grey, white, photo, saturated)]
  pairs = unequal + equal
  distorted, reference = (jnp.stack(images) for images in zip(*pairs, strict=True))
  difference_map, _ = _vjp(distorted, reference, jnp.ones((len(pairs), 16, 16)))
  for norm in NORMS:
    scores, slope = _pool_gradient(difference_map, norm)
    _, gradients = _vjp(distorted, reference, slope)
    assert jnp.isfinite(scores).all()
    assert (scores[: len(unequal)] > 0.5).all()
    np.testing.assert_array_equal(scores[len(unequal) :], 0)
    for gradient in gradients:
      assert jnp.isfinite(gradient).all()
      np.testing.assert_array_equal(gradient[len(unequal) :], 0)


@pytest.mark.usefixtures("x64")
def test_forward_mode_is_reverse_mode(draw_images: Callable[..., jax.Array]):
  pair = [np.asarray(draw_images(1, 9, 15, seed=seed), np.float64) for seed in (1, 2)]
  tangents = [np.asarray(draw_images(1, 9, 15, seed=seed), np.float64) for seed in (3, 4)]

  @jax.jit
  def run(pair: list[jax.Array], tangents: list[jax.Array]) -> tuple[jax.Array, list[jax.Array]]:
    return jax.jvp(butteraugli, pair, tangents)[1], jax.grad(lambda pair: butteraugli(*pair).sum())(
      pair
    )

  forward, gradients = run(pair, tangents)
  reverse = sum(np.vdot(g, t) for g, t in zip(gradients, tangents, strict=True))
  np.testing.assert_allclose(forward[0], reverse, rtol=F64)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("lines", [SPARSE, DENSE], ids=["sparse", "dense"])
def test_malta(lines: Lines):
  """Against sums written as they stand, and derivatives of every mode and two orders."""
  q = np.random.default_rng(0).normal(size=(2, 7, 11))
  want = np.zeros_like(q)
  for half in lines:
    along = q.copy()
    for dx, dy in (*half, *((-dx, -dy) for dx, dy in half)):
      shifted = np.roll(np.pad(q, ((0, 0), (4, 4), (4, 4))), (-dy, -dx), axis=(1, 2))
      along += shifted[:, 4:-4, 4:-4]
    want += along**2
  assert len(lines) == 16
  np.testing.assert_allclose(malta(jnp.asarray(q), lines), want, rtol=F64)
  mapped = jax.vmap(lambda plane: malta(plane, lines), in_axes=1, out_axes=1)
  np.testing.assert_allclose(mapped(jnp.asarray(q[None])), want[None], rtol=F64)
  check_grads(lambda q: jnp.sin(0.01 * malta(q, lines)), (jnp.asarray(q[0, :5, :6]),), order=2)


# --- one by one -----------------------------------------------------------------------------

# Compiled once, for two images of 8x11.
_map = jax.jit(butteraugli_map)


def test_batch_is_one_by_one_and_jit_is_eager(draw_images: Callable[..., jax.Array]):
  distorted, reference = (draw_images(2, 8, 11, seed=seed) for seed in (1, 2))
  together = _map(distorted, reference)
  assert together.shape == (2, 8, 11)
  assert together.dtype == jnp.float32
  for i, one in enumerate(together):
    apart = butteraugli_map(distorted[i : i + 1], reference[i : i + 1])[0]
    np.testing.assert_allclose(one, apart, rtol=COMPILED)
  mapped = jax.jit(jax.vmap(lambda d, r: butteraugli(d[None], r[None])[0]))
  np.testing.assert_allclose(pool(together), mapped(distorted, reference), rtol=COMPILED)


def test_overshoot_counts_as_the_limit(draw_images: Callable[..., jax.Array]):
  images = jnp.round(draw_images(2, 8, 11))
  beyond = jnp.where(images > 0.5, 1.4, -0.4)
  np.testing.assert_array_equal(_map(beyond, images), 0)


def test_nan_is_not_hidden(draw_images: Callable[..., jax.Array]):
  images = draw_images(2, 8, 11)
  difference_map = _map(images.at[0, 3, 3, 1].set(jnp.nan), images)
  for norm in NORMS:
    np.testing.assert_array_equal(jnp.isnan(pool(difference_map, norm=norm)), [True, False])


# --- norms ----------------------------------------------------------------------------------


def test_norms_closed_form():
  difference_map = jnp.asarray([[[1.0, 2.0]], [[0.0, 3.0]]])
  np.testing.assert_allclose(pool(difference_map, norm="max"), [2, 3])
  np.testing.assert_allclose(pool(difference_map, norm=1), [1.5, 1.5], rtol=COMPILED)
  np.testing.assert_allclose(pool(difference_map, norm=2.0), [2.5**0.5, 4.5**0.5], rtol=COMPILED)
  norms = [[((1 + 2**q) / 2) ** (1 / q), 3 / 2 ** (1 / q)] for q in (3, 6, 12)]
  np.testing.assert_allclose(pool(difference_map), np.mean(norms, axis=0), rtol=COMPILED)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_norms_of_any_magnitude(scale: float):
  """Twelfth powers would be 0 or infinite."""
  difference_map = jnp.linspace(0, 1, 12).reshape(1, 3, 4)
  for norm in (*NORMS, 2.5):
    value, gradient = _pool_gradient(scale * difference_map, norm)
    want, want_gradient = _pool_gradient(difference_map, norm)
    np.testing.assert_allclose(value, scale * want, rtol=COMPILED)
    np.testing.assert_allclose(gradient, want_gradient, rtol=COMPILED, atol=COMPILED)


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(7, 20), (20, 7)])
def test_smallest_size(size: tuple[int, int]):
  images = jnp.zeros((1, *size, 3))
  with pytest.raises(ValueError, match=f"at least 8 pixels, got {size[0]}x{size[1]}"):
    butteraugli(images, images)


@pytest.mark.parametrize("channels", [1, 4])
def test_channels_are_named(channels: int):
  images = jnp.zeros((1, 16, 16, channels))
  with pytest.raises(ValueError, match=f"butteraugli: expected 3 channels, got {channels}"):
    butteraugli(images, images)


def test_bad_pairs_and_options_are_named():
  images = jnp.zeros((1, 16, 16, 3))
  with pytest.raises(ValueError, match="expected two images of one shape"):
    butteraugli(images, images[:, :15])
  with pytest.raises(TypeError, match="divide 8-bit images by 255"):
    butteraugli(images.astype(jnp.uint8), images)
  with pytest.raises(ValueError, match=r"values in \[0, 1\], got distorted"):
    butteraugli(images.at[0, 0, 0, 0].set(255), images)
  with pytest.raises(ValueError, match=r"expected version 0\.7 or 0\.8, got 0\.9"):
    butteraugli(images, images, version="0.9")  # pyright: ignore[reportArgumentType]
  for norm in ("2-norm", 0.5, float("nan")):
    with pytest.raises(ValueError, match=f"expected norm .* a number from 1 on, got {norm}"):
      butteraugli(images, images, norm=norm)  # pyright: ignore[reportArgumentType]

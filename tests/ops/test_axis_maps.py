"""Maps along an axis: SciPy's filters, every kind of derivative, and any axis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import ndimage

from hvsjnd_jax.ops.axis_maps import AxisMap, Border, filter_matrix

TAPS = np.asarray([0.1, 0.3, 0.4, 0.15, 0.05])  # not symmetric: a flipped filter would differ
# SciPy's words for our borders.
MODES = {"zero": "constant", "symmetric": "reflect", "reflect": "mirror"}
F64 = 1e-14  # sums of five products


@pytest.mark.parametrize("size", [3, 63, 64, 65, 150])
@pytest.mark.parametrize("border", MODES)
def test_filter_is_scipys(x64: None, border: Border, size: int):
  values = np.random.default_rng(0).random((2, size))
  blur = AxisMap(filter_matrix(TAPS, size, border=border))
  want = ndimage.correlate1d(values, TAPS, axis=1, mode=MODES[border])
  np.testing.assert_allclose(blur(jnp.asarray(values), axis=1), want, rtol=0, atol=F64)


def test_renormalised_taps_keep_a_constant(x64: None):
  blur = AxisMap(filter_matrix(TAPS, 9, border="renormalize"))
  np.testing.assert_allclose(blur(jnp.ones(9), axis=0), 1, rtol=0, atol=F64)


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2])
def test_any_axis_and_shape(x64: None, axis: int):
  shape = [2, 3, 4, 5]
  shape[axis] = size = 70
  values = np.random.default_rng(1).random(shape)
  matrix = np.random.default_rng(2).random((size + 5, size))
  got = jax.jit(lambda x: AxisMap(matrix)(x, axis=axis))(values)
  want = np.moveaxis(np.moveaxis(values, axis, -1) @ matrix.T, -1, axis)
  np.testing.assert_allclose(got, want, rtol=1e-12)


def test_derivatives_of_every_kind(x64: None):
  rows = AxisMap(filter_matrix(TAPS, 6, border="symmetric"))
  columns = AxisMap(np.random.default_rng(3).random((4, 7)))

  def function(values: jax.Array) -> jax.Array:
    return jnp.sin(columns(rows(values, axis=0), axis=1))

  values = jnp.asarray(np.random.default_rng(4).random((6, 7)))
  check_grads(function, (values,), order=2, modes=["fwd", "rev"])
  assert jax.hessian(lambda x: function(x).sum())(values).shape == (6, 7, 6, 7)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_vmap_is_one_by_one(x64: None, axis: int):
  rows = AxisMap(filter_matrix(TAPS, 6, border="reflect"))
  values = jnp.asarray(np.random.default_rng(5).random((6, 6, 6)))
  got = jax.vmap(lambda x: rows(x, axis=0), in_axes=axis)(values)
  for one, alone in zip(got, jnp.moveaxis(values, axis, 0), strict=True):
    np.testing.assert_allclose(one, rows(alone, axis=0), rtol=0, atol=F64)


def test_only_the_tiles_are_kept():
  blur = AxisMap(filter_matrix(TAPS, 1000, border="zero"))
  for half in (blur, blur.transposed):
    assert sum(block.size for _, block in half.tiles) <= 1000 * (64 + len(TAPS))
    assert all(block.base is None for _, block in half.tiles)
  assert blur.transposed.transposed is blur
  np.testing.assert_array_equal(blur.transposed.to_matrix(), blur.to_matrix().T)

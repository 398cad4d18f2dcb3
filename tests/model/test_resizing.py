"""Bilinear resizing, against JAX's own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvsjnd_jax.model.resizing import resize, upsample_2x

# A few float32 roundings.
F32 = 1e-6


def test_upsampling_is_bilinear():
  x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
  want = jax.image.resize(x, (2, 6, 10, 4), "bilinear")
  np.testing.assert_allclose(upsample_2x(x), want, rtol=F32, atol=F32)


@pytest.mark.parametrize(
  "size",
  [(6, 7), (12, 14), (88, 20), (3, 2), (5, 40), (1, 1)],
  ids=lambda size: f"{size[0]}x{size[1]}",
)
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_resize_is_bilinear_without_antialiasing(size: tuple[int, int], dtype: Any):
  x = jnp.asarray(np.random.default_rng(0).random((2, 6, 7, 3)), dtype)
  want = jax.image.resize(x.astype(np.float32), (2, *size, 3), "bilinear", antialias=False)
  rounding = 4 * float(jnp.finfo(dtype).eps)
  for got in (resize(x, size), jax.jit(resize, static_argnums=1)(x, size)):
    assert got.dtype == x.dtype
    np.testing.assert_allclose(got.astype(np.float32), want, rtol=0, atol=rounding)
  on_host = resize(np.asarray(x, np.float32), size)
  assert on_host.dtype == np.float32
  np.testing.assert_allclose(on_host, want, rtol=0, atol=F32)


def test_resize_stays_on_the_host():
  assert isinstance(resize(np.zeros((4, 4, 1), np.float32), (8, 8)), np.ndarray)


@pytest.mark.usefixtures("x64")
def test_resize_interpolates_positions_exactly():
  """A ramp stays a ramp, at large sizes too, where float32 positions would not be exact."""
  ramp = jnp.arange(5000.0)[None, :, None, None]
  got = np.asarray(resize(ramp, (13333, 1)))[0, :, 0, 0]
  want = ((np.arange(13333) + 0.5) * 5000 / 13333 - 0.5).clip(0, 4999)
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-9)

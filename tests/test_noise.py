"""Random signs, and noise of a map's amplitude."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hvsjnd_jax
from hvsjnd_jax.metrics import psnr
from hvsjnd_jax.noise import draw_signs, inject_at_psnr, random_signs

DrawImages = Callable[..., jax.Array]


def test_random_signs():
  key = jax.random.key(7)
  signs = hvsjnd_jax.random_signs(key, (2, 64, 64))
  assert signs.shape == (2, 64, 64)
  assert signs.dtype == jnp.float32
  assert (jnp.abs(signs) == 1).all()
  # The mean of 8192 signs: 4 standard errors.
  assert abs(signs.mean()) < 4 / 8192**0.5
  np.testing.assert_array_equal(signs, hvsjnd_jax.random_signs(key, (2, 64, 64)))
  assert (signs != hvsjnd_jax.random_signs(jax.random.key(8), (2, 64, 64))).any()
  assert (signs[0] != signs[1]).any()
  # The rule that the published code's maps follow.
  noise = jax.random.uniform(key, (2, 64, 64))
  np.testing.assert_array_equal(signs, np.where(noise >= 0.5, 1, -1))


def test_inject_closed_form():
  images = jnp.asarray([[[[0.5, 0.1, 0.9], [0.5, 0.1, 0.9]]]])
  jnd = jnp.full((1, 1, 2, 3), 0.125)
  signs = jnp.asarray([[1.0, -1.0]])
  # One sign for the three channels, and the sum clipped to [0, 1].
  want = [[[[0.75, 0.35, 1.0], [0.25, 0.0, 0.65]]]]
  got = hvsjnd_jax.inject(images, jnd, signs, lmbda=2)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  np.testing.assert_array_equal(hvsjnd_jax.inject(images, jnd, signs, lmbda=0), images)


def test_inject_shares_one_sign_map_or_takes_one_for_each_image(draw_images: DrawImages):
  images = draw_images(2, 8, 9)
  signs = hvsjnd_jax.random_signs(jax.random.key(0), (8, 9))
  jnd = jnp.full_like(images, 0.1)
  shared = hvsjnd_jax.inject(images, jnd, signs)
  each = hvsjnd_jax.inject(images, jnd, jnp.stack([signs, signs]))
  np.testing.assert_array_equal(shared, each)
  other = hvsjnd_jax.inject(images, jnd, jnp.stack([signs, -signs]))
  np.testing.assert_array_equal(other[0], shared[0])
  assert (other[1] != shared[1]).any()


def test_inject_takes_signs_of_each_channel_s_own(draw_images: DrawImages):
  images = draw_images(2, 8, 9)
  signs = hvsjnd_jax.random_signs(jax.random.key(0), (2, 8, 9, 3))
  jnd = jnp.full_like(images, 0.1)
  own = hvsjnd_jax.inject(images, jnd, signs)
  for c in range(3):
    shared = hvsjnd_jax.inject(images, jnd, signs[..., c])
    np.testing.assert_array_equal(own[..., c], shared[..., c])
  np.testing.assert_array_equal(hvsjnd_jax.inject(images, jnd, signs[0])[0], own[0])


@pytest.mark.parametrize(
  ("image", "jnd", "signs", "message"),
  [
    ((1, 8, 8, 3), (1, 8, 9, 3), (8, 8), r"inject: expected jnd .*\(1, 8, 8, 3\), got \(1, 8, 9"),
    ((8, 8, 3), (8, 8, 3), (8, 8), r"\[B, H, W, 3\], got shape \(8, 8, 3\)"),
    ((1, 8, 9, 3), (1, 8, 9, 3), (9, 8), r"expected signs \(8, 9\).*got \(9, 8\)"),
    ((2, 8, 9, 3), (2, 8, 9, 3), (1, 8, 9), r"or \(2, 8, 9\), or .* of 3, got \(1, 8, 9\)"),
    ((2, 8, 9, 3), (2, 8, 9, 3), (8, 9, 1), r"a last axis of 3, got \(8, 9, 1\)"),
  ],
  ids=["jnd", "rank", "signs", "batch", "channels"],
)
def test_inject_names_bad_shapes(
  image: tuple[int, ...], jnd: tuple[int, ...], signs: tuple[int, ...], message: str
):
  with pytest.raises(ValueError, match=message):
    hvsjnd_jax.inject(jnp.zeros(image), jnp.zeros(jnd), jnp.zeros(signs))


def test_inject_names_bad_types():
  with pytest.raises(
    TypeError, match=r"inject: expected float images .*got images of uint8; divide"
  ):
    hvsjnd_jax.inject(
      jnp.zeros((1, 8, 8, 3), jnp.uint8), jnp.zeros((1, 8, 8, 3)), jnp.zeros((8, 8))
    )


def test_drawn_signs_follow_from_seed_and_content():
  pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
  signs = draw_signs(pixels, seed=1)
  assert (signs.shape, signs.dtype) == ((4, 6), np.float32)
  np.testing.assert_array_equal(signs, draw_signs(pixels.copy(), seed=1))
  assert (signs != draw_signs(pixels, seed=2)).any()
  assert (signs != draw_signs(pixels + 1, seed=1)).any()


def test_protocol_of_another_name_is_refused():
  with pytest.raises(ValueError, match="expected protocol shared or own, got channels"):
    draw_signs(np.zeros((8, 8, 3), np.uint8), seed=0, protocol="channels")  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("x64")
def test_signs_are_float32_whatever_jax_is_told():
  assert random_signs(jax.random.key(0), (2, 2)).dtype == jnp.float32


def test_drawn_signs_of_each_channel_s_own():
  pixels = np.zeros((64, 64, 3), np.uint8)
  signs = draw_signs(pixels, seed=1, protocol="own")
  assert (signs.shape, signs.dtype) == ((64, 64, 3), np.float32)
  np.testing.assert_array_equal(np.unique(signs), [-1, 1])
  # No two channels go together: the mean of 4096 products, 4 standard errors.
  for a, b in ((0, 1), (0, 2), (1, 2)):
    assert abs((signs[..., a] * signs[..., b]).mean()) < 4 / 64


def test_shared_signs_are_those_of_the_published_figures():
  pixels = np.arange(2 * 12 * 3, dtype=np.uint8).reshape(2, 12, 3)
  signs = draw_signs(pixels, seed=0)
  assert "".join("+" if sign > 0 else "-" for sign in signs.ravel()) == "+--++-----+-++-+++-----+"


def test_noise_has_its_psnr_in_each_channel(draw_images: DrawImages):
  images = 0.3 + 0.4 * draw_images(2, 32, 40)  # nothing is clipped
  maps = 0.01 + draw_images(2, 32, 40, seed=1) * jnp.asarray([1.0, 5.0, 0.1])
  signs = jnp.where(jax.random.bernoulli(jax.random.key(0), shape=images.shape), 1.0, -1.0)
  noisy = inject_at_psnr(images, maps, signs, psnr_db=jnp.asarray([30.0, 36.0]))
  for channel in range(3):
    got = psnr(noisy[..., channel : channel + 1], images[..., channel : channel + 1])
    np.testing.assert_allclose(got, [30, 36], atol=1e-3)
  again = inject_at_psnr(images, 7 * maps, signs, psnr_db=jnp.asarray([30.0, 36.0]))
  np.testing.assert_allclose(again, noisy, atol=1e-6)

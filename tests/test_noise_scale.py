"""Noise of a given PSNR: the scale that is found, and what is said where there is none."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from hvsjnd_jax.noise import draw_signs
from hvsjnd_jax.noise_scale import UnreachableError, find_scale, scale_to_psnr
from tests.support.comparisons import SIZE, add, jnd, pixels

__all__ = ["jnd", "pixels"]  # fixtures


def psnr(noisy: np.ndarray, pixels: np.ndarray) -> float:
  return 10 * np.log10(255**2 / np.mean((noisy.astype(float) - pixels.astype(float)) ** 2))


@pytest.mark.parametrize("db", [20, 32.57, 45])
def test_every_channel_has_the_psnr(pixels: np.ndarray, jnd: np.ndarray, db: float):
  noisy, _ = add(pixels, jnd * (1, 2, 5), db)
  for c in range(3):
    assert psnr(noisy[..., c], pixels[..., c]) == pytest.approx(db, abs=0.005)


def test_noise_is_the_scaled_map(pixels: np.ndarray, jnd: np.ndarray):
  noisy, scale = add(pixels, jnd, 30)
  signs = draw_signs(pixels, seed=0)[..., None]
  wanted = np.clip(pixels + 255 * signs * jnd * scale, 0, 255)
  assert np.abs(noisy - wanted).max() <= 0.502
  assert np.unique(signs).tolist() == [-1, 1]


def test_each_channel_may_have_signs_of_its_own(pixels: np.ndarray, jnd: np.ndarray):
  noisy, scale = add(pixels, jnd, 30, protocol="own")
  signs = draw_signs(pixels, seed=0, protocol="own")
  wanted = np.clip(pixels + 255 * signs * jnd * scale, 0, 255)
  assert np.abs(noisy - wanted).max() <= 0.502
  for c in range(3):
    assert psnr(noisy[..., c], pixels[..., c]) == pytest.approx(30, abs=0.005)
  with pytest.raises(ValueError, match=r"expected signs \(48, 64\) or \(48, 64, 3\), got \(48,\)"):
    scale_to_psnr(pixels, jnd, signs[:, 0, 0], psnr_db=30, by_channel=True)


def test_three_channels_together_have_the_psnr(pixels: np.ndarray, jnd: np.ndarray):
  noisy, scale = add(pixels, jnd * (1, 2, 3), 32.57, by_channel=False)
  assert psnr(noisy, pixels) == pytest.approx(32.57, abs=0.005)
  assert len(set(scale)) == 1
  red, green, blue = (psnr(noisy[..., c], pixels[..., c]) for c in range(3))
  assert red > green + 4 > blue + 6, "the map's split stays: 6.0 and 3.5 dB apart"


def test_flat_map_changes_all_pixels_alike():
  gray = np.full((*SIZE, 3), 128, np.uint8)
  flat = 0.25 * np.ones(gray.shape) * (1, 2, 3)
  noisy, scale = add(gray, flat, 20 * np.log10(255 / 6))
  assert (np.abs(noisy.astype(int) - gray) == 6).all()
  for c in range(3):
    assert 5.5 <= 255 * scale[c] * flat[0, 0, c] <= 6.5


def test_flat_map_reaches_what_no_single_level_does():
  gray = np.full((*SIZE, 3), 128, np.uint8)
  noisy, _ = add(gray, np.ones(gray.shape), 31.9)
  assert set(np.unique(np.abs(noisy.astype(int) - gray))) == {6, 7}
  assert psnr(noisy[..., 2], gray[..., 2]) == pytest.approx(31.9, abs=0.005)


def test_scale_in_closed_form():
  """Without clipping, the error is that of the scaled map, and 1/12 of the rounding."""
  gray = np.full((200, 300, 3), 128, np.uint8)
  jnd = np.random.default_rng(3).uniform(0, 0.02, gray.shape)
  _, scale = add(gray, jnd, 30)
  wanted = np.sqrt((255**2 / 10**3 - 1 / 12) / np.square(255 * jnd).mean(axis=(0, 1)))
  np.testing.assert_allclose(scale, wanted, rtol=2e-3)


def test_scale_of_any_measure(jnd: np.ndarray):
  """An error that is not the square of the scale, and stands still in places."""

  def measure(scale: float) -> float:
    return min(max(scale, 2) ** 5 * 1e-9 * (1 if scale < 7 else 2), 0.1)

  for db in (50, 30, 10):
    scale = find_scale(measure, jnd, psnr_db=db, largest=1e6)
    assert -10 * np.log10(measure(scale)) == pytest.approx(db, abs=0.005)
  with pytest.raises(
    UnreachableError, match=r"^46 dB .* at x: .* PSNR jumps past it, to 4[47][.]7"
  ):
    find_scale(measure, jnd, psnr_db=46, largest=1e6, where=" at x")
  with pytest.raises(UnreachableError, match=r"^9 dB cannot .*: at most noise it is 10.00 dB"):
    find_scale(measure, jnd, psnr_db=9, largest=1e6)


@pytest.mark.parametrize("convert", [jnp.asarray, lambda jnd: jnd[..., 0], lambda jnd: jnd[:-1]])
def test_map_must_fit_the_image(
  pixels: np.ndarray, jnd: np.ndarray, convert: Callable[[np.ndarray], Any]
):
  with pytest.raises(ValueError, match=r"expected a map that is a NumPy array \(.*\), got "):
    add(pixels, convert(jnd), 30)


def test_what_cannot_be_reached_is_said(pixels: np.ndarray, jnd: np.ndarray):
  with pytest.raises(UnreachableError, match=r"^30 dB .* in G: the map is zero throughout$"):
    add(pixels, jnd * (1, 0, 1), 30)
  with pytest.raises(UnreachableError, match=r"^30 dB cannot be reached: the map is zero"):
    add(pixels, 0 * jnd, 30, by_channel=False)
  corner = np.zeros_like(jnd)
  corner[:2, :2] = 0.1
  with pytest.raises(
    UnreachableError, match=r"in R: at most noise it is \d+\.\d\d dB, .* zero at 99.9 % of"
  ):
    add(pixels, corner, 20)
  with pytest.raises(UnreachableError, match=r"^3 dB .* at most noise .* zero at 0.0 %"):
    add(pixels, jnd, 3)
  with pytest.raises(UnreachableError, match=r"^40 dB .* in R: .* jumps past it, to \d+.\d\d dB"):
    add(pixels[:2, :2], jnd[:2, :2], 40)
  with pytest.raises(UnreachableError, match="the map holds values that are negative"):
    add(pixels, np.where(jnd > 0.01, np.nan, jnd), 30)

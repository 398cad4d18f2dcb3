"""What luminance and contrast hide, against NumPy."""

from collections.abc import Callable

import jax
import numpy as np
import pytest

from hvsjnd_jax import masking

DrawImages = Callable[..., jax.Array]

# Float32 through a root of differences of squares.
CLOSE = 1e-4


def gather(images: np.ndarray, side_px: int) -> np.ndarray:
  """What lies in the window around each pixel, [B, H, W, C, n]; NaN past the edge."""
  margin = side_px // 2
  padded = np.pad(
    images.astype(np.float64),
    ((0, 0), (margin, margin), (margin, margin), (0, 0)),
    constant_values=np.nan,
  )
  view = np.lib.stride_tricks.sliding_window_view(padded, (side_px, side_px), axis=(1, 2))
  return view.reshape(*view.shape[:4], -1)


def test_threshold(draw_images: DrawImages):
  images = np.asarray(draw_images(2, 9, 13))
  luma = gather(images @ np.asarray(masking.LUMA)[:, None], 3)
  mean, variance = np.nanmean(luma, axis=-1), np.nanvar(luma, axis=-1)
  want = (variance + (2 / 255) ** 2) ** 0.35 * (2 * (mean + 3 / 255)) ** -0.25
  np.testing.assert_allclose(masking.threshold(images), want, rtol=CLOSE)


def test_shading(draw_images: DrawImages):
  images = np.asarray(draw_images(2, 9, 13))
  luma = gather(images @ np.asarray(masking.LUMA)[:, None], 5)
  deviation = images - np.nanmean(gather(images, 5), axis=-1)
  z = deviation / np.sqrt(np.nanvar(luma, axis=-1) + (1 / 255) ** 2)
  np.testing.assert_allclose(masking.shading(images), np.exp(-1.8 * np.tanh(z / 2)), rtol=CLOSE)


def test_shading_sees_nothing_past_the_extent(draw_images: DrawImages):
  images = draw_images(2, 12, 16)
  extent = np.asarray([[9, 13], [12, 8]])
  got = masking.shading(images, extent=extent)
  for i, (height, width) in enumerate(extent):
    own = (slice(i, i + 1), slice(height), slice(width))
    np.testing.assert_allclose(got[own], masking.shading(images[own]), rtol=CLOSE)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_images_hide_alike_everywhere(value: float):
  images = np.full((1, 8, 8, 3), value, np.float32)
  np.testing.assert_allclose(masking.shading(images), 1, rtol=1e-2)
  thresholds = np.asarray(masking.threshold(images))
  np.testing.assert_allclose(thresholds, thresholds[0, 0, 0, 0], rtol=1e-2)


def test_detail_hides_more_and_its_dark_side_most():
  board = np.where(np.indices((8, 8)).sum(axis=0) % 2 == 0, 1.0, -1.0)[None, ..., None]
  weak, strong = (0.5 + contrast * board * np.ones(3, np.float32) for contrast in (0.05, 0.3))
  assert (masking.threshold(strong) > 2 * masking.threshold(weak)).all()
  factors = np.asarray(masking.shading(strong))
  dark = np.broadcast_to(board < 0, factors.shape)
  assert factors[dark].min() > 2 * factors[~dark].max()

"""What luminance and contrast hide, against NumPy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvsjnd_jax.model import masking

DrawImages = Callable[..., jax.Array]

# Float32 through a root of differences of squares.
CLOSE = 1e-4


def gather(images: np.ndarray) -> np.ndarray:
  """What lies in the 5x5 pixels around each one, [B, H, W, C, n]; NaN past the edge."""
  padded = np.pad(
    images.astype(np.float64), ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=np.nan
  )
  view = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2))
  return view.reshape(*view.shape[:4], -1)


def test_threshold(draw_images: DrawImages):
  images = np.asarray(draw_images(2, 9, 13))
  luma = gather(images @ np.asarray(masking.LUMA)[:, None])
  mean, variance = np.nanmean(luma, axis=-1), np.nanvar(luma, axis=-1)
  own_mean = np.nanmean(gather(images), axis=-1)
  z = (images - own_mean) / np.sqrt(variance + (1.4 / 255) ** 2)
  contrast = 4 / 255 * (1 + variance / (4 / 255) ** 2) ** 0.47
  light = ((mean + 3.3 / 255) / (0.5 + 3.3 / 255)) ** -0.34
  color = ((own_mean + 6 / 255) / (mean + 6 / 255)) ** -0.56
  want = contrast * light * color * np.exp(-2.75 * np.tanh(z / 2))
  np.testing.assert_allclose(masking.threshold(jnp.asarray(images)), want, rtol=CLOSE)


def test_threshold_sees_nothing_past_the_extent(draw_images: DrawImages):
  images = draw_images(2, 12, 16)
  extent = jnp.asarray([[9, 13], [12, 8]])
  got = jnp.exp(masking.log_threshold(images, extent))
  for i, (height, width) in enumerate(extent.tolist()):
    own = (slice(i, i + 1), slice(height), slice(width))
    np.testing.assert_allclose(got[own], masking.threshold(images[own]), rtol=CLOSE)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_images_mask_alike_everywhere(value: float):
  thresholds = masking.threshold(jnp.full((1, 8, 8, 3), value))
  want = 4 / 255 * ((value + 3.3 / 255) / (0.5 + 3.3 / 255)) ** -0.34
  np.testing.assert_allclose(thresholds, want, rtol=CLOSE)


def test_a_channel_bears_more_the_less_of_it_there_is():
  reddish = jnp.broadcast_to(jnp.asarray([0.8, 0.4, 0.2], jnp.float32), (1, 8, 8, 3))
  red, green, blue = masking.threshold(reddish)[0, 4, 4].tolist()
  assert red < green < blue


def test_contrast_masks_and_on_its_dark_side_most():
  board = np.where(np.indices((8, 8)).sum(axis=0) % 2 == 0, 1.0, -1.0)[None, ..., None]
  weak, strong = (
    np.asarray(masking.threshold(jnp.asarray(0.5 + contrast * board * np.ones(3), jnp.float32)))
    for contrast in (0.05, 0.3)
  )
  assert (strong > 2 * weak).all()
  dark = np.broadcast_to(board < 0, strong.shape)
  assert strong[dark].min() > 2 * strong[~dark].max()

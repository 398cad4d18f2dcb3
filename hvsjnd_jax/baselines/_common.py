"""What several classical models are made of. Luma and maps are in gray levels, 0..255."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from hvsjnd_jax.baselines.canny import canny, dilate, disk
from hvsjnd_jax.ops import filters
from hvsjnd_jax.ops.checks import check_images
from hvsjnd_jax.ops.color import LUMA, mix_channels
from hvsjnd_jax.ops.filters import Border, Kernel
from hvsjnd_jax.ops.types import Planes, RGBImages, RGBImagesLike

SMALLEST_PX = 8  # the estimator's own

EDGE_SIGMA_PX = 0.8  # of the Gaussian over an edge map, in all models

_OVERLAP = 0.3  # C of NAMM

_BACKGROUND: Kernel = (
  (1, 1, 1, 1, 1),
  (1, 2, 2, 2, 1),
  (1, 2, 0, 2, 1),
  (1, 2, 2, 2, 1),
  (1, 1, 1, 1, 1),
)

_DOWN: Kernel = ((0,) * 5, (1, 3, 8, 3, 1), (0,) * 5, (-1, -3, -8, -3, -1), (0,) * 5)

_RIGHT: Kernel = tuple(zip(*_DOWN, strict=True))

_DOWN_RIGHT: Kernel = (
  (0, 0, 1, 0, 0),
  (0, 8, 3, 0, 0),
  (1, 3, 0, -3, -1),
  (0, 0, -3, -8, 0),
  (0, 0, -1, 0, 0),
)

_DOWN_LEFT: Kernel = (
  (0, 0, 1, 0, 0),
  (0, 0, 3, 8, 0),
  (-1, -3, 0, 3, 1),
  (0, -8, -3, 0, 0),
  (0, 0, -1, 0, 0),
)


def run(name: str, model: Callable[[Planes], Planes], images: RGBImagesLike) -> RGBImages:
  """Checks the images and runs a model of luma, in gray levels."""
  check_images(name, images, smallest_px=SMALLEST_PX)
  return _estimate(model, jnp.asarray(images))


@functools.partial(jax.jit, static_argnums=0)
def _estimate(model: Callable[[Planes], Planes], images: RGBImages) -> RGBImages:
  levels = model(255 * mix_channels(images.clip(0, 1), LUMA))
  return jnp.broadcast_to((levels / 255).clip(0, 1)[..., None], images.shape)


def add_nonlinearly(adaptation: Planes, masking: Planes) -> Planes:
  """Adds two thresholds, less what they overlap (NAMM)."""
  return adaptation + masking - _OVERLAP * jnp.minimum(adaptation, masking)


def background_luminance(luma: Planes, *, border: Border = "symmetric") -> Planes:
  """Averages the 5x5 pixels around each one, the inner ring twice, the pixel itself not."""
  return filters.correlate(luma, _BACKGROUND, border=border) / 32


def luminance_adaptation(background: Planes) -> Planes:
  """Returns the threshold on a flat background, LA."""
  dark = 17 * (1 - jnp.sqrt(background / 127)) + 3
  return jnp.where(background <= 127, dark, 3 * (background - 127) / 128 + 3)


def lift_dark(background: Planes) -> Planes:
  """Raises backgrounds of 0..127 to 32..127, in whole levels: a display's black is not dark."""
  return jnp.where(background <= 127, jnp.round(32 + background * (95 / 127)), background)


def directional_gradient(luma: Planes) -> Planes:
  """Returns the greatest magnitude of four directional gradients over 5x5 pixels, G."""
  kernels = (_DOWN, _DOWN_RIGHT, _DOWN_LEFT, _RIGHT)
  slopes = (jnp.abs(filters.correlate(luma, kernel)) / 16 for kernel in kernels)
  return functools.reduce(jnp.maximum, slopes)


def gradient_masking(background: Planes, gradient: Planes) -> Planes:
  """Returns Chou and Li's threshold beside a gradient, the stronger the darker."""
  return gradient * (0.0001 * background + 0.115) + 0.5 - 0.01 * background


def edge_guard(luma: Planes) -> Planes:
  """Returns 1, falling to 0 near edges, where a change is seen at once."""
  # min(60 / max G, 0.8), without the division by 0.
  high = 60 / jnp.maximum(directional_gradient(luma).max(axis=(1, 2)), 75)
  near = dilate(canny(luma, high), disk(3))
  return filters.smooth(1 - near.astype(luma.dtype), filters.gaussian(2, EDGE_SIGMA_PX))

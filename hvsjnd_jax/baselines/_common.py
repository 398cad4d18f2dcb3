"""What the classical models share: background luminance, gradients, adaptation, NAMM."""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from hvsjnd_jax.baselines import canny
from hvsjnd_jax.ops import filters
from hvsjnd_jax.ops.checks import check_images
from hvsjnd_jax.ops.color import LUMA
from hvsjnd_jax.ops.filters import Kernel
from hvsjnd_jax.ops.types import Planes, RGBImages, RGBImagesLike

SMALLEST_PX = 8  # as the estimator; no window reaches further past an edge


_OVERLAP = 0.3  # C of NAMM

_BACKGROUND: Kernel = (
  (1, 1, 1, 1, 1),
  (1, 2, 2, 2, 1),
  (1, 2, 0, 2, 1),
  (1, 2, 2, 2, 1),
  (1, 1, 1, 1, 1),
)

_FALL: Kernel = ((0,) * 5, (1, 3, 8, 3, 1), (0,) * 5, (-1, -3, -8, -3, -1), (0,) * 5)

_LEANING: Kernel = (
  (0, 0, 1, 0, 0),
  (0, 8, 3, 0, 0),
  (1, 3, 0, -3, -1),
  (0, 0, -3, -8, 0),
  (0, 0, -1, 0, 0),
)

_RISING: Kernel = (
  (0, 0, 1, 0, 0),
  (0, 0, 3, 8, 0),
  (-1, -3, 0, 3, 1),
  (0, -8, -3, 0, 0),
  (0, 0, -1, 0, 0),
)

_GRADIENTS = (_FALL, _LEANING, _RISING, filters.transpose(_FALL))

EDGE_SIGMA_PX = 0.8  # of the Gaussian over an edge map, in all models


def run(name: str, model: Callable[[Planes], Planes], images: RGBImagesLike) -> RGBImages:
  """Checks the images and runs a model of luma, in gray levels."""
  check_images(name, images, smallest_px=SMALLEST_PX)
  return _estimate(model, jnp.asarray(images))


@functools.partial(jax.jit, static_argnums=0)
def _estimate(model: Callable[[Planes], Planes], images: RGBImages) -> RGBImages:
  r, g, b = (weight * plane for weight, plane in zip(LUMA, _channels(images), strict=True))
  levels = model(255 * (r + g + b))
  return jnp.broadcast_to((levels / 255).clip(0, 1)[..., None], images.shape)


def _channels(images: RGBImages) -> list[Planes]:
  return [images[..., c].clip(0, 1) for c in range(3)]


def add_nonlinearly(adaptation: Planes, masking: Planes) -> Planes:
  return adaptation + masking - _OVERLAP * jnp.minimum(adaptation, masking)


def background_luminance(
  luma: Planes, *, beyond: Literal["symmetric", "constant"] = "symmetric"
) -> Planes:
  return filters.correlate(luma, _BACKGROUND, beyond=beyond) / 32


def luminance_adaptation(background: Planes) -> Planes:
  dark = 17 * (1 - jnp.sqrt(background / 127)) + 3
  return jnp.where(background <= 127, dark, 3 * (background - 127) / 128 + 3)


def directional_gradient(luma: Planes) -> Planes:
  slopes = (jnp.abs(filters.correlate(luma, kernel)) / 16 for kernel in _GRADIENTS)
  return functools.reduce(jnp.maximum, slopes)


def edge_guard(luma: Planes) -> Planes:
  """1, and 0 near edges, where a change is seen at once."""
  # min(60 / max G, 0.8), without the division by 0.
  high = 60 / jnp.maximum(directional_gradient(luma).max(axis=(1, 2)), 75)
  near = canny.dilate(canny.canny(luma, high), canny.disk(3))
  return filters.smooth(1 - near.astype(luma.dtype), radius_px=2, sigma_px=EDGE_SIGMA_PX)

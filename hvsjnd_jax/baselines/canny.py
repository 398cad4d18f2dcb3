"""Canny edge detection, and dilation of its edges."""

import functools
import math
from collections.abc import Iterable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from hvsjnd_jax.ops import filters
from hvsjnd_jax.ops.filters import Masks
from hvsjnd_jax.ops.types import Planes

# Canny's blur has MATLAB's default deviation, and ends at about 4 deviations.
_BLUR = filters.gaussian(6, math.sqrt(2))

_LOW_RATIO = 0.4  # of the low threshold to the high one

# A flat image's gradient after a float32 blur is far below this, and an edge's far above.
_FLAT = 2.5e-3


def canny(planes: Planes, high: float | Float[Array, " n"]) -> Masks:
  """Finds edges by Canny's method, with thresholds as MATLAB's.

  Planes are blurred by a Gaussian of deviation sqrt(2); m is the magnitude of Sobel's gradient over
  its maximum in the plane. A pixel is a crest if m is no less than on both sides of it along the
  gradient, interpolated between the two nearest of its 8 neighbours. Edges are the crests with
  m >= high, and those with m >= 0.4 high that are connected to them through 8 neighbours. The
  outermost pixels are never edges, and a plane that is flat within rounding has none.

  Args:
    planes: Images of one channel in [0, 255].
    high: The upper threshold, in (0, 1], one for all planes or one for each.

  Returns:
    Where the edges are.

  Source: Canny, "A computational approach to edge detection", 1986. Deviation: the gradient is
  Sobel's, as in scikit-image, where MATLAB differentiates a sampled Gaussian.
  """
  blurred = filters.smooth(planes, _BLUR)
  x, y = filters.gradient(blurred, filters.SOBEL)
  magnitude = jnp.sqrt(x**2 + y**2)
  peak = magnitude.max(axis=(1, 2), keepdims=True)
  high = jnp.broadcast_to(jnp.asarray(high, planes.dtype), len(planes))[:, None, None] * peak
  crests = _is_crest(x, y, magnitude) & (peak > _FLAT)
  strong, weak = (crests & (magnitude >= least) for least in (high, _LOW_RATIO * high))
  return _grow(strong, weak)


def _is_crest(x: Planes, y: Planes, magnitude: Planes) -> Masks:
  """Tells where the magnitude is no less than on both sides along the gradient."""
  _, h, w = magnitude.shape
  padded = jnp.pad(magnitude, ((0, 0), (1, 1), (1, 1)))

  def at(down: int, right: int) -> Planes:
    return padded[:, 1 + down : 1 + down + h, 1 + right : 1 + right + w]

  flat, steep = jnp.abs(x), jnp.abs(y)
  is_flat = flat >= steep  # the gradient runs along the row rather than along the column
  falls = x * y >= 0  # towards the lower right or the upper left
  larger = jnp.maximum(flat, steep)
  part = jnp.minimum(flat, steep) / jnp.where(larger > 0, larger, 1)
  sides = []
  for sign in (1, -1):
    straight = jnp.where(is_flat, at(0, sign), at(sign, 0))
    across = jnp.where(is_flat, at(-sign, sign), at(sign, -sign))
    diagonal = jnp.where(falls, at(sign, sign), across)
    sides.append((1 - part) * straight + part * diagonal)
  crests = (magnitude >= sides[0]) & (magnitude >= sides[1])
  return jnp.pad(crests[:, 1:-1, 1:-1], ((0, 0), (1, 1), (1, 1)))


def _grow(seeds: Masks, allowed: Masks) -> Masks:
  """Finds the allowed pixels that are connected to the seeds through 8 neighbours.

  The loop ends, since every pass but the last adds a pixel.
  """

  def step(state: tuple[Masks, Array]) -> tuple[Masks, Array]:
    found, _ = state
    grown = dilate(found, _SQUARE) & allowed
    return grown, (grown != found).any()

  return lax.while_loop(lambda state: state[1], step, (seeds, seeds.any()))[0]


def disk(radius_px: int) -> tuple[tuple[int, int], ...]:
  """Returns the offsets (i, j) with i² + j² <= r²."""
  reach = range(-radius_px, radius_px + 1)
  return tuple((i, j) for i in reach for j in reach if i**2 + j**2 <= radius_px**2)


_SQUARE = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1))


def dilate(masks: Masks, offsets: Iterable[tuple[int, int]]) -> Masks:
  """Is true where any pixel at the offsets is; none is past the edge."""
  _, h, w = masks.shape
  offsets = tuple(offsets)
  reach = max(max(abs(i), abs(j)) for i, j in offsets)
  padded = jnp.pad(masks, ((0, 0), (reach, reach), (reach, reach)))
  shifted = (padded[:, reach + i : reach + i + h, reach + j : reach + j + w] for i, j in offsets)
  return functools.reduce(jnp.logical_or, shifted)

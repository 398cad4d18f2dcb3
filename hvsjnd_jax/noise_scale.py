"""Finds the scale at which the noise of a JND map has a given PSNR.

Everything here is NumPy on the host. `scale_to_psnr` works on 8-bit images, so that what is
measured is what a viewer gets, clipped and rounded; `find_scale` works with any measure of the
error. Maps are float, [H, W, 3], with any non-negative values: only their proportions matter.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from hvsjnd_jax.ops.checks import check_pixels
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.ops.types import Pixels

TOLERANCE_DB = 0.005

# By how many gray levels the rounding thresholds of the pixels differ. A map of one value would
# move all pixels over a common threshold at once: by 6 levels at 32.57 dB, by 7 at 31.23, with
# nothing between. Spread like this, they pass one by one. A map with structure does not notice.
_SPREAD = 1e-3

_MOST_STEPS = 200

# Takes every nonzero value of a float32 map to black or white, and none beyond float64.
_LARGEST = 1e250

_Planes = Float[np.ndarray, "h w c"]
_Bytes = UInt8[np.ndarray, "h w c"]


class UnreachableError(HVSJNDError):
  """No scale gives the PSNR; the message says why, and names neither image nor model.

  Examples:
    >>> find_scale(abs, np.zeros((8, 8, 3)), psnr_db=30, largest=1)
    Traceback (most recent call last):
    hvsjnd_jax.noise_scale.UnreachableError: 30 dB cannot be reached: the map is zero throughout
  """


class Noisy(NamedTuple):
  """An image with noise of the wanted PSNR.

  Attributes:
    pixels: The image with its noise, clipped and rounded.
    scale: What the map was multiplied by in R, G and B.

  Examples:
    >>> Noisy._fields
    ('pixels', 'scale')
  """

  pixels: Pixels
  scale: tuple[float, float, float]


def scale_to_psnr(
  pixels: Pixels,
  jnd: Float[np.ndarray, "h w 3"],
  signs: Float[np.ndarray, "h w *c"],
  *,
  psnr_db: float,
  by_channel: bool,
) -> Noisy:
  """Adds sign · scale · map, with the scale at which the result has a given PSNR.

  Args:
    pixels: The image.
    jnd: Its JND map.
    signs: ±1, [H, W], which the three channels share, or [H, W, 3], where each has its own.
    psnr_db: PSNR of the clipped and rounded result, met to 0.005 dB.
    by_channel: Whether R, G and B each have this PSNR, with a scale for each. Otherwise the
      three have it together, with one scale, which keeps the map's split among them.

  Returns:
    The noisy image, and the scales.

  Raises:
    TypeError, ValueError: If the image is not uint8, [H, W, 3], or map or signs do not fit it.
    UnreachableError: If the map is not finite or negative somewhere, or no scale gives the
      PSNR: it is zero in too many places, clipping takes too much, or so few pixels change
      that the PSNR jumps.

  Examples:
    >>> pixels, jnd, signs = np.full((8, 8, 3), 100, np.uint8), np.ones((8, 8, 3)), np.ones((8, 8))
    >>> noisy = scale_to_psnr(pixels, jnd, signs, psnr_db=36.09, by_channel=False)
    >>> np.unique(noisy.pixels).tolist()  # 20 log10(255 / 4) = 36.09
    [104]
  """
  check_pixels("scale_to_psnr", pixels)
  if not isinstance(jnd, np.ndarray) or jnd.shape != pixels.shape:
    raise ValueError(
      f"scale_to_psnr: expected a map that is a NumPy array {pixels.shape}, got "
      f"{type(jnd).__name__} {np.shape(jnd)}"
    )
  if signs.shape not in (pixels.shape, pixels.shape[:2]):
    raise ValueError(
      f"scale_to_psnr: expected signs {pixels.shape[:2]} or {pixels.shape}, got {signs.shape}"
    )
  every_sign = np.broadcast_to(signs.reshape(*pixels.shape[:2], -1), pixels.shape)
  # The generator's seed is fixed: the spread is the same for every image and model.
  spread = np.random.default_rng(0).uniform(-_SPREAD, _SPREAD, pixels.shape[:2])[..., None]
  noisy = np.empty_like(pixels)
  scales: list[float] = []
  each = [(f" in {name}", slice(i, i + 1)) for i, name in enumerate("RGB")]
  for where, channels in each if by_channel else [("", slice(0, 3))]:
    original, maps = pixels[..., channels], jnd[..., channels]
    noise = every_sign[..., channels] * maps.astype(np.float64) * 255
    measure = functools.partial(_measure, original, noise, spread)
    scale = find_scale(measure, maps, psnr_db=psnr_db, largest=_LARGEST, where=where)
    noisy[..., channels] = _add(original, noise, spread, scale)
    scales.append(scale)
  red, green, blue = scales if by_channel else scales * 3
  return Noisy(noisy, (red, green, blue))


def _add(original: _Bytes, noise: _Planes, spread: _Planes, scale: float) -> _Bytes:
  levels = scale * noise
  levels += original
  levels += 0.5 + spread
  return np.clip(np.floor(levels, out=levels), 0, 255, out=levels).astype(np.uint8)


def _measure(original: _Bytes, noise: _Planes, spread: _Planes, scale: float) -> float:
  change = _add(original, noise, spread, scale) - original.astype(np.float32)
  return float(np.square(change, dtype=np.float64).mean()) / 255**2


def find_scale(
  measure: Callable[[float], float],
  jnd: _Planes,
  *,
  psnr_db: float,
  largest: float,
  where: str = "",
) -> float:
  """Finds the scale at which the noise of a map has a given PSNR.

  It makes no array as large as the map.

  Args:
    measure: Returns the mean squared error, of values in [0, 1], that the noise makes at a
      scale: about the square of scale · map, and never less at a larger scale.
    jnd: The map.
    psnr_db: PSNR of what is measured, met to 0.005 dB.
    largest: The largest scale that `measure` accepts; no map needs more.
    where: The part of the image that is meant, for the message, such as " in R".

  Returns:
    The scale.

  Raises:
    UnreachableError: As `scale_to_psnr`.

  Examples:
    >>> jnd = np.full((8, 8, 3), 0.5)
    >>> round(find_scale(lambda scale: (scale * 0.5) ** 2, jnd, psnr_db=20, largest=10), 3)
    0.2
  """
  try:
    _check_map(jnd)
    _check_reach(measure(largest), jnd, psnr_db)
    return _search(measure, jnd, psnr_db, largest)
  except UnreachableError as error:
    raise UnreachableError(f"{psnr_db:g} dB cannot be reached{where}: {error}") from None


def _check_map(jnd: _Planes) -> None:
  if not (jnd.min() >= 0 and jnd.max() < math.inf):
    raise UnreachableError("the map holds values that are negative or not finite")
  if not jnd.any():
    raise UnreachableError("the map is zero throughout")


def _check_reach(most_error: float, jnd: _Planes, psnr_db: float) -> None:
  least_db = _to_db(most_error)
  if least_db > psnr_db + TOLERANCE_DB:
    zeros = 100 * (1 - np.count_nonzero(jnd) / jnd.size)
    raise UnreachableError(
      f"at most noise it is {least_db:.2f} dB, the map being zero at {zeros:.1f} % of the values"
    )


def _search(
  measure: Callable[[float], float], jnd: _Planes, psnr_db: float, largest: float
) -> float:
  """Narrows a bracket around the scale, as the error never shrinks when the scale grows."""
  wanted = 10 ** (-psnr_db / 10)
  # This scale is exact but for clipping and rounding.
  square = np.mean([np.square(row.astype(np.float64)).mean() for row in jnd])
  scale = min(math.sqrt(wanted / square), largest)
  low, high, found = 0.0, largest, math.inf
  for step in range(_MOST_STEPS):
    error = measure(scale)
    found = _to_db(error)
    if abs(found - psnr_db) <= TOLERANCE_DB:
      return scale
    low, high = (scale, high) if error < wanted else (low, scale)
    # The error grows about with the square of the scale; where it does not, bisect.
    scale *= math.sqrt(wanted / error) if error else 2
    if step % 3 == 2 or not low < scale < high:
      scale = 2 * low if high == largest else (low + high) / 2
    if not low < scale < high:
      break
  raise UnreachableError(f"the picture's PSNR jumps past it, to {found:.2f} dB")


def _to_db(error: float) -> float:
  return -10 * math.log10(error) if error else math.inf

"""Noise of a given strength: random signs, and the scale at which a JND map has a given PSNR.

On the host, in NumPy. `scale_to_psnr` works on 8-bit pictures: what is measured is what a
viewer gets, clipped and rounded. `find_scale` takes any measure of the error. Maps are float,
[H, W, 3], any non-negative values: only their proportions count.
"""

import functools
import math
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.ops.types import Pixels

TOLERANCE_DB = 0.005

# Gray levels by which the pixels' rounding thresholds differ. A map of one value moves all
# pixels over a threshold at once: by 6 levels at 32.57 dB, by 7 at 31.23, with nothing between
# them. So spread, they pass one by one. Of a map with structure it changes nothing.
_SPREAD = 1e-3

_MOST_STEPS = 200

# Takes every value of a float32 map to black or white, and none beyond float64.
_LARGEST = 1e250


class UnreachableError(HVSJNDError):
  """No scale gives the PSNR; the message says why, and names neither image nor model.

  Examples:
    >>> find_scale(abs, np.zeros((8, 8, 3)), psnr_db=30, largest=1)
    Traceback (most recent call last):
    hvsjnd_jax.noise.UnreachableError: 30 dB cannot be reached: the map is zero throughout
  """


class Noisy(NamedTuple):
  """An image with noise of the wanted PSNR.

  Attributes:
    pixels: The image, clipped and rounded.
    scale: What the map was multiplied with, of R, G and B.

  Examples:
    >>> Noisy._fields
    ('pixels', 'scale')
  """

  pixels: Pixels
  scale: tuple[float, float, float]


def draw_signs(pixels: Pixels, *, seed: int) -> Float[np.ndarray, "h w"]:
  """The noise's signs, ±1, which the three channels share.

  They follow from seed and content: not from the file's name, or its place among others.

  Args:
    pixels: The image.
    seed: A whole number, >= 0.

  Returns:
    Signs, float32, [H, W].

  Examples:
    >>> np.unique(draw_signs(np.zeros((8, 8, 3), np.uint8), seed=0)).tolist()
    [-1.0, 1.0]
  """
  rng = np.random.default_rng((seed, zlib.crc32(pixels.tobytes())))
  return rng.choice(np.asarray((-1, 1), np.float32), pixels.shape[:2])


def scale_to_psnr(
  pixels: Pixels,
  jnd: Float[np.ndarray, "h w 3"],
  signs: Float[np.ndarray, "h w"],
  *,
  psnr_db: float,
  by_channel: bool,
) -> Noisy:
  """Adds sign · scale · map, with the scale at which the result has a given PSNR.

  Args:
    pixels: The image.
    jnd: Its JND map.
    signs: ±1.
    psnr_db: Of the clipped and rounded result; met to 0.005 dB.
    by_channel: Whether R, G and B each have this PSNR, with a scale each. Otherwise the
      three together have it, with one scale: the map's split among them stays.

  Returns:
    The noisy image, and the scales.

  Raises:
    UnreachableError: If the map is not finite or negative somewhere, or no scale gives the
      PSNR: it is zero in too many places, clipping takes too much, or so few pixels change
      that the PSNR jumps.

  Examples:
    >>> pixels, jnd, signs = np.full((8, 8, 3), 100, np.uint8), np.ones((8, 8, 3)), np.ones((8, 8))
    >>> noisy = scale_to_psnr(pixels, jnd, signs, psnr_db=36.09, by_channel=False)
    >>> np.unique(noisy.pixels).tolist()  # 20 log10(255 / 4) = 36.09
    [104]
  """
  # In a fixed order: the same for every image and model.
  spread = np.random.default_rng(0).uniform(-_SPREAD, _SPREAD, signs.shape)[..., None]
  noisy = np.empty_like(pixels)
  scales: list[float] = []
  parts = [(f" in {name}", slice(i, i + 1)) for i, name in enumerate("RGB")]
  for where, channels in parts if by_channel else [("", slice(0, 3))]:
    own = jnd[..., channels]
    noise = signs[..., None] * own.astype(np.float64) * 255
    measure = functools.partial(_measure, pixels[..., channels], noise, spread)
    scale = find_scale(measure, own, psnr_db=psnr_db, largest=_LARGEST, where=where)
    noisy[..., channels] = _add(pixels[..., channels], noise, spread, scale)
    scales.append(scale)
  red, green, blue = scales if by_channel else scales * 3
  return Noisy(noisy, (red, green, blue))


def _add(
  original: UInt8[np.ndarray, "h w c"],
  noise: Float[np.ndarray, "h w c"],
  spread: Float[np.ndarray, "h w 1"],
  scale: float,
) -> UInt8[np.ndarray, "h w c"]:
  levels = scale * noise
  levels += original
  levels += 0.5 + spread
  return np.clip(np.floor(levels, out=levels), 0, 255, out=levels).astype(np.uint8)


def _measure(
  original: UInt8[np.ndarray, "h w c"],
  noise: Float[np.ndarray, "h w c"],
  spread: Float[np.ndarray, "h w 1"],
  scale: float,
) -> float:
  change = _add(original, noise, spread, scale) - original.astype(np.float32)
  return float(np.square(change, dtype=np.float64).mean()) / 255**2


def find_scale(
  measure: Callable[[float], float],
  jnd: Float[np.ndarray, "h w c"],
  *,
  psnr_db: float,
  largest: float,
  where: str = "",
) -> float:
  """The scale at which a map's noise has a given PSNR.

  No array of the map's size is made here.

  Args:
    measure: Gives the mean squared error, of values in [0, 1], that the noise of a scale
      makes: about the square of scale · map, and never less at a larger scale.
    jnd: The map.
    psnr_db: Of what is measured; met to 0.005 dB.
    largest: The largest scale that `measure` takes; no map needs more.
    where: What of the image it is about, for the message, such as " in R".

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
    return _find_scale(measure, jnd, psnr_db, largest)
  except UnreachableError as error:
    raise UnreachableError(f"{psnr_db:g} dB cannot be reached{where}: {error}") from None


def _find_scale(
  measure: Callable[[float], float],
  jnd: Float[np.ndarray, "h w c"],
  psnr_db: float,
  largest: float,
) -> float:
  """Between brackets: the error never shrinks as the scale grows."""
  if not (jnd.min() >= 0 and jnd.max() < math.inf):
    raise UnreachableError("the map holds values that are negative or not finite")
  if not jnd.any():
    raise UnreachableError("the map is zero throughout")
  least_db = _to_db(measure(largest))
  if least_db > psnr_db + TOLERANCE_DB:
    zeros = 100 * (1 - np.count_nonzero(jnd) / jnd.size)
    raise UnreachableError(
      f"at most noise it is {least_db:.2f} dB, the map being zero at {zeros:.1f} % of the values"
    )
  wanted = 10 ** (-psnr_db / 10)
  # Exact but for clipping and rounding.
  square = np.mean([np.square(row.astype(np.float64)).mean() for row in jnd])
  scale = min(math.sqrt(wanted / square), largest)
  low, high, found = 0.0, largest, math.inf
  for step in range(_MOST_STEPS):
    error = measure(scale)
    found = _to_db(error)
    if abs(found - psnr_db) <= TOLERANCE_DB:
      return scale
    low, high = (scale, high) if error < wanted else (low, scale)
    # The error grows with the square of the scale, about; where it does not, halve.
    scale *= math.sqrt(wanted / error) if error else 2
    if step % 3 == 2 or not low < scale < high:
      scale = 2 * low if high == largest else (low + high) / 2
    if not low < scale < high:
      break
  raise UnreachableError(f"the picture's PSNR jumps past it, to {found:.2f} dB")


def _to_db(error: float) -> float:
  return -10 * math.log10(error) if error else math.inf

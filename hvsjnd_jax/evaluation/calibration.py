"""What a lmbda amounts to: scores of its noise, and the lmbda that is just noticeable."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hvsjnd_jax.data.images import to_uint8
from hvsjnd_jax.evaluation import comparison
from hvsjnd_jax.evaluation.butteraugli_program import butteraugli
from hvsjnd_jax.evaluation.estimators import Estimator
from hvsjnd_jax.evaluation.scores import ScoreTable
from hvsjnd_jax.noise import draw_signs, inject
from hvsjnd_jax.ops.types import Pixels

NOTICEABLE = 1.0  # the distance that Butteraugli's authors call just noticeable

NORMS = ("butteraugli_max", "butteraugli_3norm")

_QUARTILES = {"q1": 25, "median": 50, "q3": 75}

_LMBDA_PRECISION = 1.01

_LARGEST_LMBDA = 2.0**20


class Calibration(NamedTuple):
  """What a lmbda amounts to on one image.

  Attributes:
    scores: The scores at each lmbda, by its text.
    noticeable: The lmbda that is just noticeable, by Butteraugli's norm; None where none is.
  """

  scores: ScoreTable
  noticeable: dict[str, float | None]


def calibrate(
  pixels: Pixels, estimator: Estimator, *, lmbdas: Sequence[float], seed: int, program: str | None
) -> Calibration:
  """Scores an image's noise at each lmbda, and finds where it becomes noticeable.

  Args:
    pixels: The image.
    estimator: What draws its JND map.
    lmbdas: Scales of the noise, above 0.
    seed: The seed of the noise's signs.
    program: As `comparison.score`; without it no lmbda is searched for.

  Raises:
    ButteraugliError: If the program fails.
  """
  image, jnd = pixels[None].astype(np.float32) / 255, estimator(pixels)[None]
  signs = draw_signs(pixels, seed=seed)

  def distort(lmbda: float) -> Pixels:
    return to_uint8(inject(image, jnd, signs, lmbda=lmbda)[0])

  scores = {
    f"{lmbda:g}": comparison.score(distort(lmbda), pixels, program=program) for lmbda in lmbdas
  }
  if program is None:
    return Calibration(scores, {})
  measure = functools.cache(lambda lmbda: butteraugli(program, distort(lmbda), pixels))
  noticeable = {
    norm: find_lmbda(lambda lmbda, norm=norm: measure(lmbda)[norm], distance=NOTICEABLE)
    for norm in NORMS
  }
  return Calibration(scores, noticeable)


def find_lmbda(measure: Callable[[float], float], *, distance: float) -> float | None:
  """Finds the lmbda at which a measure reaches a distance, to 1 %.

  Args:
    measure: Gives the distance that the noise of a lmbda makes; grows with the lmbda.
    distance: The distance to reach, above 0.

  Returns:
    The lmbda; None if even one of 2^20 does not reach the distance.
  """
  high = 1.0
  while measure(high) < distance:
    high *= 2
    if high > _LARGEST_LMBDA:
      return None
  while measure(high / 2) >= distance:
    high /= 2
  low = high / 2
  while high > _LMBDA_PRECISION * low:
    middle = math.sqrt(low * high)
    low, high = (low, middle) if measure(middle) >= distance else (middle, high)
  return high


def find_quartiles(lmbdas: Sequence[float | None]) -> dict[str, float]:
  """Finds the quartiles q1, median and q3; None counts as infinite."""
  known = [math.inf if lmbda is None else lmbda for lmbda in lmbdas]
  # Each is the value of an image: there is no mean of a number and infinity.
  values = np.percentile(known, list(_QUARTILES.values()), method="lower")
  return dict(zip(_QUARTILES, map(float, values), strict=True))

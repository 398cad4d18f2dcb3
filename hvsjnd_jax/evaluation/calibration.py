"""What a lmbda amounts to: scores of its noise, and the lmbdas at which vision models see it."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from hvsjnd_jax.data.images import Picture, to_uint8
from hvsjnd_jax.evaluation import comparison
from hvsjnd_jax.evaluation.estimators import Estimator
from hvsjnd_jax.evaluation.scores import ImageScores, ScoreTable, group_metrics
from hvsjnd_jax.metrics import METRICS
from hvsjnd_jax.noise import draw_signs, inject
from hvsjnd_jax.ops.samples import to_unit
from hvsjnd_jax.runtime.jobs import Job


class Threshold(NamedTuple):
  """A score that a vision model's authors gave a meaning.

  Attributes:
    metric: Its name in `METRICS`.
    score: The score to reach.
    title: The metric and the score in words.
    meaning: What the score means.
  """

  metric: str
  score: float
  title: str
  meaning: str


# By their keys in a report.
THRESHOLDS = {
  "butteraugli_max": Threshold(
    "butteraugli_max", 1, "Butteraugli, worst spot: 1", "just noticeable where it is strongest"
  ),
  "butteraugli_3norm": Threshold(
    "butteraugli_3norm", 1, "Butteraugli, 3-norm: 1", "just noticeable over the whole image"
  ),
  "ssimulacra2_90": Threshold("ssimulacra2", 90, "SSIMULACRA 2: 90", "visually lossless"),
  "ssimulacra2_80": Threshold("ssimulacra2", 80, "SSIMULACRA 2: 80", "very high quality"),
  "cvvdp_9.5": Threshold("cvvdp", 9.5, "ColorVideoVDP, 4K: 9.5 JOD", "half a JOD lost"),
  "cvvdp_9": Threshold("cvvdp", 9, "ColorVideoVDP, 4K: 9 JOD", "3 of 4 prefer the original"),
  "cvvdp_fhd_9.5": Threshold(
    "cvvdp_fhd", 9.5, "ColorVideoVDP, Full HD: 9.5 JOD", "half a JOD lost"
  ),
  "cvvdp_fhd_9": Threshold(
    "cvvdp_fhd", 9, "ColorVideoVDP, Full HD: 9 JOD", "3 of 4 prefer the original"
  ),
}

_QUARTILES = {"q1": 25, "median": 50, "q3": 75}

_LMBDA_PRECISION = 1.01

_LARGEST_LMBDA = 2.0**20


class Calibration(NamedTuple):
  """What a lmbda amounts to on one image.

  Attributes:
    scores: The scores at each lmbda, by its text.
    noticeable: The lmbda that reaches each of `THRESHOLDS`; None where none does.
  """

  scores: ScoreTable
  noticeable: dict[str, float | None]


def calibrate(
  picture: Picture, estimator: Estimator, *, lmbdas: Sequence[float], seed: int
) -> Job[Calibration]:
  """Scores an image's noise at each lmbda, and finds the lmbdas that reach the thresholds.

  Args:
    picture: The image. Its map is drawn from 16 bits where it has them.
    estimator: What draws its JND map.
    lmbdas: Scales of the noise, above 0.
    seed: The seed of the noise's signs.
  """
  jnd = (yield from estimator(picture.finest)).jnd
  pixels = picture.pixels
  image = to_unit(pixels[None])
  signs = draw_signs(pixels, seed=seed)

  def score(lmbda: float, metrics: Sequence[str] = comparison.SCORED) -> ImageScores:
    noisy = to_uint8(inject(image, jnd[None], signs, lmbda=lmbda)[0])
    return comparison.score(noisy, pixels, metrics=metrics)

  scores = {f"{lmbda:g}": score(lmbda) for lmbda in lmbdas}
  return Calibration(scores, find_thresholds(score, THRESHOLDS))


def find_thresholds(
  score: Callable[[float, Sequence[str]], ImageScores], thresholds: Mapping[str, Threshold]
) -> dict[str, float | None]:
  """Finds the lmbda that reaches each threshold, and scores no lmbda twice with one metric.

  Args:
    score: Returns the scores of a lmbda's noise by the metrics named.
    thresholds: What to reach, by name.

  Returns:
    As `find_lmbda`, by the threshold's name.
  """
  score_once = functools.cache(score)
  metrics = dict.fromkeys(threshold.metric for threshold in thresholds.values())
  group_of = {name: group for group in group_metrics(metrics) for name in group}

  def find(threshold: Threshold) -> float | None:
    name = threshold.metric

    def measure(lmbda: float) -> float:
      value = score_once(lmbda, group_of[name])[name]
      assert value is not None, f"{name} accepts every image that the commands accept"
      return value

    return find_lmbda(measure, score=threshold.score, better=METRICS[name].better)

  return {name: find(threshold) for name, threshold in thresholds.items()}


def find_lmbda(
  measure: Callable[[float], float], *, score: float, better: Literal["higher", "lower"]
) -> float | None:
  """Finds the least lmbda at which a score is as bad as the one wanted, to 1 %.

  Args:
    measure: Returns the score of a lmbda's noise, which gets worse as the lmbda grows.
    score: The score to reach, worse than that of equal images.
    better: Which of two scores is the better one.

  Returns:
    The lmbda; None if even one of 2^20 does not reach the score.
  """

  def reaches(lmbda: float) -> bool:
    return measure(lmbda) >= score if better == "lower" else measure(lmbda) <= score

  high = 1.0
  while not reaches(high):
    high *= 2
    if high > _LARGEST_LMBDA:
      return None
  while reaches(high / 2):
    high /= 2
  low = high / 2
  while high > _LMBDA_PRECISION * low:
    middle = math.sqrt(low * high)
    low, high = (low, middle) if reaches(middle) else (middle, high)
  return high


def find_quartiles(lmbdas: Sequence[float | None]) -> dict[str, float]:
  """Finds the quartiles q1, median and q3; None counts as infinite."""
  known = [math.inf if lmbda is None else lmbda for lmbda in lmbdas]
  # Each is the value of an image: there is no mean of a number and infinity.
  values = np.percentile(known, list(_QUARTILES.values()), method="lower")
  return dict(zip(_QUARTILES, map(float, values), strict=True))

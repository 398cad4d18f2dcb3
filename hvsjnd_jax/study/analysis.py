"""Thresholds of a study, with intervals, and whether models differ.

Where three participants or more are left, intervals are for people in general: participants are
resampled with all their answers, and the interval is Student's, of the deviation that the log
threshold then has. With one or two, it is for these participants only: their answers are drawn
again by the fitted function.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from hvsjnd_jax.study import psychometric
from hvsjnd_jax.study.design import Design
from hvsjnd_jax.study.psychometric import Counts, Fit
from hvsjnd_jax.study.results import Result

_CONFIDENCE = 0.95

_FEWEST_RESAMPLED = 3


class Threshold(NamedTuple):
  """The lmbda at which three of four answers are right, and the function that it is of.

  Attributes:
    lmbda: The threshold.
    low: The lower end of its 95 % interval.
    high: The upper end.
    beyond: "below" or "above" where it lies outside the lmbdas shown, and is a guess.
    slope: The function's slope.
    spread: The standard deviation of log thresholds among participants and images.
    lapse: The rate of lapses.
    trials: The number of answers.
    fit: The function.
    counts: The answers of each unit.
  """

  lmbda: float
  low: float
  high: float
  beyond: Literal["below", "above"] | None
  slope: float
  spread: float
  lapse: float
  trials: int
  fit: Fit
  counts: Counts

  def describe(self) -> dict[str, Any]:
    """Returns what a report says of it."""
    described = self._asdict()
    right, wrong = (described["counts"]._asdict()[name].sum(axis=0) for name in ("right", "wrong"))
    del described["fit"], described["counts"]
    shown = zip(self.counts.lmbdas.tolist(), right.tolist(), (right + wrong).tolist(), strict=True)
    answers = [{"lmbda": x, "right": int(r), "shown": int(n)} for x, r, n in shown]
    return {**described, "answers": answers}


class Difference(NamedTuple):
  """How the thresholds of two models compare.

  Attributes:
    first: The one's name.
    second: The other's.
    ratio: The first's threshold divided by the second's.
    low: The lower end of the ratio's 95 % interval.
    high: The upper end.
    p: The probability of such a difference, or a larger one, if there were none; by Holm's
      method where several pairs are tested.
  """

  first: str
  second: str
  ratio: float
  low: float
  high: float
  p: float


class Analysis(NamedTuple):
  """What a study found.

  Attributes:
    pooled: The threshold of each model, over images and participants.
    images: Those of each image, by model and image.
    differences: Of each two models.
    resampled: "participants", or "answers" where there are too few of these.
  """

  pooled: dict[str, Threshold]
  images: dict[str, dict[str, Threshold]]
  differences: list[Difference]
  resampled: Literal["participants", "answers"]


def analyze(design: Design, results: Sequence[Result], *, draws: int, seed: int) -> Analysis:
  """Fits psychometric functions to the answers of main trials.

  Args:
    design: The study.
    results: Those of participants whose answers count, one or more.
    draws: How often participants or answers are drawn again.
    seed: The seed of the draws.
  """
  right, wrong = _count(design, results)
  sampler = _Sampler(len(results), draws=draws, seed=seed)
  lmbdas = np.asarray(design.lmbdas)
  pooled: dict[str, Threshold] = {}
  drawn: dict[str, Float[np.ndarray, " b"]] = {}
  images: dict[str, dict[str, Threshold]] = {}
  for m, model in enumerate(design.models):
    counts = Counts(lmbdas, *(part[:, m].reshape(-1, len(lmbdas)) for part in (right, wrong)))
    pooled[model.name], drawn[model.name] = sampler.measure(counts)
    images[model.name] = {
      image.name: sampler.measure(Counts(lmbdas, right[:, m, i], wrong[:, m, i]))[0]
      for i, image in enumerate(design.images)
    }
  differences = [
    sampler.compare(pair, [pooled[name].fit.log_threshold for name in pair], drawn)
    for pair in itertools.combinations(pooled, 2)
  ]
  return Analysis(pooled, images, _adjust(differences), sampler.kind)


def _count(design: Design, results: Sequence[Result]) -> Float[np.ndarray, "2 p m i k"]:
  """Counts right and wrong answers, by participant, model, image and lmbda."""
  place = [
    {value: i for i, value in enumerate(values)}
    for values in (
      [model.name for model in design.models],
      [image.name for image in design.images],
      design.lmbdas,
    )
  ]
  counted = np.zeros((2, len(results), *map(len, place)))
  for p, result in enumerate(results):
    for trial in result.trials:
      if trial.kind == "main":
        cell = [
          at[key] for at, key in zip(place, (trial.model, trial.image, trial.lmbda), strict=True)
        ]
        counted[(int(trial.answer != trial.side), p, *cell)] += 1
  return counted


class _Sampler:
  """Draws participants, the same for every model and image, or answers."""

  def __init__(self, participants: int, *, draws: int, seed: int):
    self._participants, self._draws, self._seed = participants, draws, seed
    several = participants >= _FEWEST_RESAMPLED
    self.kind: Literal["participants", "answers"] = "participants" if several else "answers"
    # Draws of few participants vary less than participants do, and by a normal distribution's
    # quantile too few intervals would hold the truth.
    self._inflation = math.sqrt(participants / (participants - 1)) if several else 1.0
    self._freedom = participants - 1 if several else math.inf
    chances = np.full(participants, 1 / participants)
    rng = np.random.default_rng(seed)
    self._weights = rng.multinomial(participants, chances, size=draws).astype(float)

  def measure(self, counts: Counts) -> tuple[Threshold, Float[np.ndarray, " b"]]:
    """Fits a function; returns its threshold, and those of the draws."""
    fitted = psychometric.fit(counts)
    if self.kind == "participants":
      repeated = len(counts.right) // self._participants
      weights = np.repeat(self._weights, repeated, axis=1)
      drawn = psychometric.resample_units(counts, fitted, weights=weights)
    else:
      rng = np.random.default_rng(self._seed)
      drawn = psychometric.resample_answers(counts, fitted, draws=self._draws, rng=rng)
    lmbda = math.exp(fitted.log_threshold)
    low, high = self._bound(fitted.log_threshold, drawn)
    shown = counts.lmbdas[(counts.right + counts.wrong).sum(axis=0) > 0]
    beyond = "below" if lmbda < shown.min() else "above" if lmbda > shown.max() else None
    trials = int(counts.right.sum() + counts.wrong.sum())
    slope = math.exp(fitted.log_slope)
    threshold = Threshold(
      *(lmbda, low, high, beyond, slope, fitted.spread, fitted.lapse, trials, fitted, counts)
    )
    return threshold, drawn

  def compare(
    self,
    pair: tuple[str, str],
    log_thresholds: Sequence[float],
    drawn: dict[str, Float[np.ndarray, " b"]],
  ) -> Difference:
    """Compares two models by the difference of their log thresholds, draw by draw."""
    difference = log_thresholds[0] - log_thresholds[1]
    differences = drawn[pair[0]] - drawn[pair[1]]
    low, high = self._bound(difference, differences)
    deviation = self._deviate(differences)
    p = 2 * float(stats.t.sf(abs(difference) / deviation, self._freedom)) if deviation else 1.0
    return Difference(*pair, math.exp(difference), low, high, p)

  def _deviate(self, drawn: Float[np.ndarray, " b"]) -> float:
    return self._inflation * float(np.std(drawn, ddof=1))

  def _bound(self, value: float, drawn: Float[np.ndarray, " b"]) -> tuple[float, float]:
    reach = float(stats.t.ppf((1 + _CONFIDENCE) / 2, self._freedom)) * self._deviate(drawn)
    return math.exp(value - reach), math.exp(value + reach)


def _adjust(differences: Sequence[Difference]) -> list[Difference]:
  """Raises the p values by Holm's method, for as many tests as there are."""
  adjusted, largest = list(differences), 0.0
  order = sorted(range(len(differences)), key=lambda i: differences[i].p)
  for rank, i in enumerate(order):
    largest = max(largest, min(1.0, (len(order) - rank) * differences[i].p))
    adjusted[i] = differences[i]._replace(p=largest)
  return adjusted

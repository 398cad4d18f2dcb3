"""The lmbda that reaches a score, and the quartiles of many."""

import math
from collections.abc import Sequence

import pytest

from hvsjnd_jax.evaluation.calibration import (
  THRESHOLDS,
  find_lmbda,
  find_quartiles,
  find_thresholds,
)
from hvsjnd_jax.evaluation.scores import ImageScores
from hvsjnd_jax.metrics import METRICS


@pytest.mark.parametrize("wanted", [0.003, 1, 7, 1000])
def test_lmbda_is_found_to_a_percent(wanted: float):
  found = find_lmbda(lambda lmbda: (lmbda / wanted) ** 1.5, score=1, better="lower")
  assert found is not None
  assert wanted <= found <= 1.01 * wanted
  falling = find_lmbda(lambda lmbda: 10 - (lmbda / wanted) ** 1.5, score=9, better="higher")
  assert falling == found


def test_lmbda_that_does_nothing_is_none():
  assert find_lmbda(lambda lmbda: 0.9, score=1, better="lower") is None
  assert find_lmbda(lambda lmbda: 100, score=90, better="higher") is None


def test_lmbda_of_noise_that_comes_in_jumps():
  """As rounding makes it: the least lmbda that reaches the value."""
  found = find_lmbda(lambda lmbda: math.floor(lmbda + 0.5), score=4, better="lower")
  assert found == pytest.approx(3.5, rel=0.01)


def test_thresholds_share_scores():
  asked: list[tuple[float, str]] = []

  def score(lmbda: float, metrics: Sequence[str]) -> ImageScores:
    asked.extend((lmbda, name) for name in metrics)
    worse = {name: -lmbda if METRICS[name].better == "higher" else lmbda for name in metrics}
    return {name: METRICS[name].equal + change for name, change in worse.items()}

  found = find_thresholds(score, THRESHOLDS)
  wanted = {
    name: abs(threshold.score - METRICS[threshold.metric].equal)
    for name, threshold in THRESHOLDS.items()
  }
  assert found == pytest.approx(wanted, rel=0.01)
  assert len(set(asked)) == len(asked), "no lmbda is scored twice by one metric"


def test_quartiles_are_images_values_and_none_is_the_largest():
  values = find_quartiles([None, 3.0, 1.0, None])
  assert values == {"q1": 1, "median": 3, "q3": math.inf}

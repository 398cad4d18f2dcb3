"""Psychometric functions: closed forms, recovered parameters, and fits of draws."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import check_grad

from hvsjnd_jax.study import psychometric
from hvsjnd_jax.study.psychometric import Counts, Fit, fit, probability

LMBDAS = np.array([1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0])


def draw(
  units: int, shown: int, *, spread: float = 0.3, seed: int = 0, lapse: float = 0.03
) -> Counts:
  """Draws answers around a threshold of 7, with slope 3."""
  rng = np.random.default_rng(seed)
  thresholds = 7 * np.exp(spread * rng.standard_normal(units))
  chance = probability(LMBDAS, threshold=thresholds[:, None], slope=3, lapse=lapse)
  right = rng.binomial(shown, chance).astype(float)
  return Counts(LMBDAS, right, shown - right)


def test_three_of_four_are_right_at_the_threshold():
  at = probability(np.array([0, 5, 1e9]), threshold=5, slope=2.2, lapse=0)
  np.testing.assert_allclose(at, [0.5, 0.75, 1])
  assert probability(np.array([1e9]), threshold=5, slope=2.2, lapse=0.04) == pytest.approx(0.96)
  # 1 - 2^-1/2 of the way up from chance, half a slope's octave below.
  assert probability(np.array([2.5]), threshold=5, slope=1, lapse=0) == pytest.approx(
    0.5 + 0.5 * (1 - math.sqrt(0.5))
  )


def test_gradient():
  counts = draw(6, 5)
  weights = np.arange(1.0, 7)

  def loss(part: int):
    return lambda x: psychometric._loss(x, np.log(LMBDAS), counts, weights)[part]

  at = np.array([1.7, 0.35, 1.0, 0.04])
  error = check_grad(loss(0), loss(1), at)
  assert error < 1e-5 * np.linalg.norm(loss(1)(at))


@pytest.mark.parametrize("spread", [0.2, 0.4, 0.8])
def test_likelihood_is_smooth_where_the_function_is_steep(spread: float, monkeypatch: Any):
  """Nodes too wide apart would draw a likelihood that rises at each of them."""
  counts, log_lmbdas = draw(10, 4, spread=spread), np.log(LMBDAS)
  thresholds = math.log(7) + np.linspace(-0.2, 0.2, 9)
  steep = np.array([[threshold, spread, math.log(15), 0.02] for threshold in thresholds])
  summed, _ = psychometric._loss(steep, log_lmbdas, counts, None)
  offsets = np.linspace(-8, 8, 4001)
  density = np.exp(-(offsets**2) / 2)
  monkeypatch.setattr(psychometric, "_OFFSETS", offsets)
  monkeypatch.setattr(psychometric, "_LOG_WEIGHTS", np.log(density / density.sum()))
  integrated, _ = psychometric._loss(steep, log_lmbdas, counts, None)
  # A log-likelihood that falls by 1.9 bounds a 95 % interval; 31 Gauss-Hermite nodes were off by
  # 1.2 at a spread of 0.4, and by 2.9 at 0.8.
  np.testing.assert_allclose(summed, integrated, atol=0.1)


def test_recovers_what_many_answers_say():
  found = fit(draw(200, 20))
  # Three standard errors, of 200 units' thresholds and 40,000 answers.
  assert found.log_threshold == pytest.approx(math.log(7), abs=3 * 0.3 / math.sqrt(200))
  assert found.spread == pytest.approx(0.3, abs=0.06)
  assert math.exp(found.log_slope) == pytest.approx(3, rel=0.1)
  assert found.lapse == pytest.approx(0.03, abs=0.01)


def test_a_single_curve_needs_no_spread():
  """With one unit the likelihood is that of the plain function, and SciPy finds its top."""
  counts = draw(1, 40)
  found = fit(counts)
  assert found.spread == 0

  def loss(threshold: float, log_slope: float, lapse: float) -> float:
    right = probability(LMBDAS, threshold=threshold, slope=math.exp(log_slope), lapse=lapse)
    return -float((counts.right * np.log(right) + counts.wrong * np.log1p(-right)).sum())

  at = (math.exp(found.log_threshold), found.log_slope, max(found.lapse, 1e-6))
  for i in range(3):
    for factor in (0.97, 1.03):
      moved = [value * (factor if i == j else 1) for j, value in enumerate(at)]
      moved[2] = min(max(moved[2], 1e-6), psychometric.MOST_LAPSES)
      assert loss(*moved) >= loss(*at) - 1e-4


@pytest.mark.parametrize("seen", [0.0, 1.0])
def test_answers_that_bound_nothing(seen: float):
  """All wrong, or all right: the threshold goes to the end of the range, and no further."""
  shown = np.full((3, len(LMBDAS)), 4.0)
  found = fit(Counts(LMBDAS, seen * shown, (1 - seen) * shown))
  lmbda = math.exp(found.log_threshold)
  assert math.isfinite(lmbda)
  assert lmbda < LMBDAS[0] if seen else lmbda > LMBDAS[-1]


def test_draws_are_fitted_as_by_scipy():
  counts = draw(8, 4)
  fitted = fit(counts)
  weights = np.random.default_rng(1).multinomial(8, np.full(8, 1 / 8), size=12).astype(float)
  fast = psychometric.resample_units(counts, fitted, weights=weights)
  slow = [fit(counts, weights=row, start=fitted).log_threshold for row in weights]
  # Both stop where a step is small: a tenth of the standard error among draws.
  np.testing.assert_allclose(fast, slow, atol=0.1 * float(np.std(slow)))


def test_redrawn_answers_vary_as_the_threshold_s_standard_error():
  counts = draw(1, 40, lapse=0.0)
  fitted = fit(counts)
  rng = np.random.default_rng(0)
  found = psychometric.resample_answers(counts, fitted, draws=100, rng=rng)
  # Of 400 answers on such a curve, by the information of a Weibull whose slope is known: about
  # 6 %, and somewhat more where slope and lapses are fitted, too.
  assert 0.04 < found.std() < 0.15
  assert found.mean() == pytest.approx(fitted.log_threshold, abs=0.05)


def test_mean_function_has_the_answers_shares():
  counts = draw(40, 30)
  share = counts.right.sum(axis=0) / (counts.right + counts.wrong).sum(axis=0)
  # 1,200 answers at each lmbda: 1.4 % standard error at most.
  np.testing.assert_allclose(fit(counts).probability(LMBDAS), share, atol=4 * 0.0144)


def test_fit_is_plain_numbers():
  assert all(type(value) is float for value in fit(draw(2, 4)))
  assert Fit._fields == ("log_threshold", "spread", "log_slope", "lapse")

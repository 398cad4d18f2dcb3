r"""Psychometric functions of a two-alternative forced choice, fitted by maximum likelihood.

An observer is right with the probability

  P(x) = 1/2 + (1/2 − γ)·(1 − 2^(−(x/α)^β)),

a Weibull function of the noise's scale x. α is the threshold: there, someone who never lapses is
right in 75 % of the trials. β is the slope, and γ in [0, 0.1] the rate of lapses.

A threshold belongs to a unit: one participant and one image. The units' log α are taken as normal
around log of the threshold sought, with a spread that is fitted, too, and they share slope and
lapses. So a participant of few trials or of none wrong is no trouble, and answers of staircases,
which show each participant other lmbdas, are not biased by it as a single curve through all answers
would be.

Sources: Wichmann & Hill, The psychometric function I, Perception & Psychophysics 63 (2001), for
lapses; Moscatelli, Mezzetti & Lacquaniti, Modeling psychophysical data at the population level,
Journal of Vision 12 (2012), for units.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import optimize

MOST_LAPSES = 0.1

# The threshold is sought as far as this factor beyond the lmbdas that were shown.
_BEYOND = 4.0

_LOG_SLOPES = (math.log(0.3), math.log(15.0))
_MOST_SPREAD = 2.0

# Where the normal distribution of log thresholds is summed, in its deviations. What is summed is
# as steep as the function; Gauss-Hermite nodes are so wide apart that the likelihood of a steep one
# would rise at each of them, and a fit that is caught there would seem far too certain.
_OFFSETS = np.linspace(-4, 4, 57)
_LOG_WEIGHTS = -(_OFFSETS**2) / 2 - np.log(np.exp(-(_OFFSETS**2) / 2).sum())

_LEAST = 1e-12  # of a probability whose logarithm is taken

# The fit of a draw has settled where a step changes no parameter by more than this.
_SETTLED = 2e-3
_MOST_STEPS = 30
_LONGEST_STEP = 0.5
_DIFFERENCE = 1e-4  # between the gradients that the curvature is measured by
_LEAST_CURVATURE = 1e-3


class Counts(NamedTuple):
  """How often answers were right and wrong.

  Attributes:
    lmbdas: The scales of the noise, [K].
    right: Right answers of each unit, [U, K].
    wrong: Wrong ones, [U, K].
  """

  lmbdas: Float[np.ndarray, " k"]
  right: Float[np.ndarray, "u k"]
  wrong: Float[np.ndarray, "u k"]


class Fit(NamedTuple):
  """A fitted function.

  Attributes:
    log_threshold: log α, the mean over units.
    spread: The standard deviation of the units' log α.
    log_slope: log β.
    lapse: γ.
  """

  log_threshold: float
  spread: float
  log_slope: float
  lapse: float

  def probability(self, lmbdas: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Returns how often units are right, on average."""
    thresholds = self.log_threshold + self.spread * _OFFSETS
    curves = probability(
      np.asarray(lmbdas)[:, None],
      threshold=np.exp(thresholds),
      slope=math.exp(self.log_slope),
      lapse=self.lapse,
    )
    return curves @ np.exp(_LOG_WEIGHTS)


def probability(
  lmbda: np.ndarray, *, threshold: np.ndarray | float, slope: float, lapse: float
) -> np.ndarray:
  """Returns how often an observer is right.

  Examples:
    >>> probability(np.array([0.0, 5.0, 500.0]), threshold=5.0, slope=3.0, lapse=0.0).tolist()
    [0.5, 0.75, 1.0]
  """
  return 0.5 + (0.5 - lapse) * (1 - np.exp2(-((lmbda / threshold) ** slope)))


def fit(
  counts: Counts, *, weights: Float[np.ndarray, " u"] | None = None, start: Fit | None = None
) -> Fit:
  """Fits the function by maximum likelihood.

  Args:
    counts: The answers.
    weights: How often each unit counts; by default once.
    start: Where to begin; by default at several places, of which the best end is taken.
  """
  log_lmbdas = np.log(counts.lmbdas)
  bounds = _bound(counts)
  starts = (
    [start]
    if start
    else [
      Fit(float(place), min(0.2, bounds[1, 1]), math.log(2.5), 0.02)
      for place in np.quantile(log_lmbdas, (0.2, 0.5, 0.8))
    ]
  )
  ends = [
    optimize.minimize(
      _loss, begin, (log_lmbdas, counts, weights), method="SLSQP", jac=True, bounds=bounds.T
    )
    for begin in starts
  ]
  return Fit(*map(float, min(ends, key=lambda end: end.fun).x))


def resample_units(
  counts: Counts, fitted: Fit, *, weights: Float[np.ndarray, "b u"]
) -> Float[np.ndarray, " b"]:
  """Fits again with other weights of the units; returns the log thresholds."""
  return _fit_draws(counts, fitted, counts, weights)


def resample_answers(
  counts: Counts, fitted: Fit, *, draws: int, rng: np.random.Generator
) -> Float[np.ndarray, " b"]:
  """Draws other answers of the same units, and fits again; returns the log thresholds."""
  curves = _Curves(np.asarray(fitted), np.log(counts.lmbdas))
  _, posterior = _weigh_nodes(curves, counts)
  thresholds = np.exp(fitted.log_threshold + fitted.spread * (posterior @ _OFFSETS))
  chance = probability(
    counts.lmbdas[None],
    threshold=thresholds[:, None],
    slope=math.exp(fitted.log_slope),
    lapse=fitted.lapse,
  )
  shown = (counts.right + counts.wrong).astype(int)
  right = rng.binomial(shown, chance, size=(draws, *shown.shape)).astype(float)
  redrawn = Counts(counts.lmbdas, right, shown - right)
  return _fit_draws(counts, fitted, redrawn, np.ones((draws, len(shown))))


def _bound(counts: Counts) -> Float[np.ndarray, "2 4"]:
  """Returns the least and the largest parameters."""
  low, high = np.log(counts.lmbdas.min() / _BEYOND), np.log(counts.lmbdas.max() * _BEYOND)
  # The spread of a single unit is not known.
  most_spread = _MOST_SPREAD if counts.right.shape[-2] > 1 else 0.0
  return np.array([[low, 0, _LOG_SLOPES[0], 0], [high, most_spread, _LOG_SLOPES[1], MOST_LAPSES]])


def _fit_draws(
  counts: Counts, fitted: Fit, drawn: Counts, weights: Float[np.ndarray, "b u"]
) -> Float[np.ndarray, " b"]:
  """Fits all draws at once, by Newton's method with the curvature at the fit they start from.

  What has not settled after `_MOST_STEPS` is fitted by SciPy.

  Args:
    counts: The answers that `fitted` is of.
    fitted: Where to begin.
    drawn: The draws' answers, [U, K] or [B, U, K].
    weights: How often each unit counts.
  """
  log_lmbdas = np.log(counts.lmbdas)
  low, high = _bound(counts)
  curvature = _measure_curvature(counts, fitted)
  parameters = np.tile(np.asarray(fitted), (len(weights), 1))
  unsettled = np.arange(len(weights))
  for _ in range(_MOST_STEPS):
    some = _select(drawn, unsettled)
    at = parameters[unsettled]
    _, gradient = _loss(at, log_lmbdas, some, weights[unsettled])
    # A parameter that is pressed against its bound stays, and the others move without it.
    stays = ((at <= low) & (gradient > 0)) | ((at >= high) & (gradient < 0))
    masked = np.where(stays[:, :, None] | stays[:, None, :], np.eye(4), curvature)
    steps = -np.linalg.solve(masked, np.where(stays, 0, gradient)[..., None])[..., 0]
    moved = np.clip(at + np.clip(steps, -_LONGEST_STEP, _LONGEST_STEP), low, high)
    parameters[unsettled] = moved
    unsettled = unsettled[np.abs(moved - at).max(axis=1) > _SETTLED]
    if not len(unsettled):
      break
  for i in unsettled:
    one = fit(_select(drawn, i), weights=weights[i], start=fitted)
    parameters[i, 0] = one.log_threshold
  return parameters[:, 0]


def _select(drawn: Counts, draws: Any) -> Counts:
  """Returns the answers of some draws, or of all where they have the same."""
  if drawn.right.ndim == 2:
    return drawn
  return Counts(drawn.lmbdas, drawn.right[draws], drawn.wrong[draws])


def _measure_curvature(counts: Counts, fitted: Fit) -> Float[np.ndarray, "4 4"]:
  """Measures the second derivatives of the loss, and makes them positive definite."""
  steps = np.concatenate([np.eye(4), -np.eye(4)]) * _DIFFERENCE
  _, gradients = _loss(np.asarray(fitted) + steps, np.log(counts.lmbdas), counts, None)
  second = (gradients[:4] - gradients[4:]) / (2 * _DIFFERENCE)
  values, vectors = np.linalg.eigh((second + second.T) / 2)
  return (vectors * np.maximum(np.abs(values), _LEAST_CURVATURE)) @ vectors.T


def _loss(
  parameters: Float[np.ndarray, "*b 4"],
  log_lmbdas: Float[np.ndarray, " k"],
  counts: Counts,
  weights: Float[np.ndarray, "*b u"] | None,
) -> tuple[Any, Float[np.ndarray, "*b 4"]]:
  """Computes the negative log-likelihood and its gradient."""
  slope, lapse = np.exp(parameters[..., 2, None, None]), parameters[..., 3, None, None]
  curves = _Curves(parameters, log_lmbdas)
  likelihoods, posterior = _weigh_nodes(curves, counts)
  if weights is not None:
    likelihoods = likelihoods * weights
    posterior *= weights[..., None]
  # The derivative by the probability of a right answer, for each lmbda and node.
  right, wrong = (part.swapaxes(-1, -2) @ posterior for part in (counts.right, counts.wrong))
  pull = right / curves.right - wrong / curves.wrong
  by_distance = pull * (0.5 - lapse) * math.log(2) * curves.power * curves.unseen * slope
  gradient = (
    by_distance.sum(axis=(-1, -2)),
    (by_distance @ _OFFSETS).sum(axis=-1),
    -(by_distance * curves.distance).sum(axis=(-1, -2)),
    (pull * curves.seen).sum(axis=(-1, -2)),
  )
  return -likelihoods.sum(axis=-1), np.stack(gradient, axis=-1)


class _Curves:
  """The function at each lmbda, [K], for a unit at each node of the normal distribution, [Q]."""

  def __init__(self, parameters: Float[np.ndarray, "*b 4"], log_lmbdas: Float[np.ndarray, " k"]):
    log_threshold, spread, log_slope, lapse = np.moveaxis(parameters, -1, 0)[..., None, None]
    self.distance = log_lmbdas[:, None] - (log_threshold + spread * _OFFSETS)
    self.power = np.exp(np.minimum(np.exp(log_slope) * self.distance, 6))
    self.unseen = np.exp(-math.log(2) * self.power)
    self.seen = 1 - self.unseen
    self.right = 0.5 + (0.5 - lapse) * self.seen
    self.wrong = np.maximum(1 - self.right, _LEAST)


def _weigh_nodes(
  curves: _Curves, counts: Counts
) -> tuple[Float[np.ndarray, "*b u"], Float[np.ndarray, "*b u q"]]:
  """Returns the log-likelihood of each unit, and how probable each node is for it."""
  joint = counts.right @ np.log(curves.right) + counts.wrong @ np.log(curves.wrong) + _LOG_WEIGHTS
  highest = joint.max(axis=-1)
  joint = np.exp(joint - highest[..., None])
  total = joint.sum(axis=-1)
  return highest + np.log(total), joint / total[..., None]

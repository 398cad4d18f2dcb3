"""The lmbda that reaches a distance, and the quartiles of many."""

import math

import pytest

from hvsjnd_jax.evaluation.calibration import find_lmbda, find_quartiles


@pytest.mark.parametrize("wanted", [0.003, 1, 7, 1000])
def test_lmbda_is_found_to_a_percent(wanted: float):
  found = find_lmbda(lambda lmbda: (lmbda / wanted) ** 1.5, distance=1)
  assert found is not None
  assert wanted <= found <= 1.01 * wanted


def test_lmbda_that_does_nothing_is_none():
  assert find_lmbda(lambda lmbda: 0.9, distance=1) is None


def test_lmbda_of_noise_that_comes_in_jumps():
  """As rounding makes it: the least lmbda that reaches the value."""
  found = find_lmbda(lambda lmbda: math.floor(lmbda + 0.5), distance=4)
  assert found == pytest.approx(3.5, rel=0.01)


def test_quartiles_are_images_values_and_none_is_the_largest():
  values = find_quartiles([None, 3.0, 1.0, None])
  assert values == {"q1": 1, "median": 3, "q3": math.inf}

"""The lmbda at which noise becomes noticeable."""

import math
from collections.abc import Callable

_LMBDA_PRECISION = 1.01

_LARGEST_LMBDA = 2.0**20


def find_lmbda(measure: Callable[[float], float], *, distance: float) -> float | None:
  """The lmbda at which what grows with it reaches a value, to 1 %.

  Args:
    measure: Such as a distance of Butteraugli, of the noise of a lmbda.
    distance: The value, above 0.

  Returns:
    The lmbda; None if even one of 2^20 does not reach the value.
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

"""Butteraugli's program: what it prints, and how it fails."""

from collections.abc import Callable

import numpy as np
import pytest

from hvsjnd_jax.evaluation.butteraugli_program import (
  ButteraugliError,
  butteraugli,
  find_butteraugli,
)
from tests.support.comparisons import SAYS, add, fake, jnd, pixels

__all__ = ["fake", "jnd", "pixels"]  # fixtures


def test_butteraugli_is_parsed(fake: Callable[[str], str], pixels: np.ndarray):
  distances = butteraugli(fake(SAYS), pixels, pixels)
  assert distances == {"butteraugli_3norm": 1.5, "butteraugli_max": 3.25}


@pytest.mark.parametrize(
  ("script", "reason"),
  [
    ("echo sRGB >&2; echo no >&2; exit 3", "butteraugli_main ended with 3: no"),
    ("echo nan", "expected a number and '3-norm: x', got 'nan'"),
    ("", "expected a number and '3-norm: x', got ''"),
  ],
)
def test_butteraugli_fails(
  fake: Callable[[str], str], pixels: np.ndarray, script: str, reason: str
):
  with pytest.raises(ButteraugliError, match=reason):
    butteraugli(fake(script), pixels, pixels)


@pytest.mark.skipif(find_butteraugli() is None, reason="butteraugli_main is not installed")
def test_butteraugli_itself(pixels: np.ndarray, jnd: np.ndarray):
  program = find_butteraugli()
  assert program is not None
  assert set(butteraugli(program, pixels, pixels).values()) == {0}
  weak, strong = (butteraugli(program, add(pixels, jnd, db).pixels, pixels) for db in (40, 25))
  for norm in weak:
    assert 0 < weak[norm] < strong[norm]

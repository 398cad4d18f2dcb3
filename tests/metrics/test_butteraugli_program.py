"""Butteraugli against libjxl's program, on pictures as the commands score them."""

from pathlib import Path

import numpy as np
import pytest

from hvsjnd_jax.evaluation import comparison
from tests.support.butteraugli_program import PROGRAM, run_butteraugli
from tests.support.comparisons import add, jnd, pixels

__all__ = ["jnd", "pixels"]  # fixtures

# The program prints ten digits, of float32 sums; its sRGB curve is an approximation.
PROGRAM_TOLERANCE = 1e-4


@pytest.mark.skipif(PROGRAM is None, reason="butteraugli_main is not installed")
@pytest.mark.parametrize("db", [40, 25])
def test_scores_are_those_of_the_program(
  tmp_path: Path, pixels: np.ndarray, jnd: np.ndarray, db: float
):
  noisy = add(pixels, jnd, db).pixels
  wanted = run_butteraugli(noisy, pixels, tmp_path)
  scores = comparison.score(noisy, pixels, metrics=tuple(wanted))
  for name, distance in wanted.items():
    assert distance > 0
    assert scores[name] == pytest.approx(distance, rel=PROGRAM_TOLERANCE)

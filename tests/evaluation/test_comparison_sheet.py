"""The sheet of a comparison: which part of an image it shows."""

import numpy as np
import pytest

from hvsjnd_jax.evaluation import comparison_sheet


def test_crop_is_where_the_models_differ_most():
  pixels = np.full((300, 400, 3), 100, np.uint8)
  strong = pixels.copy()
  strong[100:260, 200:360] += 8
  both = {"a": pixels + np.uint8(2), "b": strong + np.uint8(2)}
  difference, rows, columns = comparison_sheet.find_difference(pixels, both)
  assert (difference, rows, columns) == (pytest.approx(8), slice(100, 260), slice(200, 360))
  difference, rows, columns = comparison_sheet.find_difference(
    pixels[:50, :70], {"a": strong[:50, :70]}
  )
  assert (difference, rows, columns) == (0, slice(0, 50), slice(0, 70))

"""Colour maps and the sheet."""

import numpy as np
import pytest
from PIL import ImageFont

from hvsjnd_jax.viz import sheets


def test_jet_runs_from_blue_over_green_to_red():
  values = np.array([[0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1]])
  np.testing.assert_array_equal(
    sheets.jet(values)[0],
    [
      (0, 0, 128),
      (0, 0, 255),
      (0, 128, 255),
      (0, 255, 255),
      (128, 255, 128),
      (255, 255, 0),
      (255, 128, 0),
      (255, 0, 0),
      (128, 0, 0),
    ],
  )


def test_visible_jnd_brightens_and_tells_by_how_much():
  jnd = np.full((20, 30, 3), 0.002, np.float32)
  jnd[:10] = 0.004
  jnd[0, 0, 0] = 1  # one outlier does not darken the rest
  picture, white = sheets.visible_jnd(jnd)
  assert white == pytest.approx(0.004)
  assert picture.dtype == np.uint8
  assert (picture[:10] == 255).all()
  assert (picture[10:] == 128).all()


def test_visible_jnd_of_no_jnd_is_black():
  picture, _ = sheets.visible_jnd(np.zeros((8, 8, 3), np.float32))
  assert not picture.any()


COLORS = ((255, 0, 0), (0, 200, 0), (0, 0, 255), (255, 200, 0))


def _panels(height: int, width: int, caption: str = "caption") -> list:
  return [(caption, np.full((height, width, 3), color, np.uint8)) for color in COLORS]


@pytest.mark.parametrize(
  ("height", "width", "scale"), [(40, 100, 5), (290, 270, 1), (560, 300, 1), (900, 1120, 0.5)]
)
def test_sheet_holds_every_panel_at_its_size(height: int, width: int, scale: float):
  sheet = sheets.sheet(_panels(height, width))
  size = (scale * height, scale * width)
  assert sheet.dtype == np.uint8
  corners = []
  for color in COLORS:
    rows, columns = np.nonzero((sheet == color).all(axis=-1))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1, len(rows)) == (*size, size[0] * size[1])
    corners.append((rows[0], columns[0]))
  (top, left), (bottom, right) = corners[0], corners[3]
  assert corners == [(top, left), (top, right), (bottom, left), (bottom, right)]


def test_small_panels_show_whole_pixels():
  pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 3), np.uint8)
  sheet = sheets.sheet([("caption", pixels)])
  enlarged = pixels.repeat(28, axis=0).repeat(28, axis=1)  # 560 pixels at most
  top, left = 12 + 34, 12
  np.testing.assert_array_equal(sheet[top : top + 560, left : left + 448], enlarged)


@pytest.mark.parametrize(
  ("height", "width"), [(8, 8), (8, 3000), (3000, 8), (900, 600)], ids=lambda side: str(side)
)
def test_sheet_stays_small_whatever_the_images_shape(height: int, width: int):
  rows, columns, _ = sheets.sheet(_panels(height, width)).shape
  assert rows < 1300
  assert columns < 1300


def test_captions_do_not_run_into_each_other():
  caption = "JND map, brightened: white is 12.34 gray levels"
  sheet = sheets.sheet(_panels(300, 16, caption))
  needed = ImageFont.load_default(18).getlength(caption)
  ink = np.flatnonzero((sheet[:40] < 128).all(axis=-1).any(axis=0))
  gap = np.diff(ink).max()
  assert sheet.shape[1] > 2 * needed
  assert gap >= 8, "white between the captions of one row"

"""A picture of a comparison: crops of images beside every model's noisy copy."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from hvsjnd_jax.evaluation.comparison import Comparison
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.viz import sheets

CROP_PX = 160

_MOST_CROPS = 4


class Crop(NamedTuple):
  """Part of an image with its caption, and after it the same part of every model's copy.

  Attributes:
    difference: As `find_difference`.
    panels: Captions and pictures.
  """

  difference: float
  panels: list[tuple[str, Pixels]]


def crop(name: str, pixels: Pixels, compared: Comparison) -> Crop:
  """Crops an image and its noisy copies where the models differ most."""
  difference, rows, columns = find_difference(pixels, compared.noisy["channels"])
  panels = [(f"{name} (scores: of the whole)", pixels[rows, columns].copy())]
  for model, noisy in compared.noisy["channels"].items():
    distance = compared.scores["channels"][model].get("butteraugli_3norm")
    note = "" if distance is None else f": butteraugli {distance:.2f}"
    panels.append((f"{model}{note}", noisy[rows, columns].copy()))
  return Crop(difference, panels)


def select_crops(crops: Sequence[Crop]) -> list[Crop]:
  """Selects the four crops in which the models differ most."""
  return sorted(crops, key=lambda crop: -crop.difference)[:_MOST_CROPS]


def draw_sheet(crops: Sequence[Crop]) -> Pixels:
  """Draws crops, one in each row; there must be one."""
  panels = [panel for crop in crops for panel in crop.panels]
  return sheets.sheet(panels, columns=len(crops[0].panels), panel_px=CROP_PX * 2)


def find_difference(pixels: Pixels, noisy: Mapping[str, Pixels]) -> tuple[float, slice, slice]:
  """Finds the crop of 160x160 in which the models' noise differs most in strength.

  Args:
    pixels: The image; one with a shorter side gives a smaller crop.
    noisy: Each model's copy.

  Returns:
    The difference between the strongest and the weakest noise there, in gray levels (of a
    single model: its noise), and the crop's rows and columns.
  """
  height, width = (min(side, CROP_PX) for side in pixels.shape[:2])
  strengths = [_measure_strength(pixels, copy, height, width) for copy in noisy.values()]
  if len(strengths) == 1:
    strengths.append(np.zeros_like(strengths[0]))
  spread = np.ptp(strengths, axis=0)
  top, left = map(int, np.unravel_index(np.argmax(spread), spread.shape))
  return float(spread.max()), slice(top, top + height), slice(left, left + width)


def _measure_strength(
  pixels: Pixels, noisy: Pixels, height: int, width: int
) -> Float[np.ndarray, "top left"]:
  """Computes the RMS of the noise in every crop of this size, by sums over rectangles."""
  change = noisy.astype(np.float32) - pixels
  sums = np.square(change).mean(axis=-1, dtype=np.float64).cumsum(axis=0).cumsum(axis=1)
  sums = np.pad(sums, ((1, 0), (1, 0)))
  boxes = sums[height:] - sums[:-height]
  boxes = boxes[:, width:] - boxes[:, :-width]
  return np.sqrt(np.maximum(boxes, 0) / (height * width))

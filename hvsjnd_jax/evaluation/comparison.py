"""How visible JND models' noise is at one PSNR: scores, means, shares and tables.

All models' noise has the same signs and the same PSNR, so that what differs is where a model
puts it. Two cases: "channels", each of R, G and B having the PSNR; and "total", the three
together having it, split among them as the model's map does.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from hvsjnd_jax.evaluation import scores
from hvsjnd_jax.evaluation.butteraugli_program import ButteraugliError, butteraugli
from hvsjnd_jax.evaluation.estimators import Model
from hvsjnd_jax.evaluation.scores import Figures
from hvsjnd_jax.evaluation.tables import BETTER, Scores
from hvsjnd_jax.metrics import METRICS
from hvsjnd_jax.noise import draw_signs
from hvsjnd_jax.noise_scale import UnreachableError, scale_to_psnr
from hvsjnd_jax.ops.types import Pixels

Case = Literal["channels", "total"]

CASES: tuple[Case, ...] = ("channels", "total")

CROP_PX = 160

_LIBRARY = tuple(name for name in BETTER if name in METRICS)


class Compared(NamedTuple):
  """What the models' noise does to one image.

  Attributes:
    scores: By case and model; a model that failed is left out.
    noisy: The pictures of the case "channels", by model.
    errors: Model and reason of each failure.
  """

  scores: dict[Case, Scores]
  noisy: dict[str, Pixels]
  errors: list[tuple[str, str]]


def compare(
  pixels: Pixels,
  models: Mapping[str, Model],
  *,
  psnr_db: float,
  seed: int,
  program: str | None,
) -> Compared:
  """Adds every model's noise to an image, and scores it.

  Args:
    pixels: The image.
    models: By name.
    psnr_db: What the noise has, in both cases.
    seed: Of the noise's signs.
    program: As `score`.
  """
  signs = draw_signs(pixels, seed=seed)
  compared = Compared({case: {} for case in CASES}, {}, [])
  for name, model in models.items():
    jnd = model(pixels)
    for case in CASES:
      try:
        noisy, scale = scale_to_psnr(
          pixels, jnd, signs, psnr_db=psnr_db, by_channel=case == "channels"
        )
        scores = score(noisy, pixels, program=program)
      except (UnreachableError, ButteraugliError) as error:
        if (name, str(error)) not in compared.errors:
          compared.errors.append((name, str(error)))
        continue
      scales = dict(zip(("scale_r", "scale_g", "scale_b"), scale, strict=True))
      compared.scores[case][name] = scores | scales
      if case == "channels":
        compared.noisy[name] = noisy
  return compared


def score(noisy: Pixels, reference: Pixels, *, program: str | None) -> Figures:
  """PSNR in all its figures, SSIM, MS-SSIM, GMSD, FSIM, and Butteraugli.

  Args:
    noisy: An image.
    reference: Same shape.
    program: What `find_butteraugli` gave; None leaves Butteraugli out.

  Returns:
    The figures; None for a metric whose smallest size the image does not have.

  Raises:
    ButteraugliError: If the program fails.
  """
  distorted, original = (image.astype(np.float32) / 255 for image in (noisy, reference))
  measured = scores.measure(distorted, original, ("psnr", *_LIBRARY), backbones={})
  if program is not None:
    measured |= butteraugli(program, noisy, reference)
  return measured


def select_common(images: Sequence[Scores]) -> list[Scores]:
  """The images whose scores can be averaged: those that every model has.

  A model that has none of the images does not count.
  """
  names = set().union(*images)
  return [scores for scores in images if scores.keys() == names]


def average(images: Sequence[Scores]) -> Scores:
  """Each model's mean figures, over the images that every model has."""
  common = select_common(images)
  names = common[0] if common else ()
  return {name: scores.average([scores[name] for scores in common]) for name in names}


def count_wins(images: Sequence[Scores], first: str) -> Scores:
  """On which share of the images the first model is better than each other one.

  Args:
    images: Scores of each.
    first: The model's name.

  Returns:
    By the other's name and the metric, over the images that both have; None without any.
  """
  others = dict.fromkeys(name for scores in images for name in scores if name != first)
  shares: Scores = {}
  for other in others:
    gains = [
      _subtract(scores[first], scores[other])
      for scores in images
      if scores.keys() >= {first, other}
    ]
    wins: list[Figures] = [
      {name: None if gain is None else float(gain > 0) for name, gain in record.items()}
      for record in gains
    ]
    shares[other] = scores.average(wins)
  return shares


def gain_by_split(channels: Sequence[Scores], total: Sequence[Scores]) -> Scores:
  """What a model's own split gains: the mean of "total" less "channels", + being better."""
  return average(
    [
      {name: _subtract(own[name], equal[name]) for name in own if name in equal}
      for equal, own in zip(channels, total, strict=True)
    ]
  )


def _subtract(ours: Figures, theirs: Figures) -> Figures:
  """By how much each score is better."""
  gains: Figures = {}
  for name, better in BETTER.items():
    if name in ours:
      a, b = ours[name], theirs[name]
      gains[name] = None if a is None or b is None else (a - b if better == "higher" else b - a)
  return gains


def find_difference(pixels: Pixels, noisy: Mapping[str, Pixels]) -> tuple[float, slice, slice]:
  """The crop of 160x160 in which the models' noise differs most in strength.

  Args:
    pixels: The image; one with a shorter side gives a smaller crop.
    noisy: Each model's copy.

  Returns:
    The difference between the strongest and the weakest noise there, in gray levels (of one
    model: its noise), and the crop's rows and columns.
  """
  height, width = (min(side, CROP_PX) for side in pixels.shape[:2])
  strengths = []
  for copy in noisy.values():
    change = copy.astype(np.float32) - pixels
    sums = np.square(change).mean(axis=-1, dtype=np.float64).cumsum(axis=0).cumsum(axis=1)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    boxes = sums[height:] - sums[:-height]
    boxes = boxes[:, width:] - boxes[:, :-width]
    strengths.append(np.sqrt(np.maximum(boxes, 0) / (height * width)))
  if len(strengths) == 1:
    strengths.append(np.zeros_like(strengths[0]))
  spread = np.ptp(strengths, axis=0)
  top, left = map(int, np.unravel_index(np.argmax(spread), spread.shape))
  return float(spread.max()), slice(top, top + height), slice(left, left + width)

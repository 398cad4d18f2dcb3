"""Compares JND models by how visible their noise is at one PSNR.

All models' noise has the same signs and the same PSNR, so that what differs is where a model
puts it. There are two cases: in "channels" each of R, G and B has the PSNR; in "total" the
three together have it, split among them as in the model's map.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from hvsjnd_jax.evaluation import scores
from hvsjnd_jax.evaluation.butteraugli_program import ButteraugliError, butteraugli
from hvsjnd_jax.evaluation.estimators import Estimator
from hvsjnd_jax.evaluation.scores import ImageScores, ScoreTable
from hvsjnd_jax.evaluation.tables import BETTER
from hvsjnd_jax.metrics import METRICS
from hvsjnd_jax.noise import draw_signs
from hvsjnd_jax.noise_scale import UnreachableError, scale_to_psnr
from hvsjnd_jax.ops.types import Pixels

Case = Literal["channels", "total"]

CASES: tuple[Case, ...] = ("channels", "total")

_LIBRARY = tuple(name for name in BETTER if name in METRICS)


class Comparison(NamedTuple):
  """What the models' noise does to one image.

  Attributes:
    scores: By case and model; a model that failed is left out.
    noisy: The pictures of the case "channels", by model.
    errors: The model and the reason of each failure.
  """

  scores: dict[Case, ScoreTable]
  noisy: dict[str, Pixels]
  errors: list[tuple[str, str]]


def compare(
  pixels: Pixels,
  estimators: Mapping[str, Estimator],
  *,
  psnr_db: float,
  seed: int,
  program: str | None,
) -> Comparison:
  """Adds every model's noise to an image, and scores it.

  Args:
    pixels: The image.
    estimators: What draws each model's JND map, by the model's name.
    psnr_db: The PSNR of the noise, in both cases.
    seed: The seed of the noise's signs.
    program: As `score`.
  """
  signs = draw_signs(pixels, seed=seed)
  compared = Comparison({case: {} for case in CASES}, {}, [])
  for name, estimator in estimators.items():
    jnd = estimator(pixels)
    for case in CASES:
      try:
        noisy, scale = scale_to_psnr(
          pixels, jnd, signs, psnr_db=psnr_db, by_channel=case == "channels"
        )
        measured = score(noisy, pixels, program=program)
      except (UnreachableError, ButteraugliError) as error:
        if (name, str(error)) not in compared.errors:
          compared.errors.append((name, str(error)))
        continue
      scales = dict(zip(("scale_r", "scale_g", "scale_b"), scale, strict=True))
      compared.scores[case][name] = measured | scales
      if case == "channels":
        compared.noisy[name] = noisy
  return compared


def score(noisy: Pixels, reference: Pixels, *, program: str | None) -> ImageScores:
  """Scores a noisy picture: all four of PSNR, and every metric in `BETTER`.

  Args:
    noisy: The picture.
    reference: The image, of the same shape.
    program: What `find_butteraugli` returned; None leaves Butteraugli out.

  Returns:
    The scores; None for a metric that the image is too small for.

  Raises:
    ButteraugliError: If the program fails.
  """
  distorted, original = (image.astype(np.float32) / 255 for image in (noisy, reference))
  measured = scores.measure(distorted, original, ("psnr", *_LIBRARY), backbones={})
  if program is not None:
    measured |= butteraugli(program, noisy, reference)
  return measured


class Summary(NamedTuple):
  """What the scores of many images say in one case.

  Attributes:
    mean: Each model's mean scores, over the images that every model has.
    first_better: As `count_wins`.
  """

  mean: ScoreTable
  first_better: ScoreTable


def summarize(images: Sequence[ScoreTable], first: str) -> Summary:
  """Summarizes the scores of many images in one case, the first model against the others."""
  return Summary(average(images), count_wins(images, first))


def select_common(images: Sequence[ScoreTable]) -> list[ScoreTable]:
  """Selects the images whose scores can be averaged: those that every model has.

  A model that has none of the images does not count.
  """
  names = set().union(*images)
  return [table for table in images if table.keys() == names]


def average(images: Sequence[ScoreTable]) -> ScoreTable:
  """Averages each model's scores over the images that every model has."""
  common = select_common(images)
  names = common[0] if common else ()
  return {name: scores.average([table[name] for table in common]) for name in names}


def count_wins(images: Sequence[ScoreTable], first: str) -> ScoreTable:
  """Counts on which share of the images the first model is better than each other one.

  Args:
    images: The scores of each image.
    first: The name of the model.

  Returns:
    By the other's name and the metric, the share of the images that both have; None if there
    are none.
  """
  others = dict.fromkeys(name for table in images for name in table if name != first)
  shares: ScoreTable = {}
  for other in others:
    both = [table for table in images if table.keys() >= {first, other}]
    gains = [_subtract(table[first], table[other]) for table in both]
    wins: list[ImageScores] = [
      {name: None if gain is None else float(gain > 0) for name, gain in scores.items()}
      for scores in gains
    ]
    shares[other] = scores.average(wins)
  return shares


def gain_by_split(channels: Sequence[ScoreTable], total: Sequence[ScoreTable]) -> ScoreTable:
  """Averages what a model's own split gains: "total" less "channels", + being better."""
  return average(
    [
      {name: _subtract(own[name], equal[name]) for name in own if name in equal}
      for equal, own in zip(channels, total, strict=True)
    ]
  )


def _subtract(ours: ImageScores, theirs: ImageScores) -> ImageScores:
  """Returns by how much each of our scores is the better one."""
  gains: ImageScores = {}
  for name, better in BETTER.items():
    if name in ours:
      a, b = ours[name], theirs[name]
      gains[name] = None if a is None or b is None else (a - b if better == "higher" else b - a)
  return gains

"""How visible JND models' noise is at one PSNR: scores, means, shares and tables.

All models' noise has the same signs and the same PSNR, so that what differs is where a model
puts it. Two cases: "channels", each of R, G and B having the PSNR; and "total", the three
together having it, split among them as the model's map does.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from hvsjnd_jax import figures
from hvsjnd_jax.butteraugli import ButteraugliError, butteraugli
from hvsjnd_jax.figures import PSNR_FIGURES, Figures
from hvsjnd_jax.images import Pixels
from hvsjnd_jax.metrics import METRICS
from hvsjnd_jax.models import Model
from hvsjnd_jax.noise import UnreachableError, draw_signs, scale_to_psnr

Case = Literal["channels", "total"]
Better = Literal["higher", "lower"]
CASES: tuple[Case, ...] = ("channels", "total")
# Of one image, or a mean, by the model's name.
Scores = dict[str, Figures]

# Which of two scores is the better one; PSNR is given, not scored.
BETTER: dict[str, Better] = {
  **{name: METRICS[name].better for name in ("ssim", "ms_ssim", "gmsd", "fsim")},
  "butteraugli_3norm": "lower",
  "butteraugli_max": "lower",
}
CROP_PX = 160
_LMBDA_PRECISION = 1.01
_LARGEST_LMBDA = 2.0**20
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
  measured = figures.measure(distorted, original, ("psnr", *_LIBRARY), backbones={})
  if program is not None:
    measured |= butteraugli(program, noisy, reference)
  return measured


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
  return {name: figures.average([scores[name] for scores in common]) for name in names}


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
    shares[other] = figures.average(wins)
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


def name_too_small(images: Sequence[Figures]) -> list[str]:
  """A line for each metric that some images are too small for, of the figures of each."""
  lines = []
  for name, metric in METRICS.items():
    if count := sum(name in figures and figures[name] is None for figures in images):
      least = f"{metric.smallest_px}x{metric.smallest_px}"
      lines.append(
        f"{name}: {count} of {len(images)} images are smaller than the {least} that it needs"
      )
  return lines


class Column(NamedTuple):
  """How a table shows a figure.

  Attributes:
    figure: Its name.
    title: Lines above the column.
    form: As of `str.format`.
    best: Which is marked, if any.
  """

  figure: str
  title: tuple[str, ...]
  form: str
  best: Better | None = None


CHANNEL_PSNR, TOTAL_PSNR = PSNR_FIGURES[:3], PSNR_FIGURES[3:]
_TITLES: dict[str, tuple[str, ...]] = {
  **{name: ("PSNR", name[-1].upper()) for name in CHANNEL_PSNR},
  "psnr": ("PSNR",),
  "butteraugli_3norm": ("butteraugli", "3-norm"),
  "butteraugli_max": ("butteraugli", "max"),
}


def list_columns(
  rows: Scores, *, kind: Literal["score", "value", "gain", "share"], psnr: Sequence[str] = ()
) -> list[Column]:
  """The columns for the figures that the rows have.

  Args:
    rows: What the table will show.
    kind: Of figures: scores, whose better direction is told, and whose best is marked, or
      not ("value"); what is gained, with a sign; or shares of images, in percent.
    psnr: Those that come first: `CHANNEL_PSNR` or `TOTAL_PSNR`.
  """
  columns = [Column(name, _TITLES[name], "{:.2f}") for name in psnr]
  known = set().union(*rows.values())
  for name, better in BETTER.items():
    if name in known:
      digits = 3 if name in _TITLES else 4
      form = {"gain": f"{{:+z.{digits}f}}", "share": "{:.0%}"}.get(kind, f"{{:.{digits}f}}")
      title = _TITLES.get(name, (name,))
      if kind in ("score", "value"):
        title = (*title, better)
      columns.append(Column(name, title, form, better if kind == "score" else None))
  return columns


def tabulate(rows: Scores, columns: Sequence[Column], *, head: str = "model") -> str:
  """A line for each row; the best of a column bears an asterisk, "-" stands for None."""
  height = max(len(column.title) for column in columns)
  table = [[""] * (height - 1) + [head, *rows]]
  for column in columns:
    values = [figures[column.figure] for figures in rows.values()]
    known = [value for value in values if value is not None]
    best = None
    if column.best is not None and known:
      best = max(known) if column.best == "higher" else min(known)
    cells = [
      "- " if value is None else column.form.format(value) + (" ", "*")[value == best]
      for value in values
    ]
    # Titles stand on the rows; the last place is the asterisk's.
    title = [""] * (height - len(column.title)) + [f"{line} " for line in column.title]
    table.append(title + cells)
  widths = [max(map(len, cells)) for cells in table]
  lines = []
  for names, *cells in zip(*table, strict=True):
    padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
    lines.append(" ".join([names.ljust(widths[0]), *padded]).rstrip())
  return "\n".join(lines)

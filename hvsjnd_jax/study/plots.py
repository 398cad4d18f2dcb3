"""Plots of a study's psychometric functions and thresholds."""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hvsjnd_jax.data.atomic import whole_file
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.study.analysis import Analysis, Threshold

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

_INCHES, _DPI = 4.2, 150

# Okabe and Ito's colours, which dichromats tell apart.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

# Image names are left out where they would overlap.
_MOST_NAMES = 40


class PlotError(HVSJNDError):
  """Plots are wanted, and matplotlib is not installed."""


def check_matplotlib() -> None:
  """Raises PlotError if there is no matplotlib."""
  try:
    import matplotlib.figure  # noqa: F401
  except ImportError:
    raise PlotError("plots need matplotlib: pip install 'hvsjnd_jax[study]'") from None


def draw_plots(analysis: Analysis, folder: Path) -> None:
  """Writes psychometric.png and thresholds.png to the folder."""
  for name, figure in (
    ("psychometric.png", _draw_functions(analysis)),
    ("thresholds.png", _draw_thresholds(analysis)),
  ):
    with whole_file(folder / name) as partial, warnings.catch_warnings():
      warnings.filterwarnings("ignore", "Glyph")  # of names in scripts that the font lacks
      figure.savefig(partial, format="png", dpi=_DPI)


def _make_figure(width: float, height: float) -> "Figure":
  from matplotlib.figure import Figure  # takes half a second, and only plots need it

  return Figure(figsize=(width, height), layout="constrained")


def _draw_functions(analysis: Analysis) -> "Figure":
  """Draws each model's answers and function, and thinly those of its images."""
  models = list(analysis.pooled)
  columns = min(len(models), 3)
  rows = math.ceil(len(models) / columns)
  figure = _make_figure(_INCHES * columns, 0.85 * _INCHES * rows)
  for place, (model, color) in enumerate(zip(models, _cycle(), strict=False)):
    axes = figure.add_subplot(rows, columns, place + 1)
    found = analysis.pooled[model]
    lmbdas = found.counts.lmbdas
    fine = np.geomspace(lmbdas.min() / 1.3, lmbdas.max() * 1.3, 200)
    for image in analysis.images[model].values():
      axes.plot(fine, image.fit.probability(fine), color="0.75", linewidth=0.7, zorder=1)
    axes.plot(fine, found.fit.probability(fine), color=color, linewidth=2, zorder=3)
    _draw_answers(axes, found, color)
    if not found.beyond:
      axes.axvspan(found.low, found.high, color=color, alpha=0.15, linewidth=0)
      axes.axvline(found.lmbda, color=color, linewidth=1, linestyle="--")
    axes.axhline(0.75, color="0.5", linewidth=0.7, linestyle=":")
    axes.set(
      title=f"{_plain(model)}: {describe_threshold(found)}",
      xlabel="lmbda",
      ylabel="right answers",
      ylim=(0.4, 1.02),
      xlim=(fine[0], fine[-1]),
    )
    _scale(axes, lmbdas)
  return figure


def describe_threshold(found: Threshold) -> str:
  """Returns a threshold and its interval, or on which side of the lmbdas shown it lies."""
  if found.beyond:
    return f"{'<' if found.beyond == 'below' else '>'} {_end(found):g}"
  return f"{found.lmbda:.3g} [{found.low:.3g}, {found.high:.3g}]"


def _end(found: Threshold) -> float:
  """Returns the lmbda, of those that were shown, beyond which the threshold lies."""
  counts = found.counts
  shown = counts.lmbdas[(counts.right + counts.wrong).sum(axis=0) > 0]
  return float(shown.min() if found.beyond == "below" else shown.max())


def _draw_answers(axes: "Axes", found: Threshold, color: str) -> None:
  """Draws the share of right answers, with Wilson's 95 % interval, and how many there were."""
  right, shown = (
    part.sum(axis=0) for part in (found.counts.right, found.counts.right + found.counts.wrong)
  )
  seen = shown > 0
  lmbdas, right, shown = found.counts.lmbdas[seen], right[seen], shown[seen]
  share, z = right / shown, 1.96
  middle = (share + z**2 / (2 * shown)) / (1 + z**2 / shown)
  reach = z / (1 + z**2 / shown) * np.sqrt(share * (1 - share) / shown + (z / (2 * shown)) ** 2)
  ends = np.abs([middle - reach - share, middle + reach - share])
  axes.errorbar(lmbdas, share, ends, fmt="none", ecolor=color, elinewidth=1, zorder=2)
  axes.scatter(lmbdas, share, s=10 + 50 * shown / shown.max(), color=color, zorder=4)


def _draw_thresholds(analysis: Analysis) -> "Figure":
  """Draws the threshold of each image, a colour for each model, and the pooled ones below."""
  names = list(next(iter(analysis.images.values())))
  rows = [*names, "all images"]
  figure = _make_figure(1.6 * _INCHES, 1.4 + 0.28 * min(len(rows), 60))
  axes = figure.add_subplot()
  models = len(analysis.pooled)
  for m, (model, color) in enumerate(zip(analysis.pooled, _cycle(), strict=False)):
    shift = (m - (models - 1) / 2) * 0.6 / max(models, 2)
    for y, name in enumerate(rows):
      found = analysis.pooled[model] if y == len(names) else analysis.images[model][name]
      label = _plain(model) if y == len(names) else None
      if found.beyond:
        mark = "<" if found.beyond == "below" else ">"
        axes.scatter(_end(found), y + shift, color=color, marker=mark, label=label)
        continue
      axes.plot([found.low, found.high], [y + shift] * 2, color=color, linewidth=1)
      size = 60 if y == len(names) else 20
      axes.scatter(found.lmbda, y + shift, s=size, color=color, marker="o", label=label)
  axes.axhline(len(names) - 0.5, color="0.8", linewidth=0.7)
  few = len(rows) <= _MOST_NAMES
  axes.set_yticks(
    range(len(rows)) if few else [len(names)], [_plain(row) for row in (rows if few else rows[-1:])]
  )
  axes.invert_yaxis()
  axes.set_xlabel("lmbda of 75 % right answers, with 95 % interval")
  _scale(axes, next(iter(analysis.pooled.values())).counts.lmbdas)
  shown = next(iter(analysis.pooled.values())).counts.lmbdas
  axes.set_xlim(shown.min() / 1.3, shown.max() * 1.3)
  figure.legend(loc="outside lower center", ncols=min(models, 4), frameon=False)
  return figure


def _scale(axes: "Axes", lmbdas: np.ndarray) -> None:
  """Makes the lmbda's axis logarithmic, with ticks at some of the lmbdas shown."""
  axes.set_xscale("log")
  ticks = [float(lmbdas[0])]
  for lmbda in map(float, lmbdas[1:]):
    if lmbda >= 1.35 * ticks[-1]:
      ticks.append(lmbda)
  axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
  axes.minorticks_off()


def _plain(name: str) -> str:
  """Keeps matplotlib from reading mathematics in a name."""
  return name.replace("$", r"\$")


def _cycle() -> Iterator[str]:
  while True:
    yield from _COLORS

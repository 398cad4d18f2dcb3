"""Tables of scores, as text."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from hvsjnd_jax.evaluation.scores import CHANNEL_PSNR, ImageScores, ScoreTable
from hvsjnd_jax.metrics import METRICS

Better = Literal["higher", "lower"]

# The metrics that models are judged by, and which of two scores is the better one. PSNR is no
# judge: all models are given the same.
BETTER: dict[str, Better] = {
  name: METRICS[name].better
  for name in (
    *("ssim", "ms_ssim", "gmsd", "fsim"),
    *("butteraugli_3norm", "butteraugli_max", "ssimulacra2", "cvvdp"),
  )
}

_TITLES: dict[str, tuple[str, ...]] = {
  **{name: ("PSNR", name[-1].upper()) for name in CHANNEL_PSNR},
  "psnr": ("PSNR",),
  "butteraugli_3norm": ("butteraugli", "3-norm"),
  "butteraugli_max": ("butteraugli", "max"),
  "cvvdp": ("cvvdp", "JOD"),
}

# How many digits of a score are shown, where it is not four.
DIGITS = {"butteraugli_3norm": 3, "butteraugli_max": 3, "ssimulacra2": 2, "cvvdp": 3}


class Column(NamedTuple):
  """How a table shows a score.

  Attributes:
    score: Its name.
    title: The lines above the column.
    form: A format for `str.format`.
    best: Which score gets the mark, if any.
  """

  score: str
  title: tuple[str, ...]
  form: str
  best: Better | None = None


def list_columns(
  rows: ScoreTable, *, kind: Literal["score", "value", "gain", "share"], psnr: Sequence[str] = ()
) -> list[Column]:
  """Lists the columns for the scores that the rows have.

  Args:
    rows: What the table will show.
    kind: "score": the title names the better direction, and the best score is marked.
      "value": the same without the mark. "gain": differences, with a sign. "share": shares of
      images, in percent.
    psnr: The names of those PSNR that come first.
  """
  columns = [Column(name, _TITLES[name], "{:.2f}") for name in psnr]
  known = set().union(*rows.values())
  for name, better in BETTER.items():
    if name in known:
      digits = DIGITS.get(name, 4)
      form = {"gain": f"{{:+z.{digits}f}}", "share": "{:.0%}"}.get(kind, f"{{:.{digits}f}}")
      title = _TITLES.get(name, (name,))
      if kind in ("score", "value"):
        title = (*title, better)
      columns.append(Column(name, title, form, better if kind == "score" else None))
  return columns


def tabulate(rows: ScoreTable, columns: Sequence[Column], *, head: str = "model") -> str:
  """Lays out a table: an asterisk marks a column's best score, "-" stands for None."""
  height = max(len(column.title) for column in columns)
  table = [[""] * (height - 1) + [head, *rows]]
  table += [_format_column(column, rows, height) for column in columns]
  widths = [max(map(len, cells)) for cells in table]
  lines = []
  for names, *cells in zip(*table, strict=True):
    padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
    lines.append(" ".join([names.ljust(widths[0]), *padded]).rstrip())
  return "\n".join(lines)


def _format_column(column: Column, rows: ScoreTable, height: int) -> list[str]:
  values = [scores[column.score] for scores in rows.values()]
  known = [value for value in values if value is not None]
  best = None
  if column.best is not None and known:
    best = max(known) if column.best == "higher" else min(known)
  cells = [
    "- " if value is None else column.form.format(value) + (" ", "*")[value == best]
    for value in values
  ]
  # The title stands directly above the rows, and leaves room for the asterisk.
  title = [""] * (height - len(column.title)) + [f"{line} " for line in column.title]
  return title + cells


def name_too_small(images: Sequence[ImageScores]) -> list[str]:
  """Returns a line for each metric that some of the images are too small for."""
  lines = []
  for name, metric in METRICS.items():
    if count := sum(name in scores and scores[name] is None for scores in images):
      least = f"{metric.smallest_px}x{metric.smallest_px}"
      lines.append(
        f"{name}: {count} of {len(images)} images are smaller than the {least} that it needs"
      )
  return lines

"""Tables of scores, as text."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from hvsjnd_jax.evaluation.scores import PSNR_FIGURES, Figures
from hvsjnd_jax.metrics import METRICS

Better = Literal["higher", "lower"]

# Of one image, or a mean, by the model's name.
Scores = dict[str, Figures]

# Which of two scores is the better one; PSNR is given, not scored.
BETTER: dict[str, Better] = {
  **{name: METRICS[name].better for name in ("ssim", "ms_ssim", "gmsd", "fsim")},
  "butteraugli_3norm": "lower",
  "butteraugli_max": "lower",
}


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

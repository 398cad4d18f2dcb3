"""Timings, and the tables that show them."""

import dataclasses
import statistics
from collections.abc import Sequence

OURS = "ours"
THEIRS = "torch"  # so begin the names of all of theirs


@dataclasses.dataclass(frozen=True)
class Row:
  """What was run, and how long each contender took, run by run."""

  name: str
  seconds: dict[str, list[float]]
  first_seconds: float | None = None  # of our first run, which compiles; not in `seconds`
  difference: float | None = None  # the largest between ours and theirs
  gflop: float | None = None  # of one run
  machine_gflops: float | None = None  # a second, at best

  def median(self, name: str) -> float | None:
    """Seconds of a contender; None if it did not run."""
    return statistics.median(self.seconds[name]) if name in self.seconds else None

  def summarize(self) -> dict[str, float | None]:
    """How many times as fast as the fastest of theirs, and our rate."""
    ours = statistics.median(self.seconds[OURS])
    theirs = [statistics.median(v) for k, v in self.seconds.items() if k.startswith(THEIRS)]
    rate = None if self.gflop is None else self.gflop / ours
    share = None if rate is None or self.machine_gflops is None else rate / self.machine_gflops
    return {"ratio": min(theirs) / ours, "gflops": rate, "share": share}


def tabulate(rows: Sequence[Row]) -> list[list[str]]:
  """The cells of a table, its heading first, with a column for every contender."""
  names = list(dict.fromkeys(name for row in rows for name in row.seconds))
  cells = [["", *names, "torch/ours", "GFLOP/s", "share", "first s", "differs by"]]
  for row in rows:
    summary = row.summarize()
    cells.append(
      [
        row.name,
        *(_format_seconds(row.median(name)) for name in names),
        _format(summary["ratio"], ".2f"),
        _format(summary["gflops"], ".0f"),
        _format(summary["share"], ".0%"),
        _format(row.first_seconds, ".1f"),
        _format(row.difference, ".0e"),
      ]
    )
  return cells


def _format(figure: float | None, form: str) -> str:
  return "" if figure is None else f"{figure:{form}}"


def _format_seconds(seconds: float | None) -> str:
  if seconds is None:
    return ""
  return f"{1e3 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def align(cells: Sequence[Sequence[str]]) -> str:
  """The table for a terminal: names to the left, figures to the right."""
  first, *others = [max(map(len, column)) for column in zip(*cells, strict=True)]
  lines = ["  ".join([row[0].ljust(first), *map(str.rjust, row[1:], others)]) for row in cells]
  return "\n".join(lines)


def to_markdown(cells: Sequence[Sequence[str]]) -> str:
  """The table for a README."""
  heading, *lines = [f"| {' | '.join(row)} |" for row in cells]
  return "\n".join([heading, "| --- |" + " ---: |" * (len(cells[0]) - 1), *lines])

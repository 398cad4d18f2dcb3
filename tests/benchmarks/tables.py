"""Timings of the contenders, and the tables that show them."""

import dataclasses
import statistics
import sys
from collections.abc import Sequence

OURS = "ours"
THEIRS = "torch"  # the names of all PyTorch contenders begin with it


@dataclasses.dataclass(frozen=True)
class Row:
  """One benchmark, and how long each contender needed in each run."""

  name: str
  seconds: dict[str, list[float]]
  first_seconds: float | None = None  # our first run, which compiles; not in `seconds`
  difference: float | None = None  # the largest difference between our results and theirs
  gflop: float | None = None  # the arithmetic of one run
  machine_gflops: float | None = None  # the machine's best rate a second

  def median(self, name: str) -> float | None:
    """Returns the median seconds of a contender; None if it did not run."""
    return statistics.median(self.seconds[name]) if name in self.seconds else None

  def summarize(self) -> dict[str, float | None]:
    """Computes our speed relative to the fastest of theirs, our rate, and its share."""
    ours = statistics.median(self.seconds[OURS])
    theirs = [statistics.median(v) for k, v in self.seconds.items() if k.startswith(THEIRS)]
    rate = None if self.gflop is None else self.gflop / ours
    share = None if rate is None or self.machine_gflops is None else rate / self.machine_gflops
    return {"ratio": min(theirs) / ours, "gflops": rate, "share": share}


def tabulate(rows: Sequence[Row]) -> list[list[str]]:
  """Makes the cells of a table, heading first, with a column for every contender."""
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
  """Formats a table for a terminal: names to the left, numbers to the right."""
  first, *others = [max(map(len, column)) for column in zip(*cells, strict=True)]
  lines = ["  ".join([row[0].ljust(first), *map(str.rjust, row[1:], others)]) for row in cells]
  return "\n".join(lines)


def to_markdown(cells: Sequence[Sequence[str]]) -> str:
  """Formats a table as Markdown."""
  heading, *lines = [f"| {' | '.join(row)} |" for row in cells]
  return "\n".join([heading, "| --- |" + " ---: |" * (len(cells[0]) - 1), *lines])


def say(text: str) -> None:
  """Prints the progress, on stderr."""
  print(text, file=sys.stderr, flush=True)

"""Writes what a stage's run leaves to look at: metrics and sheets, also for TensorBoard."""

import json
import tempfile
from pathlib import Path
from typing import Self

from tensorboardX import SummaryWriter

from hvsjnd_jax.data.atomic import whole_file
from hvsjnd_jax.data.images import write_png
from hvsjnd_jax.data.lines import open_lines, read_lines
from hvsjnd_jax.data.paths import PathError, is_remote, make_folder
from hvsjnd_jax.ops.types import Pixels


class MetricWriter:
  """Writes metrics.jsonl, sheets/ and tensorboard/ in a stage's folder.

  A run that goes on from a checkpoint first removes the rows that were written after it.

  Args:
    folder: The stage's folder.
    step: The step that the run goes on from.
  """

  def __init__(self, folder: Path, *, step: int):
    self._sheets = folder / "sheets"
    make_folder(self._sheets)
    file = folder / "metrics.jsonl"
    if file.exists():
      with whole_file(file) as partial:
        partial.write_text("".join(_read_rows(file, step)))
    self._file, self._metrics = file, open_lines(file)
    self._boards = folder / "tensorboard"
    # tensorboardX would write to an object store itself, and once more while Python ends.
    self._temporary = tempfile.TemporaryDirectory() if is_remote(folder) else None
    written = self._temporary.name if self._temporary else self._boards
    self._board = SummaryWriter(str(written), purge_step=step + 1)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
    try:
      self._metrics.close()
    except PathError:
      if kind is None:  # else the error that ends the run is told
        raise
    finally:
      self._board.close()
      self._send_board()
      if self._temporary:
        self._temporary.cleanup()

  def write(self, step: int, means: dict[str, float]) -> None:
    """Adds one row."""
    self._metrics.write(json.dumps({"step": step, **means}) + "\n")
    self._metrics.flush()
    for name, value in means.items():
      self._board.add_scalar(name, value, step)

  def keep_rows(self) -> None:
    """Makes sure that all rows are there, before a checkpoint is saved that a run goes on from."""
    self._metrics.close()  # `flush` may leave some for later; see `open_lines`
    self._metrics = open_lines(self._file)

  def write_sheet(self, step: int, sheet: Pixels) -> None:
    """Adds one sheet."""
    write_png(self._sheets / f"{step:07d}.png", sheet)
    self._board.add_image("sheet", sheet, step, dataformats="HWC")
    self._send_board()

  def _send_board(self) -> None:
    """Copies TensorBoard's file to an object store, where none can grow."""
    if self._temporary:
      self._board.flush()
      for file in Path(self._temporary.name).iterdir():
        (self._boards / file.name).write_bytes(file.read_bytes())


def _read_rows(file: Path, last_step: int) -> list[str]:
  """Reads the rows up to a step; a killed run may have left half a row after them."""
  rows = []
  for row in read_lines(file):
    try:
      step = json.loads(row)["step"]
    except ValueError:
      break
    if step <= last_step:
      rows.append(row + "\n")
  return rows

"""Text files that grow by lines while a program runs."""

import io
from pathlib import Path
from time import monotonic
from typing import TextIO

from hvsjnd_jax.data.paths import PathError, is_remote, measure

# An object is written anew with every flush, but no more often than this, nor in more than this
# share of the time.
_PAUSE_SECONDS = 2.0
_LARGEST_SHARE = 0.05


def open_lines(file: Path) -> TextIO:
  """Opens a file to add lines to it, which are there for others after `flush`.

  An object of an object store cannot be added to. It is written anew, with what it held before,
  by the first `flush`, by those that come 2 seconds or more after the last (later, where writing
  takes long), and by `close`. So a process that is killed loses the lines of some seconds. Where
  another process has written the object since, both raise `PathError` and leave it as it is.
  """
  return _GrowingObject(file) if is_remote(file) else file.open("a")


def read_lines(file: Path) -> list[str]:
  """Reads the lines of a file, also where bytes are damaged."""
  return file.read_bytes().decode(errors="replace").splitlines()


class _GrowingObject(io.StringIO):
  """The text of an object, written to it now and then."""

  def __init__(self, file: Path):
    super().__init__()
    self._file = file
    self._sent = -1  # how much of the text is there; -1 where there is no object yet
    self._size = measure(file)  # of the object, as this process knows it
    if self._size is not None:
      self._sent = self.write(file.read_bytes().decode(errors="replace"))
    self._next = -float("inf")

  def flush(self) -> None:
    if monotonic() >= self._next:
      self._send()

  def close(self) -> None:
    # What is there already is not sent again: another run may have gone on with it since.
    try:
      if not self.closed and self.tell() != self._sent:
        self._send()
    finally:
      super().close()

  def _send(self) -> None:
    start = monotonic()
    if measure(self._file) != self._size:
      raise PathError(
        f"{self._file}: another process has written it since, and would lose its lines; "
        "give each process an object of its own"
      )
    data = self.getvalue().encode()
    self._file.write_bytes(data)
    self._sent, self._size = self.tell(), len(data)
    end = monotonic()
    self._next = end + max(_PAUSE_SECONDS, (end - start) / _LARGEST_SHARE)

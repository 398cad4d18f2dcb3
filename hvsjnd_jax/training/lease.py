"""Keeps other runs out of a folder in an object store, which has no locks.

The holder has an object `locks/N` that it writes anew every few seconds. Whoever wants the folder
looks whether the object of the highest number changes; if not, its holder is dead, and `locks/N+1`
is created, which of several who try one alone can. So no clocks are compared. A holder that was
stopped for so long that another took over finds a higher number, or that its own is another's
by now, and ends.
"""

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any, ParamSpec, Self

from hvsjnd_jax.data.paths import create, list_objects
from hvsjnd_jax.training.workdir import TrainError

BEAT_SECONDS = 10.0

# How long an object that does not change counts as held.
PATIENCE_SECONDS = 60.0

_Arguments = ParamSpec("_Arguments")


class Lease:
  """Holds a folder, until it is closed or the process ends.

  Args:
    folder: The folder.

  Raises:
    TrainError: If another run holds it.
  """

  def __init__(self, folder: Path):
    self._folder = folder
    self._token = uuid.uuid4().hex
    self._mine = self._take(self._find_held())
    self._lost = False
    self._beats = 0
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._beat, daemon=True)
    self._thread.start()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def close(self) -> None:
    """Leaves the folder to others."""
    self._ended.set()
    self._thread.join()
    if self._holds():
      self._name(self._mine).unlink(missing_ok=True)

  def checking(self, call: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """Makes a function that first checks that the folder is still held.

    It raises `TrainError` where another run has taken over, because this one gave no sign of life.
    """

    def check_and_call(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
      if self._lost:
        raise TrainError(
          f"another run has taken over {self._folder}, as this one could not be heard of for "
          f"{PATIENCE_SECONDS:g} s; it goes on there"
        )
      call(*args, **kwargs)

    return check_and_call

  def _name(self, number: int) -> Path:
    return self._folder / "locks" / f"{number:06d}"

  def _find_held(self) -> list[int]:
    names = (file.name for file in list_objects(self._folder / "locks"))
    return sorted(int(name) for name in names if name.isdecimal())

  def _take(self, held: list[int]) -> int:
    newest = held[-1] if held else 0
    if newest:
      self._refuse_living(self._name(newest))
    try:
      create(self._name(newest + 1), self._describe(beat=0))
    except FileExistsError:
      raise self._taken("begun at the same moment") from None
    for number in held:
      self._name(number).unlink(missing_ok=True)
    return newest + 1

  def _refuse_living(self, file: Path) -> None:
    """Waits for a sign of life of the one who wrote an object, unless its process is known."""
    found = _read(file)
    if found is None:
      return
    holder = json.loads(found)
    if holder["machine"] == _identify_machine():
      if _identify_process(holder["pid"]) != holder["process"]:
        return
      raise self._taken(f"here, as process {holder['pid']}")
    end = monotonic() + PATIENCE_SECONDS
    while monotonic() < end:
      sleep(min(1.0, PATIENCE_SECONDS / 10))
      now = _read(file)
      if now is None:
        return
      if now != found:
        raise self._taken(f"on {holder['host']}, as process {holder['pid']}")

  def _taken(self, where: str) -> TrainError:
    return TrainError(
      f"another run trains in {self._folder}, {where}: wait for it, or choose another --workdir "
      "(the processes of one run need --multihost)"
    )

  def renew(self) -> None:
    """Gives a sign of life, unless another run has taken over."""
    self._lost = self._lost or not self._holds()
    if not self._lost:
      self._beats += 1
      self._name(self._mine).write_bytes(self._describe(beat=self._beats))

  def _holds(self) -> bool:
    """Looks whether the folder is still this run's; numbers come back, tokens do not."""
    if self._find_held()[-1:] != [self._mine]:
      return False
    found = _read(self._name(self._mine))
    return found is not None and json.loads(found)["token"] == self._token

  def _describe(self, *, beat: int) -> bytes:
    pid = os.getpid()
    holder: dict[str, Any] = {
      "host": socket.gethostname(),
      "pid": pid,
      "machine": _identify_machine(),
      "process": _identify_process(pid),
      "token": self._token,
      "beat": beat,
    }
    return json.dumps(holder).encode()

  def _beat(self) -> None:
    while not self._ended.wait(BEAT_SECONDS):
      with contextlib.suppress(Exception):  # the store may be within reach at the next beat
        self.renew()


def _read(file: Path) -> bytes | None:
  try:
    return file.read_bytes()
  except FileNotFoundError:
    return None


def _identify_machine() -> str:
  """Names what process numbers are unique in; a new name each time where that is not known."""
  try:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
  except OSError:
    return str(uuid.uuid4())


def _identify_process(pid: int) -> str | None:
  """Names a living process of this machine by its number and the time it began."""
  try:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
  except OSError:
    return None
  state, start = fields[0], fields[19]
  return None if state == "Z" else f"{pid} {start}"

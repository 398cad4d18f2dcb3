"""Preemption: a scheduler's SIGTERM, the notice that the machine will be taken away."""

import signal
import threading
from types import FrameType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils


class Preemption:
  """While entered, SIGTERM does not end the program, but makes `reached` true.

  With many processes, JAX's preemption service hears the signal, wherever it arrives, and
  makes all of them stop after the same step. Outside the main thread, which alone can
  handle signals, a single process hears nothing, and SIGTERM ends it as ever.
  """

  def __init__(self):
    self._calls = 0
    self._noticed = False
    self._handler: Any = None

  def __enter__(self) -> Self:
    if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
      self._handler = signal.signal(signal.SIGTERM, self._notice)
    return self

  def __exit__(self, *_: object) -> None:
    if self._handler is not None:
      signal.signal(signal.SIGTERM, self._handler)

  def _notice(self, number: int, frame: FrameType | None) -> None:
    self._noticed = True

  def reached(self) -> bool:
    """Whether to save and stop now. Every process must ask once after each step."""
    self._calls += 1
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(self._calls)
    return self._noticed

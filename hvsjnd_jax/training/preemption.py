"""Preemption: a scheduler's SIGTERM, the notice that the machine will be taken away."""

import signal
import threading
from types import FrameType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

from hvsjnd_jax.ops.errors import HVSJNDError


class PreemptedError(HVSJNDError):
  """SIGTERM ended a run, and everything up to there is saved."""

  status = 128 + signal.SIGTERM  # the command's exit status, 143


class Preemption:
  """Turns SIGTERM, which would end the program, into a notice that `reached` gives.

  With many processes, JAX's preemption service hears the signal, whichever of them it is sent
  to, and makes all of them stop after the same step. Only the main thread can handle
  signals: in any other thread of a single process SIGTERM ends the program as usual.
  """

  def __init__(self):
    self._calls = 0
    self._noticed = False
    self._former_handler: Any = None

  def __enter__(self) -> Self:
    if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
      self._former_handler = signal.signal(signal.SIGTERM, self._notice)
    return self

  def __exit__(self, *_: object) -> None:
    if self._former_handler is not None:
      signal.signal(signal.SIGTERM, self._former_handler)

  def _notice(self, number: int, frame: FrameType | None) -> None:
    self._noticed = True

  def reached(self) -> bool:
    """Returns whether to save and stop now. Every process must ask once after each step."""
    self._calls += 1
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(self._calls)
    return self._noticed

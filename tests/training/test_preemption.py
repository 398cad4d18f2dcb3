"""A scheduler's SIGTERM is noticed, and the program's own handler comes back."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from hvsjnd_jax.training.preemption import Preemption


@pytest.fixture(autouse=True)
def heard() -> Iterator[list[int]]:
  """The signals that the program's own handler hears."""
  signals: list[int] = []
  before = signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
  yield signals
  signal.signal(signal.SIGTERM, before)


def terminate() -> None:
  os.kill(os.getpid(), signal.SIGTERM)


def test_signal_is_noticed(heard: list[int]):
  with Preemption() as preemption:
    assert not preemption.reached()
    terminate()
    assert preemption.reached()
    assert preemption.reached(), "still"
  assert heard == []


def test_handler_comes_back(heard: list[int]):
  def fail() -> None:
    with Preemption():
      raise RuntimeError

  with pytest.raises(RuntimeError):
    fail()
  terminate()
  assert heard == [signal.SIGTERM]


def test_other_threads_leave_the_handler_alone(heard: list[int]):
  noticed = []

  def run() -> None:
    with Preemption() as preemption:
      noticed.append(preemption.reached())

  thread = threading.Thread(target=run)
  thread.start()
  thread.join()
  terminate()
  assert (noticed, heard) == ([False], [signal.SIGTERM])

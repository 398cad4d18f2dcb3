"""Runs tasks in another thread while the next image is computed."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

Task = Callable[[], None]


class Background:
  """Runs the tasks of one image at a time in another thread.

  What a task raises is raised by the next `run`, or where the context ends.
  """

  def __init__(self) -> None:
    self._thread = ThreadPoolExecutor(max_workers=1)
    self._running: Future[None] | None = None

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: object, *_: object) -> None:
    with self._thread:
      if kind is None:
        self._wait()

  def run(self, tasks: Sequence[Task]) -> None:
    """Runs tasks in their order, as soon as those before are done."""
    self._wait()
    self._running = self._thread.submit(_run_all, tasks)

  def _wait(self) -> None:
    if self._running is not None:
      self._running.result()


def _run_all(tasks: Sequence[Task]) -> None:
  for task in tasks:
    task()

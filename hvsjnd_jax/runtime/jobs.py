"""Jobs: work on several images side by side, so that their parts fill the devices' batches.

A job is a generator. It yields a `Sweep`, the parts of an image that are to be computed, goes on
when they all are, and returns its result. Parts wait until there are enough of one kind for a
batch, whichever jobs they belong to. All batches of a kind have one shape, and are split among the
devices of this process. A part's result does not depend on what else is in its batch.
"""

import functools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

import jax
import numpy as np

from hvsjnd_jax.runtime.sharding import make_mesh, shard_batch

_Result = TypeVar("_Result")
_Arguments = ParamSpec("_Arguments")

Inputs = tuple[np.ndarray, ...]

# The jobs under way have the parts of so many batches, at most: then the oldest one waits no
# longer, and a batch is computed that is not full. With sixteen, batches were at least 96 % full in
# each folder of tests/runtime/test_jobs.py; with ten, 93 %.
_MOST_BATCHES = 16

# What may happen to a batch. Every job with a part in it is told.
_FAILURES = (jax.errors.JaxRuntimeError, MemoryError)


class Sweep(NamedTuple):
  """Parts of one image that are to be computed.

  Attributes:
    run: Computes a batch of parts from their stacked inputs. Sweeps that share it share batches.
    load: Loads the inputs of one part, shortly before it is computed.
    keep: Takes a part and its result on the host.
    parts: What to compute.
  """

  run: Callable[..., Any]
  load: Callable[[Any], Inputs]
  keep: Callable[[Any, Any], None]
  parts: Iterable[Any]


Job = Generator[Sweep, None, _Result]


def as_job(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, Job[_Result]]:
  """Turns a function into one that returns a job, which computes all by itself."""

  @functools.wraps(function)
  def start(*args: _Arguments.args, **options: _Arguments.kwargs) -> Job[_Result]:
    yield from ()
    return function(*args, **options)

  return start


def run_job(job: Job[_Result]) -> _Result:
  """Runs a job by itself, one part on each device at a time."""
  (result,) = run_jobs([job])
  return result


def run_jobs(jobs: Iterable[Job[_Result]], *, parts_per_device: int = 1) -> Iterator[_Result]:
  """Runs jobs side by side.

  A job is begun when it is drawn. The next one is drawn while parts wait for their batch to be
  full, up to `count_waiting` of them. Where a batch is one part nothing ever waits, and each job is
  run to its end before the next is drawn.

  Args:
    jobs: The jobs. One that has a part in a batch that fails, as for want of memory, has the error
      raised where it yielded the sweep.
    parts_per_device: How many parts a device computes at a time.

  Yields:
    The jobs' results, in their order.
  """
  batches = _Batches(jax.local_device_count() * parts_per_device)
  most = count_waiting(parts_per_device)
  under_way: deque[_Task[_Result]] = deque()
  for job in jobs:
    under_way.append(batches.start(job))
    while under_way and (not under_way[0].sweep or sum(task.weight for task in under_way) > most):
      yield batches.finish(under_way.popleft())
  while under_way:
    yield batches.finish(under_way.popleft())


def count_waiting(parts_per_device: int = 1) -> int:
  """Counts the parts that the jobs under way may have, when another one is drawn."""
  batch = jax.local_device_count() * parts_per_device
  return _MOST_BATCHES * batch if batch > 1 else 0


class _Task(Generic[_Result]):
  """A job under way.

  Attributes:
    job: The job.
    sweep: What it waits for; None when it is done.
    left: How many of the sweep's parts are not computed yet.
    weight: How many parts its largest sweep had so far, and at least 1.
    result: What it returned, once it is done.
  """

  result: _Result

  def __init__(self, job: Job[_Result]):
    self.job = job
    self.sweep: Sweep | None = None
    self.left = 0
    self.weight = 1


class _Part(NamedTuple):
  task: _Task[Any]
  sweep: Sweep
  part: Any

  @property
  def is_wanted(self) -> bool:
    """Whether the job still waits for it; not if another of its parts failed."""
    return self.task.sweep is self.sweep


class _Lane:
  """The parts of one kind: those that wait for a batch, and the batch that is being computed."""

  def __init__(self) -> None:
    self.waiting: deque[_Part] = deque()
    self.group: list[_Part] = []
    self.outputs: Any = None

  def exchange(self, group: list[_Part], outputs: Any) -> tuple[list[_Part], Any]:
    """Replaces the batch that is being computed, and returns the former one."""
    former = self.group, self.outputs
    self.group, self.outputs = group, outputs
    return former


class _Batches:
  """Fills batches with the parts of jobs.

  Args:
    size: How many parts a batch has, a multiple of the devices.
  """

  def __init__(self, size: int):
    self._size = size
    self._mesh = make_mesh(jax.local_devices())
    self._lanes: dict[Callable[..., Any], _Lane] = {}

  def start(self, job: Job[_Result]) -> _Task[_Result]:
    """Begins a job, and computes what fills batches."""
    task = _Task(job)
    self._go_on(task)
    return task

  def finish(self, task: _Task[_Result]) -> _Result:
    """Computes all that a job still needs, in batches that need not be full."""
    while task.sweep is not None:
      lane = self._lanes[task.sweep.run]
      self._launch(lane)
      self._fetch(*lane.exchange([], None))
    return task.result

  def _go_on(self, task: _Task[Any], error: Exception | None = None) -> None:
    """Runs a job to its next sweep, whose parts join the others, or to its end."""
    try:
      task.sweep = sweep = next(task.job) if error is None else task.job.throw(error)
    except StopIteration as end:
      task.sweep, task.result = None, end.value
      return
    parts = [_Part(task, sweep, part) for part in sweep.parts]
    task.left, task.weight = len(parts), max(task.weight, len(parts))
    lane = self._lanes.setdefault(sweep.run, _Lane())
    lane.waiting.extend(parts)
    while len(lane.waiting) >= self._size:
      self._launch(lane)

  def _launch(self, lane: _Lane) -> None:
    """Has the devices compute the next batch, and meanwhile fetches the one before."""
    group: list[_Part] = []
    while lane.waiting and len(group) < self._size:
      part = lane.waiting.popleft()
      if part.is_wanted:
        group.append(part)
    if not group:
      return
    try:
      loaded = [sweep.load(part) for _, sweep, part in group]
      loaded += loaded[-1:] * (self._size - len(group))  # one shape for all batches
      inputs = tuple(map(np.stack, zip(*loaded, strict=True)))
      outputs = group[0].sweep.run(*shard_batch(inputs, self._mesh))
    except _FAILURES as error:
      self._fail(group, error)
    else:
      self._fetch(*lane.exchange(group, outputs))

  def _fetch(self, group: list[_Part], outputs: Any) -> None:
    """Waits for a batch, and gives the jobs their parts."""
    try:
      outputs = jax.tree.map(np.asarray, outputs)
    except _FAILURES as error:
      self._fail(group, error)
      return
    for i, part in enumerate(group):
      if part.is_wanted:
        part.sweep.keep(part.part, jax.tree.map(lambda maps, i=i: maps[i], outputs))
        part.task.left -= 1
        if not part.task.left:
          self._go_on(part.task)

  def _fail(self, group: list[_Part], error: Exception) -> None:
    for part in group:
      if part.is_wanted:
        self._go_on(part.task, error)

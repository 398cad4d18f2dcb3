"""What `accelerator` measures: programs that are built when their turn comes, and timed."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from tests.benchmarks import machine
from tests.benchmarks.machine import Precision

# Of a call; one that takes longer has fewer rounds.
_SLOW_SECONDS, _FEW_ROUNDS = 1.0, 3


class Sizes(NamedTuple):
  """How large everything is, and how long it is timed."""

  image: tuple[int, int]
  batches: tuple[int, ...]  # of images and pairs, the most telling first
  crops: int  # of a training step
  crop_px: dict[str, int]  # by stage, where it is not the config's
  matmul_side: int
  rounds: int
  round_seconds: float  # a round repeats calls until it is as long

  @property
  def image_name(self) -> str:
    return "x".join(map(str, self.image))


class Program(NamedTuple):
  """A compiled program on the device, with several inputs, lest one stay in the cache."""

  call: Callable[[int], Any]  # starts the program on the input of that number
  wait: Callable[[Any], object]  # waits for what `call` returned, and for what came before it
  read: Callable[[Any], np.ndarray]  # reads what precisions are compared by
  flop: dict[str, float]  # of one call, by who counts


class Subject(NamedTuple):
  """What is measured in several precisions."""

  part: str
  task: str  # subjects of one task do the same work
  contender: str
  images: int  # of one call
  build: Callable[[Precision], Program]


class Timing(NamedTuple):
  """How long a program took."""

  ready_seconds: float  # to build it and to run it once
  seconds: list[float]  # of a call, by round
  calls: int  # of a round
  result: np.ndarray
  flop: dict[str, float]

  @property
  def median(self) -> float:
    return statistics.median(self.seconds)


class Clock:
  """A budget of time.

  Args:
    budget_seconds: How long everything may take.
  """

  def __init__(self, budget_seconds: float):
    self._start = time.monotonic()
    self._budget_seconds = budget_seconds

  @property
  def spent_seconds(self) -> float:
    """The time since the clock was made."""
    return time.monotonic() - self._start

  def allows(self, expected_seconds: float) -> bool:
    """Tells whether something that takes so long would end within the budget."""
    return self.spent_seconds + expected_seconds <= self._budget_seconds


def time_subject(subject: Subject, precision: Precision, sizes: Sizes) -> Timing:
  """Builds a program, runs it twice to warm up, and times rounds of calls."""
  with machine.multiplying_in(precision):
    start = time.perf_counter()
    program = subject.build(precision)
    first = program.call(0)
    program.wait(first)
    ready_seconds = time.perf_counter() - start
    result = program.read(first)
    del first
    once = machine.timed(lambda: program.wait(program.call(1)))
    calls = max(1, round(sizes.round_seconds / once))

    def run_round() -> None:
      for i in range(calls - 1):
        program.call(i)
      program.wait(program.call(calls - 1))

    rounds = sizes.rounds if once < _SLOW_SECONDS else _FEW_ROUNDS
    seconds = [machine.timed(run_round) / calls for _ in range(rounds)]
  return Timing(ready_seconds, seconds, calls, result, program.flop)


def compile_and_count(lowered: jax.stages.Lowered) -> tuple[Callable[..., Any], dict[str, float]]:
  """Compiles a program, and returns it with the number of its operations.

  They are counted before and after compiling: a compiler may count nothing in the calls of a
  library that it has replaced convolutions by.
  """
  compiled = lowered.compile()
  flop = {}
  for name, stage in (("compiled", compiled), ("traced", lowered)):
    try:
      counted = stage.cost_analysis() or {}
    except RuntimeError:  # not every platform counts
      counted = {}
    if "flops" in counted:
      flop[name] = float(counted["flops"])
  return compiled, flop


def find_error(result: np.ndarray, reference: np.ndarray) -> float:
  """Computes |result - reference| / |reference|, in the 2-norm."""
  difference = np.linalg.norm(result.astype(np.float64) - reference)
  return float(difference / np.linalg.norm(reference.astype(np.float64)))

"""Jobs: results in order, full batches, and no more under way than was said."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import jax
import numpy as np
import pytest

from hvsjnd_jax.runtime.jobs import Inputs, Job, Sweep, as_job, count_waiting, run_job, run_jobs

# The kind of a job's sweep, and the number of its parts.
Plan = Sequence[tuple[str, int]]

# What issue K asks for: the share of a batch that is no repeats, and that of one place in a batch,
# and so of one device, in the parts of another. At least 0.962 and 0.919 were measured.
LEAST_SHARE = 0.9


class Devices:
  """Computes batches, and remembers the numbers in each; a negative number fails."""

  def __init__(self) -> None:
    self.batches: list[np.ndarray] = []
    self.kinds: dict[str, Callable[..., Any]] = {}

  def run_kind(self, kind: str) -> Callable[..., Any]:
    def run(numbers: jax.Array) -> np.ndarray:
      self.batches.append(np.asarray(numbers))
      if (self.batches[-1] < 0).any():
        raise MemoryError("negative")
      return 2 * self.batches[-1]

    return self.kinds.setdefault(kind, run)

  def count_useful(self) -> np.ndarray:
    """Counts, for each place in a batch, the parts there that are no repeats."""
    new = [[number not in batch[:i] for i, number in enumerate(batch)] for batch in self.batches]
    return np.sum(new, axis=0)


def work(devices: Devices, plan: Plan, *, first: int, sign: int = 1) -> Job[list[int]]:
  """Has each of its numbers doubled, sweep by sweep."""
  doubled: dict[int, int] = {}
  for kind, count in plan:
    numbers = [sign * (first + len(doubled) + i) for i in range(count)]

    def load(number: int) -> Inputs:
      return (np.asarray(number),)

    def keep(number: int, result: np.ndarray) -> None:
      assert number not in doubled
      doubled[number] = int(result)

    yield Sweep(devices.run_kind(kind), load, keep, numbers)
    assert list(doubled)[-count:] == numbers
  return list(doubled.values())


def draw_plans(name: str) -> list[Plan]:
  rng = np.random.default_rng(0)
  counts = rng.integers(1, 30, 300).tolist()
  upright = ["upright " if is_upright else "" for is_upright in rng.random(300) < 0.05]
  return {
    "small images": [[("priors", 1), ("maps", 1)]] * 300,
    "sizes that fill no batch": [[("priors", 5), ("maps", 3)]] * 300,
    "any sizes": [[("priors", n), ("maps", 1 + n // 2)] for n in counts],
    "few upright ones": [[(f"{turn}priors", 1), (f"{turn}maps", 1)] for turn in upright],
    "turned in turn": [
      [(f"{i % 2} priors", n), (f"{i % 2} maps", 1 + n // 2)] for i, n in enumerate(counts)
    ],
    "several models": [[("a", n), ("b", n), ("c", n)] for n in counts],
    "nothing to compute": [[]] * 300,
  }[name]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
  "name",
  [
    *("small images", "sizes that fill no batch", "any sizes", "few upright ones"),
    *("turned in turn", "several models", "nothing to compute"),
  ],
)
def test_jobs_fill_batches_in_order_and_within_bounds(name: str, batch: int):
  devices, plans = Devices(), draw_plans(name)
  totals = [sum(count for _, count in plan) for plan in plans]
  firsts = np.cumsum([0, *totals[:-1]]).tolist()
  sizes = [max([count for _, count in plan], default=1) for plan in plans]
  drawn, done = 0, 0

  def draw_jobs() -> Iterator[Job[list[int]]]:
    nonlocal drawn
    for plan, first in zip(plans, firsts, strict=True):
      assert sum(sizes[done:drawn]) <= count_waiting(batch)
      drawn += 1
      yield work(devices, plan, first=first)

  for result in run_jobs(draw_jobs(), parts_per_device=batch):
    assert result == [2 * number for number in range(firsts[done], firsts[done] + totals[done])]
    done += 1
  assert done == len(plans)
  if name != "nothing to compute":
    useful = devices.count_useful()
    assert useful.sum() == sum(totals)
    assert useful.sum() >= LEAST_SHARE * batch * len(devices.batches)
    assert useful.min() >= LEAST_SHARE * useful.max()


def test_batch_of_one_is_computed_before_the_next_job_is_drawn():
  events: list[str] = []
  devices = Devices()

  def draw_jobs() -> Iterator[Job[list[int]]]:
    for i in range(3):
      events.append("drawn")
      yield work(devices, [("priors", 2), ("maps", 2)], first=4 * i)

  for _ in run_jobs(draw_jobs()):
    events.append("done")
  assert events == ["drawn", "done"] * 3
  numbers = np.concatenate(devices.batches).tolist()
  assert all(number < following for number, following in pairwise(numbers))


class _Lost:
  """A batch whose failure shows when it is fetched."""

  def __array__(self, *_: Any, **__: Any) -> np.ndarray:
    raise jax.errors.JaxRuntimeError("out of memory")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("batch", [1, 4])
def test_failure_is_of_the_jobs_in_the_batch(batch: int, late: bool):
  devices = Devices()

  def run(numbers: jax.Array) -> Any:
    failed = bool((np.asarray(numbers) < 0).any())
    if failed and not late:
      raise MemoryError("negative")
    return _Lost() if failed else 2 * np.asarray(numbers)

  devices.kinds["priors"] = run

  def survive(job: Job[list[int]]) -> Job[list[int] | str]:
    try:
      return (yield from job)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
      return type(error).__name__

  jobs = [
    survive(work(devices, [("priors", 2), ("maps", 1)], first=1 + 3 * i, sign=-1 if i == 4 else 1))
    for i in range(9)
  ]
  results = list(run_jobs(jobs, parts_per_device=batch))
  failed = [i for i, result in enumerate(results) if isinstance(result, str)]
  assert failed == ([4] if batch == 1 else [4, 5])  # of two parts each, two jobs share a batch
  assert all(
    results[i] == [2 * n for n in range(1 + 3 * i, 4 + 3 * i)] for i in {*range(9)} - {4, 5}
  )


def test_function_as_a_job():
  double = as_job(lambda number: 2 * number)
  assert run_job(double(3)) == 6
  assert list(run_jobs(map(double, range(4)), parts_per_device=2)) == [0, 2, 4, 6]

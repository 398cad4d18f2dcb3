"""Simulated participants of a study, whose thresholds are known."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec
import numpy as np

from hvsjnd_jax.study.design import Design, Image, Model, identify
from hvsjnd_jax.study.psychometric import probability
from hvsjnd_jax.study.results import Result, Side

LMBDAS = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0]
HASH = "a" * 64


def make_design(
  *,
  models: tuple[str, ...] = ("default",),
  images: tuple[str, ...] = ("a",),
  method: Literal["constant", "staircase"] = "constant",
  **options: Any,
) -> Design:
  """Makes a study without a page."""
  return Design(
    title="Simulated",
    method=method,
    seed=0,
    models=[Model(name, HASH if name == "default" else None) for name in models],
    images=[Image(name, 64, 64) for name in images],
    lmbdas=LMBDAS,
    trap_lmbda=4 * LMBDAS[-1],
    **options,
  )


@dataclasses.dataclass
class Observer:
  """Someone who sees flicker by a psychometric function.

  Attributes:
    threshold: The lmbda of 75 % for an image's name and a model's.
    slope: The slope.
    lapse: The rate of lapses.
    blind: Whether they see nothing and guess, as a cheater does.
    misread: How many plates they misread.
  """

  threshold: Callable[[str, str], float]
  slope: float = 3.0
  lapse: float = 0.02
  blind: bool = False
  misread: int = 0

  def is_right(self, image: str, model: str, lmbda: float, rng: np.random.Generator) -> bool:
    """Answers one trial."""
    chance = 0.5
    if not self.blind:
      threshold = self.threshold(image, model)
      chance = float(
        probability(np.asarray(lmbda), threshold=threshold, slope=self.slope, lapse=self.lapse)
      )
    return bool(rng.random() < chance)


def take_part(design: Design, observer: Observer, *, code: str, seed: int) -> dict[str, Any]:
  """Lets an observer answer a whole study; returns what the page would save."""
  rng = np.random.default_rng(seed)
  trials: list[dict[str, Any]] = []

  def ask(kind: str, image: str, model: str, lmbda: float) -> bool:
    right = observer.is_right(image, model, lmbda, rng)
    sides: list[Side] = ["left", "right"]
    side, other = sides if rng.random() < 0.5 else sides[::-1]
    answer = side if right else other
    trials.append(
      {"kind": kind, "image": image, "model": model, "lmbda": lmbda, "side": side}
      | {"answer": answer, "reaction_ms": 900}
    )
    return right

  cells = [(i.name, m.name) for i, m in itertools.product(design.images, design.models)]
  for kind, count in (("practice", design.practice), ("trap", design.traps)):
    for _ in range(count):
      ask(kind, *cells[rng.integers(len(cells))], design.trap_lmbda)
  for image, model in cells:
    if design.method == "constant":
      for lmbda in design.lmbdas * design.repeats:
        ask("main", image, model, lmbda)
    else:
      levels = climb(design)
      level = next(levels)
      while level is not None:
        level = levels.send(ask("main", image, model, design.lmbdas[level]))
  plates = [
    {"shown": "7", "answer": "2" if i < observer.misread else "7"} for i in range(design.plates)
  ]
  return {
    "format": "hvsjnd_jax study result",
    "version": 1,
    "study": identify(design),
    "design": msgspec.to_builtins(design),
    "participant": code,
    "started": "2026-11-26T12:00:00.000Z",
    "finished": True,
    "screen": {
      **{"px_per_mm": 3.78, "device_pixel_ratio": 1, "width_px": 1920, "height_px": 1080},
      **{"distance_cm": 60, "gamma": 2.2, "dark_seen": 4, "light_seen": 4, "refresh_hz": 60},
    },
    "plates": plates,
    "trials": trials,
  }


def read_back(record: dict[str, Any]) -> Result:
  """Turns what the page would save into what the analysis reads."""
  return msgspec.convert(record, Result)


def climb(design: Design) -> Any:
  """The staircase of the page: yields levels, at last None, and is sent whether one was right."""
  level, run, direction, turns = len(design.lmbdas) - 1, 0, 0, 0
  for _ in range(design.longest_staircase):
    right = yield level
    run = run + 1 if right else 0
    if right and run < 3:
      continue
    towards = -1 if right else 1
    turns += bool(direction) and towards != direction
    level += towards * (2 if turns < 2 else 1)
    level, direction, run = min(max(level, 0), len(design.lmbdas) - 1), towards, 0
    if turns >= design.reversals:
      break
  yield None


def draw_observers(
  count: int,
  *,
  threshold: float,
  spread: float,
  seed: int,
  factors: dict[str, float] | None = None,
  lapse: float = 0.02,
) -> Iterator[Observer]:
  """Draws people whose thresholds vary log-normally around one.

  Args:
    count: How many.
    threshold: The geometric mean of their thresholds.
    spread: The standard deviation of their log thresholds.
    seed: The seed.
    factors: What the threshold of an image or a model is multiplied by.
    lapse: How often they lapse.
  """
  rng = np.random.default_rng(seed)
  known = factors or {}

  def make_threshold(own: float) -> Callable[[str, str], float]:
    return lambda image, model: own * known.get(image, 1) * known.get(model, 1)

  for _ in range(count):
    own = threshold * float(np.exp(spread * rng.standard_normal()))
    yield Observer(make_threshold(own), lapse=lapse)

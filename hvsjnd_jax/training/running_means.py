"""Means of the terms of the loss over steps that may still be running."""

import math
import time
from typing import NamedTuple

import jax
import numpy as np

from hvsjnd_jax.data.crops import Crops
from hvsjnd_jax.training.objectives import Terms

Means = dict[str, float]


class NotFiniteError(Exception):
  """Terms of a step that are not finite: their names, the moment, and the batch's photographs."""

  def __init__(self, names: list[str], when: str, photos: np.ndarray):
    super().__init__()
    self.names, self.when, self.photos = names, when, photos


class RunningMeans:
  """Collects the terms of steps without waiting for them, and averages them later."""

  class _Row(NamedTuple):
    when: str
    terms: Terms
    photos: np.ndarray
    counts: bool

  def __init__(self):
    self._pending: list[RunningMeans._Row] = []
    self._read: list[Means] = []
    self._last_time: float | None = None

  def append(self, when: str, terms: Terms, crops: Crops, *, counts: bool = True) -> None:
    """Adds the terms of a step; those that do not count only have to be finite."""
    self._pending.append(self._Row(when, terms, crops.photos, counts))

  def wait(self) -> None:
    """Waits for the last step so far."""
    if self._pending:
      jax.block_until_ready(self._pending[-1].terms)

  def read(self) -> None:
    """Reads the terms of every step so far, for which it waits.

    Raises:
      NotFiniteError: At the first step with a term that is not finite.
    """
    for row in self._pending:
      terms = {name: float(value) for name, value in row.terms.items()}
      if bad := [name for name, value in terms.items() if not math.isfinite(value)]:
        raise NotFiniteError(bad, row.when, row.photos)
      if row.counts:
        self._read.append(terms)
    self._pending.clear()

  def take_means(self, batch_size: int) -> Means:
    """Returns the means since the last call, and from the second call on images a second.

    The first call has no rate, because the step before it was compiled.
    """
    means = {name: float(np.mean([row[name] for row in self._read])) for name in self._read[0]}
    now = time.perf_counter()
    if self._last_time is not None:
      means["images_per_second"] = len(self._read) * batch_size / (now - self._last_time)
    self._last_time = now
    self._read.clear()
    return means

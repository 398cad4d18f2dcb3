"""Means of the terms of steps that may still be running."""

import math
import time
from typing import NamedTuple

import numpy as np

from hvsjnd_jax.data.crops import Crops
from hvsjnd_jax.training.objectives import Terms

Figures = dict[str, float]


class NotFiniteError(Exception):
  """Terms of a step that are not finite."""

  def __init__(self, names: list[str], when: str, photos: np.ndarray):
    super().__init__()
    self.names, self.when, self.photos = names, when, photos


class RunningMeans:
  """The terms of steps that may still be running, so that no step waits to be read."""

  class _Row(NamedTuple):
    when: str
    terms: Terms
    photos: np.ndarray
    counts: bool

  def __init__(self):
    self._rows: list[RunningMeans._Row] = []
    self._read: list[Figures] = []
    self._started: float | None = None

  def append(self, when: str, terms: Terms, crops: Crops, *, counts: bool = True) -> None:
    """Adds the terms of a step; where they do not count, they only have to be finite."""
    self._rows.append(self._Row(when, terms, crops.photos, counts))

  def read(self) -> None:
    """Waits for every step so far.

    Raises:
      NotFiniteError: At the first step with a term that is not finite.
    """
    for row in self._rows:
      figures = {name: float(value) for name, value in row.terms.items()}
      if bad := [name for name, value in figures.items() if not math.isfinite(value)]:
        raise NotFiniteError(bad, row.when, row.photos)
      if row.counts:
        self._read.append(figures)
    self._rows.clear()

  def take_means(self, batch_size: int) -> Figures:
    """Means since the last call; images a second but for the first, which compiles."""
    means = {name: float(np.mean([row[name] for row in self._read])) for name in self._read[0]}
    now = time.perf_counter()
    if self._started is not None:
      means["images_per_second"] = len(self._read) * batch_size / (now - self._started)
    self._started = now
    self._read.clear()
    return means

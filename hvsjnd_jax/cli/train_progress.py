"""Shows the progress of a training run in a terminal."""

import sys
from typing import Self

import jax
from tqdm import tqdm

from hvsjnd_jax.training.config import Stage, TrainConfig
from hvsjnd_jax.training.running_means import Means

# Printed after the terms of the loss, which come in alphabetical order.
_LAST = ("gradient_norm", "learning_rate")


class TrainProgress:
  """Prints a line of means now and then and, in a terminal, draws a bar.

  Only the first of many processes prints.
  """

  def __init__(self, config: TrainConfig):
    self._config = config
    self._stage: Stage | None = None
    self._bar = tqdm(disable=True)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._bar.close()

  def __call__(self, stage: Stage, step: int, means: Means | None) -> None:
    """Reports a step, as `training.loop.train` asks for."""
    if jax.process_index() > 0:
      return
    num_steps = self._config.settings(stage).num_steps
    if stage != self._stage:
      self._bar.close()
      self._stage = stage
      self._bar = tqdm(total=num_steps, initial=step - 1, desc=stage, unit="step", disable=None)
    self._bar.update()
    if means is not None:
      self.say(f"{stage} {step}/{num_steps}  {self._describe(stage, step, means)}")

  def say(self, line: str) -> None:
    """Prints a line above the bar."""
    if jax.process_index() == 0:
      tqdm.write(line, file=sys.stdout)
      sys.stdout.flush()

  def _describe(self, stage: Stage, step: int, means: Means) -> str:
    settings = self._config.settings(stage)
    names = sorted(means.keys() - {"images_per_second"})
    names.sort(key=lambda name: (name != "loss", name in _LAST))
    words = [f"{name} {means[name]:.4g}" for name in names]
    # The first step, which compiles, has no rate.
    if rate := means.get("images_per_second"):
      seconds = (settings.num_steps - step) * settings.batch_size / rate
      words += [f"{rate:.3g} images/s", f"{_describe_time(seconds)} left"]
    return "  ".join(words)


def _describe_time(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"

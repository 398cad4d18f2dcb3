"""Progress of a training run in a terminal."""

import sys
from typing import Self

import jax
from tqdm import tqdm

from hvsjnd_jax.training.config import Stage, TrainConfig
from hvsjnd_jax.training.running_means import Figures


class TrainProgress:
  """A line of figures now and then and, in a terminal, a bar. The first process speaks."""

  def __init__(self, config: TrainConfig):
    self._config = config
    self._stage: Stage | None = None
    self._bar = tqdm(disable=True)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._bar.close()

  def __call__(self, stage: Stage, step: int, figures: Figures | None) -> None:
    if jax.process_index() > 0:
      return
    settings = self._config.settings(stage)
    if stage != self._stage:
      self._bar.close()
      self._stage = stage
      self._bar = tqdm(
        total=settings.num_steps, initial=step - 1, desc=stage, unit="step", disable=None
      )
    self._bar.update()
    if figures is None:
      return
    names = sorted(figures.keys() - {"images_per_second"})
    last = ("gradient_norm", "learning_rate")
    names.sort(key=lambda name: (name != "loss", name in last))
    told = [f"{name} {figures[name]:.4g}" for name in names]
    # The first step, which compiles, has no rate.
    if rate := figures.get("images_per_second"):
      seconds = (settings.num_steps - step) * settings.batch_size / rate
      told += [f"{rate:.3g} images/s", f"{_describe_time(seconds)} left"]
    self.say(f"{stage} {step}/{settings.num_steps}  {'  '.join(told)}")

  def say(self, line: str) -> None:
    """Prints a line above the bar."""
    if jax.process_index() == 0:
      tqdm.write(line, file=sys.stdout)
      sys.stdout.flush()


def _describe_time(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"

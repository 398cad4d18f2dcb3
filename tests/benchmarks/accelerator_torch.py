"""What `accelerator` measures of PyTorch: the twin's estimate and training steps."""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

import hvsjnd_jax
from hvsjnd_jax.training.config import Stage
from tests.benchmarks import machine
from tests.benchmarks.accelerator_ours import (
  STAGES,
  draw_batches,
  find_crop_px,
  name_estimate,
  name_step,
)
from tests.benchmarks.contenders import Form, build_twin, list_forms, to_torch
from tests.benchmarks.machine import Precision
from tests.benchmarks.steps import draw_crops, load_recipe
from tests.benchmarks.torch_twin import Trainer, estimate
from tests.benchmarks.work import Program, Sizes, Subject


def list_theirs(sizes: Sizes, *, compiled: bool) -> list[Subject]:
  """Lists the twin's subjects, eager or compiled, which have the names of ours."""
  forms = {name: form for name, form in list_forms().items() if form.compiled == compiled}
  subjects = []
  for name, form in forms.items():
    for batch in sizes.batches:
      build = functools.partial(_build_estimate, form, batch, sizes)
      task = name_estimate("paper", batch, sizes)
      subjects.append(Subject("estimate", task, name, batch, build))
    for stage in STAGES:
      build = functools.partial(_build_step, form, stage, sizes)
      task = name_step("paper", stage, sizes)
      subjects.append(Subject("train", task, name, sizes.crops, build))
  return subjects


def _wait(_: Any) -> None:
  machine.synchronize()


def _build_estimate(form: Form, batch: int, sizes: Sizes, _: Precision) -> Program:
  twin = build_twin(hvsjnd_jax.load("paper"), form)
  inputs = [to_torch(images, form) for images in draw_batches(batch, sizes.image)]

  def read(jnd: Tensor) -> np.ndarray:
    return jnd.float().permute(0, 2, 3, 1).cpu().numpy()

  return Program(lambda i: estimate(twin, inputs[i % len(inputs)]), _wait, read, {})


def _build_step(form: Form, stage: Stage, sizes: Sizes, _: Precision) -> Program:
  torch.manual_seed(0)  # of the noise, which is the same in every precision
  trainer = Trainer(build_twin(hvsjnd_jax.load("paper"), form), load_recipe("paper"), stage)
  images = to_torch(draw_crops(sizes.crops, find_crop_px("paper", stage, sizes)).pixels, form) / 255

  def read(_: object) -> np.ndarray:
    means = [trainer.optimizer.state[parameter]["exp_avg"] for parameter in trainer.params]
    return np.concatenate([mean.flatten().cpu().numpy() for mean in means])

  return Program(lambda _: trainer.step(images, trainer.draw_noise(images)), _wait, read, {})

"""What `speed` compares: this package and the forms of its PyTorch twin, which take turns."""

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hvsjnd_jax.model.jnd_model import JNDModel
from tests.benchmarks import machine
from tests.benchmarks.tables import OURS, THEIRS
from tests.benchmarks.torch_twin import Twin

Run = Callable[[], Any]  # returns an array or a tensor, NHWC, once it is computed


class Form(NamedTuple):
  """How the twin runs."""

  layout: torch.memory_format
  compiled: bool = False


NCHW = Form(torch.contiguous_format)
CHANNELS_LAST = Form(torch.channels_last)


def list_forms() -> dict[str, Form]:
  """Lists the twin's forms by name."""
  forms = {f"{THEIRS} nchw": NCHW, f"{THEIRS} channels-last": CHANNELS_LAST}
  if machine.torch_device() == "cuda":
    forms[f"{THEIRS} compiled"] = Form(torch.channels_last, compiled=True)
  return forms


def build_twin(model: JNDModel, form: Form) -> Twin:
  """Builds the twin with the model's weights."""
  twin = Twin().fill(model).to(machine.torch_device())
  twin.to(memory_format=form.layout)  # pyright: ignore[reportCallIssue]  # not in torch's types
  if form.compiled:
    hvs_sd = twin.hvs_sd
    for network in (hvs_sd.encoder, hvs_sd.decoder, hvs_sd.bit_estimator, twin.generator):
      network.compile()
  return twin


def to_torch(images: np.ndarray, form: Form) -> Tensor:
  """Puts images, NHWC, on PyTorch's device as NCHW, in the form's layout."""
  tensor = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
  return tensor.to(machine.torch_device()).contiguous(memory_format=form.layout)


def take_turns(runs: Mapping[str, Run], count: int) -> tuple[dict[str, list[float]], float, list]:
  """Runs every contender once, then `count` times in turn.

  Returns:
    Seconds by name, without the first runs; those of our first run; the results of the first runs.
  """
  first_seconds, results = 0.0, []
  for name, run in runs.items():
    start = time.perf_counter()
    result = run()
    if name == OURS:
      first_seconds = time.perf_counter() - start
    results.append(np.asarray(result.cpu() if isinstance(result, Tensor) else result))
  seconds: dict[str, list[float]] = {name: [] for name in runs}
  for _ in range(count):
    for name, run in runs.items():
      seconds[name].append(machine.timed(run))
  return seconds, first_seconds, results


def check_difference(
  what: str, difference: float, tolerance: float, args: argparse.Namespace
) -> None:
  """Ends the command if the two differ too much, unless they multiply in TF32."""
  if not (difference <= tolerance or args.tf32):
    raise SystemExit(f"speed: {what}: ours and theirs differ by {difference:.2g} > {tolerance:g}")

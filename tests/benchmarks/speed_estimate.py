"""The estimate of one image, timed in both libraries, and the memory that it needs."""

import argparse
import concurrent.futures
import functools
import multiprocessing
import operator
from collections.abc import Callable, Iterable
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from torch import Tensor

import hvsjnd_jax
from hvsjnd_jax.model import windows
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.model.windows import plan_window
from tests.benchmarks import machine
from tests.benchmarks.contenders import (
  Form,
  Run,
  build_twin,
  check_difference,
  list_forms,
  take_turns,
  to_torch,
)
from tests.benchmarks.pictures import draw_image
from tests.benchmarks.tables import OURS, Row, align, say
from tests.benchmarks.torch_twin import estimate

# Relative to the map's maximum, which is small; 1.5e-6 was measured.
ESTIMATE_TOLERANCE = 1e-5

_LARGE_PX = 2**20  # larger images get a third of the runs

Size = tuple[int, int]


def list_estimators() -> dict[str, Callable[[JNDModel, np.ndarray], Run]]:
  """Lists the contenders by name; each is a column of the tables."""
  return {
    OURS: prepare_ours,
    f"{OURS}, windows": prepare_windows,
    **{k: functools.partial(prepare_theirs, form=form) for k, form in list_forms().items()},
  }


def prepare_ours(model: JNDModel, image: np.ndarray) -> Run:
  """Prepares our estimate of an image."""
  on_device = jnp.asarray(image)
  return lambda: jax.block_until_ready(hvsjnd_jax.estimate(model, on_device, resolution="native"))


def prepare_windows(model: JNDModel, image: np.ndarray) -> Run:
  """Prepares our estimate through windows of a shape that fits."""
  window = plan_window([(image.shape[1], image.shape[2])])

  def run() -> np.ndarray:
    return windows.analyze(model, image, window=window, resolution="native").jnd

  return run


def prepare_theirs(model: JNDModel, image: np.ndarray, *, form: Form) -> Run:
  """Prepares the twin's estimate."""
  twin, on_device = build_twin(model, form), to_torch(image, form)

  def run() -> Tensor:
    jnd = estimate(twin, on_device)
    machine.synchronize()
    return jnd.permute(0, 2, 3, 1)

  return run


def measure_estimate(args: argparse.Namespace, machine_gflops: float) -> list[Row]:
  """Times an estimate of each size."""
  model = hvsjnd_jax.load("paper")
  rows = []
  for height, width in args.sizes:
    say(f"  {height}x{width}")
    image = draw_image(height, width)
    runs = {name: prepare(model, image) for name, prepare in list_estimators().items()}
    count = args.runs if height * width < _LARGE_PX else max(1, args.runs // 3)
    seconds, first_seconds, (ours, *others) = take_turns(runs, count)
    difference = max(float(np.abs(jnd - ours).max() / ours.max()) for jnd in others)
    check_difference(f"estimate {height}x{width}", difference, ESTIMATE_TOLERANCE, args)
    gflop = 1e-9 * height * width * sum(count_flop(model).values())
    name = f"estimate {height}x{width}"
    rows.append(Row(name, seconds, first_seconds, difference, gflop, machine_gflops))
  return rows


# The side in pixels of a layer's cell, in each of which its kernel is multiplied once: one pixel of
# the layer's input or output, whichever is smaller.
_CELLS_PX = {
  "hvs_sd.encoder": {"conv1": 2, "gdn1": 2, "conv2": 4, "gdn2": 4, "conv3": 8},
  "hvs_sd.decoder": {"deconv1": 8, "igdn1": 4, "deconv2": 4, "igdn2": 2, "deconv3": 2},
  "generator": {"conv1": 1, "conv2": 2, "conv3": 2, "conv4": 4, "conv5": 4, "conv6": 4},
}


def count_flop(model: JNDModel) -> dict[str, float]:
  """Counts the floating-point operations of an estimate for each pixel, by layer; 341,036 in all.

  Every entry of a kernel (in GDN, of gamma) is multiplied and added once in each of the layer's
  cells, which is 2 · entries / cell² a pixel. HVS-SD counts twice, because the input gradient runs
  the transpose of each of its linear maps. Everything but matrix products is left out.
  """
  flop = {}
  for network, cells in _CELLS_PX.items():
    passes = 1 if network == "generator" else 2
    for name, cell_px in cells.items():
      layer = operator.attrgetter(f"{network}.{name}")(model)
      entries = (layer.gamma if "gdn" in name else layer.kernel)[...].size
      flop[f"{network}.{name}"] = passes * 2 * entries / cell_px**2
  return flop


def measure_memory(sizes: Iterable[Size]) -> list[dict[str, Any]]:
  """Measures and prints the peak memory by size and contender."""
  names = list(list_estimators())
  peaks, cells = [], [["peak MiB (before the estimate)", *names]]
  for height, width in sizes:
    cells.append([f"{height}x{width}"])
    for name in names:
      say(f"memory {height}x{width} {name}")
      context = multiprocessing.get_context("spawn")
      with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
          before, peak = pool.submit(_read_peaks, name, (height, width)).result()
        except BrokenProcessPool:
          cells[-1].append("killed")
          continue
      cells[-1].append(f"{peak} ({before})")
      peaks.append({"size": [height, width], "name": name, "peak_mib": peak, "before_mib": before})
  print(f"\nmemory\n{align(cells)}", flush=True)
  return peaks


def _read_peaks(name: str, size: Size) -> tuple[int, int]:
  """Reads the peak memory of this process before an estimate, and after it."""
  run = list_estimators()[name](hvsjnd_jax.load("paper"), draw_image(*size))
  before = machine.peak_mib()
  run()
  return before, machine.peak_mib()

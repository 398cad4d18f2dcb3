"""Maps PyTorch's names and layouts to ours, in pure NumPy: one rule a line, with its reason."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

_DATA_PARALLEL_PREFIX = "module."
_N = 128


def _hvs_sd() -> dict[str, tuple[str, tuple[int, ...]]]:
  table: dict[str, tuple[str, tuple[int, ...]]] = {}
  for i, inputs in ((1, 3), (2, _N), (3, _N)):
    table[f"Encoder.conv{i}.weight"] = f"encoder.conv{i}.kernel", (_N, inputs, 5, 5)
  for i in (1, 2):  # the last convolution has no bias
    table[f"Encoder.conv{i}.bias"] = f"encoder.conv{i}.bias", (_N,)
  for theirs, ours in (("Encoder.gdn", "encoder.gdn"), ("Decoder.igdn", "decoder.igdn")):
    for i in (1, 2):
      table[f"{theirs}{i}.beta"] = f"{ours}{i}.beta", (_N,)
      table[f"{theirs}{i}.gamma"] = f"{ours}{i}.gamma", (_N, _N)
  for i, outputs in ((1, _N), (2, _N), (3, 3)):
    table[f"Decoder.deconv{i}.weight"] = f"decoder.deconv{i}.kernel", (_N, outputs, 5, 5)
    table[f"Decoder.deconv{i}.bias"] = f"decoder.deconv{i}.bias", (outputs,)
  for i in (1, 2, 3, 4):
    for leaf in "hba" if i < 4 else "hb":  # the last step ends in a sigmoid and has no a
      table[f"bitEstimator.f{i}.{leaf}"] = f"bit_estimator.f{i}.{leaf}", (1, _N, 1, 1)
  return table


def _generator() -> dict[str, tuple[str, tuple[int, ...]]]:
  table: dict[str, tuple[str, tuple[int, ...]]] = {}
  widths = (7, 32, 32, 64, 64, 32, 3)
  for i, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=1):
    table[f"conv{i}.weight"] = f"conv{i}.kernel", (outputs, inputs, 3, 3)
    table[f"conv{i}.bias"] = f"conv{i}.bias", (outputs,)
  return table


def _vgg16() -> dict[str, tuple[str, tuple[int, ...]]]:
  table: dict[str, tuple[str, tuple[int, ...]]] = {}
  inputs, place = 3, 0
  for i, (width, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
    for j in range(depth):
      table[f"features.{place}.weight"] = f"blocks.{i}.{j}.kernel", (width, inputs, 3, 3)
      table[f"features.{place}.bias"] = f"blocks.{i}.{j}.bias", (width,)
      inputs = width
      place += 2  # every convolution is followed by a ReLU, which counts
    place += 1  # and every block by a max pooling
  return table


# Batch normalisation's names.
_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


def _classifier() -> dict[str, tuple[str, tuple[int, ...]]]:
  table: dict[str, tuple[str, tuple[int, ...]]] = {}

  def norm(theirs: str, ours: str, width: int) -> None:
    for leaf, name in _NORM.items():
      table[f"{theirs}.{leaf}"] = f"{ours}.{name}", (width,)

  table["conv1.weight"] = "conv1.kernel", (64, 3, 7, 7)
  norm("bn1", "bn1", 64)
  inputs = 64
  for i, (width, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
    for j in range(depth):
      theirs, ours = f"layer{i + 1}.{j}", f"layers.{i}.{j}"  # torchvision counts from 1
      for k, channels in ((1, inputs), (2, width)):
        table[f"{theirs}.conv{k}.weight"] = f"{ours}.conv{k}.kernel", (width, channels, 3, 3)
        norm(f"{theirs}.bn{k}", f"{ours}.bn{k}", width)
      if inputs != width:
        shape = (width, inputs, 1, 1)
        table[f"{theirs}.downsample.0.weight"] = f"{ours}.shortcut.0.kernel", shape
        norm(f"{theirs}.downsample.1", f"{ours}.shortcut.1", width)
      inputs = width
  table["fc.weight"] = "fc.kernel", (5, 512)
  table["fc.bias"] = "fc.bias", (5,)
  return table


# For each network, from PyTorch's key to our path within the network and PyTorch's shape.
PARAMETERS = {"hvs_sd": _hvs_sd(), "generator": _generator()}
# The same for the networks that metrics need, by torchvision's keys.
BACKBONES = {"vgg16": _vgg16(), "classifier": _classifier()}
_TABLES = PARAMETERS | BACKBONES

# Keys that may be present and are not needed.
_LEFT_OUT: dict[str, frozenset[str]] = {
  # The layers after the convolutions, which tell ImageNet's classes apart.
  "vgg16": frozenset(f"classifier.{i}.{leaf}" for i in (0, 3, 6) for leaf in ("weight", "bias")),
  # The number of batches behind a running mean.
  "classifier": frozenset(
    key.replace("running_mean", "num_batches_tracked") for key in BACKBONES["classifier"]
  )
  - BACKBONES["classifier"].keys(),
}


def relayout(array: np.ndarray, path: str) -> np.ndarray:
  """Returns a PyTorch parameter in our layout, contiguous; `path` is our name for it."""
  if array.ndim == 4 and array.shape[0] == 1:
    array = array.reshape(-1)  # the bit estimator's (1, N, 1, 1) hold one value a channel
  elif array.ndim == 4:
    # A convolution goes from OIHW to HWIO. A transposed convolution is stored as (in, out, h, w),
    # which is OIHW of the convolution that it transposes. Our kernel is that one's too, so the
    # same rule holds.
    array = array.transpose(2, 3, 1, 0)
  elif array.ndim == 2 and path.endswith(".kernel"):
    array = array.T  # a dense layer goes from (out, in) to (in, out); GDN's gamma stays
  return np.ascontiguousarray(array)


def convert(network: str, state: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], list[str]]:
  """Converts one state dict.

  Args:
    network: "hvs_sd", "generator", "vgg16" or "classifier".
    state: Arrays by PyTorch key, with or without DataParallel's "module." prefix.

  Returns:
    The arrays by our dotted path, which starts with the network; and the faults, one line for
    every key that is unknown, missing, given twice, of another shape, or not float32 and finite.
    VGG16's "classifier.*" and "num_batches_tracked" are left out without a fault.
  """
  table, left_out = _TABLES[network], _LEFT_OUT.get(network, frozenset())
  arrays = {}
  faults = [
    f"given twice, with and without '{_DATA_PARALLEL_PREFIX}': {bare}"
    for key in state
    if (bare := key.removeprefix(_DATA_PARALLEL_PREFIX)) != key and bare in state
  ]
  state = {key.removeprefix(_DATA_PARALLEL_PREFIX): value for key, value in state.items()}
  faults += [f"unknown key: {key}" for key in state if key not in table.keys() | left_out]
  for key, (path, shape) in table.items():
    if key not in state:
      faults.append(f"missing key: {key}")
      continue
    array = state[key]
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
      found = getattr(array, "dtype", type(array).__name__)
      faults.append(f"{key}: expected float32, got {found}")
    elif array.shape != shape:
      faults.append(f"{key}: expected shape {shape}, got {array.shape}")
    elif not np.isfinite(array).all():
      faults.append(f"{key}: holds values that are not finite")
    else:
      arrays[f"{network}.{path}"] = relayout(array, path)
  return arrays, faults

"""PyTorch's names and layouts to ours, in pure NumPy: one rule a line, with its reason."""

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


# For each network, PyTorch's key: our path within the network, and PyTorch's shape.
PARAMETERS = {"hvs_sd": _hvs_sd(), "generator": _generator()}


def relayout(array: np.ndarray) -> np.ndarray:
  """Our layout of a PyTorch parameter, contiguous."""
  if array.ndim == 4 and array.shape[0] == 1:
    array = array.reshape(-1)  # the bit estimator's (1, N, 1, 1): one value a channel
  elif array.ndim == 4:
    # Convolution: OIHW to HWIO. A transposed convolution is stored (in, out, h, w), which
    # is OIHW of the convolution that it transposes, and so is our kernel: the same rule.
    array = array.transpose(2, 3, 1, 0)
  return np.ascontiguousarray(array)


def convert(network: str, state: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], list[str]]:
  """Converts one state dict.

  Args:
    network: "hvs_sd" or "generator".
    state: Arrays by PyTorch key, with or without DataParallel's "module." prefix.

  Returns:
    Arrays by our dotted path, network included; and the faults: one line for every key
    that is unknown, missing, given twice, of another shape, or not float32 and finite.
  """
  table = PARAMETERS[network]
  arrays = {}
  faults = [
    f"given twice, with and without '{_DATA_PARALLEL_PREFIX}': {bare}"
    for key in state
    if (bare := key.removeprefix(_DATA_PARALLEL_PREFIX)) != key and bare in state
  ]
  state = {key.removeprefix(_DATA_PARALLEL_PREFIX): value for key, value in state.items()}
  faults += [f"unknown key: {key}" for key in state if key not in table]
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
      arrays[f"{network}.{path}"] = relayout(array)
  return arrays, faults

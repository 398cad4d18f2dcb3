"""PyTorch's names and layouts to ours, in pure NumPy: one rule a line, with its reason."""

from collections.abc import Mapping

import numpy as np

_DATA_PARALLEL_PREFIX = "module."

# The published layer name: ours.
_LAYERS = {
  "hvs_sd": {
    **{f"Encoder.conv{i}": f"encoder.conv{i}" for i in (1, 2, 3)},
    **{f"Encoder.gdn{i}": f"encoder.gdn{i}" for i in (1, 2)},
    **{f"Decoder.deconv{i}": f"decoder.deconv{i}" for i in (1, 2, 3)},
    **{f"Decoder.igdn{i}": f"decoder.igdn{i}" for i in (1, 2)},
    **{f"bitEstimator.f{i}": f"bit_estimator.f{i}" for i in (1, 2, 3, 4)},
  },
  "generator": {f"conv{i}": f"conv{i}" for i in range(1, 7)},
}


def rename(network: str, key: str) -> str | None:
  """Our dotted path for a PyTorch key, or None for a key that the network does not have.

  Args:
    network: "hvs_sd" or "generator".
    key: A key of the state dict, with or without DataParallel's "module." prefix.
  """
  layer, _, leaf = key.removeprefix(_DATA_PARALLEL_PREFIX).rpartition(".")
  if layer not in _LAYERS[network]:
    return None
  return f"{network}.{_LAYERS[network][layer]}.{'kernel' if leaf == 'weight' else leaf}"


def relayout(array: np.ndarray) -> np.ndarray:
  """Our layout of a PyTorch parameter.

  Args:
    array: A parameter of HVS-SD or the generator.

  Returns:
    A contiguous array.
  """
  if array.ndim == 4 and array.shape[0] == 1 and array.shape[2:] == (1, 1):
    array = array.reshape(-1)  # the bit estimator's (1, N, 1, 1): one value a channel
  elif array.ndim == 4:
    # Convolution: OIHW to HWIO. A transposed convolution is stored (in, out, h, w), which
    # is OIHW of the convolution that it transposes, and so is our kernel: the same rule.
    array = array.transpose(2, 3, 1, 0)
  return np.ascontiguousarray(array)


def convert(network: str, state: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
  """Converts one state dict.

  Args:
    network: "hvs_sd" or "generator".
    state: Arrays by PyTorch key.

  Returns:
    Arrays by our path, and the keys that the network does not have.
  """
  arrays, unknown = {}, []
  for key, array in state.items():
    path = rename(network, key)
    if path is None:
      unknown.append(key)
    else:
      arrays[path] = relayout(array)
  return arrays, unknown

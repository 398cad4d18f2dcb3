"""The recipe behind the golden files: weights from a seed, by PyTorch key. NumPy only."""

import hashlib
import zlib
from collections.abc import Mapping

import numpy as np


def draw(seed: int, key: str, shape: tuple[int, ...]) -> np.ndarray:
  """One parameter of either network, float32, in PyTorch's layout."""
  rng = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
  leaf = key.split(".")[-1]
  if leaf == "beta":
    array = np.sqrt(np.abs(1 + 0.3 * rng.standard_normal(shape)))
  elif leaf == "gamma":
    array = np.sqrt(0.1 * np.eye(shape[0]) + 0.02 * np.abs(rng.standard_normal(shape)))
    array[::7, ::5] = -0.01  # below GDN's bound
  elif leaf in ("h", "b", "a"):
    array = 0.3 * rng.standard_normal(shape)
  elif leaf == "weight":
    array = rng.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
  elif leaf == "bias":
    array = 0.05 * rng.standard_normal(shape)
  else:
    raise ValueError(f"the recipe has no rule for {key}")
  return array.astype(np.float32)


def draw_state(seed: int, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
  """A whole state dict; `shapes` are PyTorch's, by key."""
  return {key: draw(seed, key, shape) for key, shape in shapes.items()}


def digest(state: Mapping[str, np.ndarray]) -> str:
  """SHA-256 over keys and bytes in the order of the keys."""
  sha = hashlib.sha256()
  for key in sorted(state):
    sha.update(key.encode())
    sha.update(np.ascontiguousarray(state[key]).tobytes())
  return sha.hexdigest()

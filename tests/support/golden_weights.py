"""The recipe behind the golden files: weights drawn from a seed, by PyTorch key, in NumPy."""

import hashlib
import zlib
from collections.abc import Mapping

import numpy as np


def _rng(seed: int, key: str) -> np.random.RandomState:
  return np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)


def draw(seed: int, key: str, shape: tuple[int, ...]) -> np.ndarray:
  """Draws one parameter of either network, float32, in PyTorch's layout."""
  rng = _rng(seed, key)
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


def draw_vgg16(seed: int, key: str, shape: tuple[int, ...]) -> np.ndarray:
  """Draws one parameter of VGG16, under torchvision's name."""
  array = draw(seed, key, shape)
  return (array * 1.4).astype(np.float32) if key.endswith("weight") else array


def draw_classifier(seed: int, key: str, shape: tuple[int, ...]) -> np.ndarray:
  """Draws one parameter or statistic of ResNet-34, under torchvision's name."""
  rng, leaf = _rng(seed, key), key.split(".")[-1]
  if leaf == "num_batches_tracked":
    return np.array(1, np.int64)
  if leaf == "running_var":
    array = 0.5 + rng.random_sample(shape)
  elif leaf == "running_mean":
    array = 0.1 * rng.standard_normal(shape)
  elif leaf == "weight" and len(shape) == 1:  # batch normalisation's
    array = 0.7 + 0.3 * rng.random_sample(shape)
  elif leaf == "weight" and len(shape) == 2:
    array = 0.05 * rng.standard_normal(shape)
  else:
    return draw(seed, key, shape)
  return array.astype(np.float32)


_RECIPES = {"vgg16": draw_vgg16, "classifier": draw_classifier}


def draw_state(
  seed: int, shapes: Mapping[str, tuple[int, ...]], *, network: str = ""
) -> dict[str, np.ndarray]:
  """Draws a whole state dict; `shapes` are those of PyTorch, by key."""
  recipe = _RECIPES.get(network, draw)
  return {key: recipe(seed, key, shape) for key, shape in shapes.items()}


def digest(state: Mapping[str, np.ndarray]) -> str:
  """Hashes keys and bytes with SHA-256, in the order of the keys."""
  sha = hashlib.sha256()
  for key in sorted(state):
    sha.update(key.encode())
    sha.update(np.ascontiguousarray(state[key]).tobytes())
  return sha.hexdigest()

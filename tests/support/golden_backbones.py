"""VGG16 and ResNet-34 with the golden files' weights."""

import functools
from typing import Any

import numpy as np

from convert.keymap import BACKBONES, convert
from hvsjnd_jax.weights import build_backbone
from tests.support.golden_weights import draw_state


def draw(network: str, seed: int) -> dict[str, np.ndarray]:
  """Draws a state dict with torchvision's names, without the dense layers of VGG16."""
  shapes: dict[str, tuple[int, ...]] = {k: shape for k, (_, shape) in BACKBONES[network].items()}
  for key in list(shapes):
    if key.endswith("running_var"):
      shapes[key.replace("running_var", "num_batches_tracked")] = ()
  return draw_state(seed, shapes, network=network)


@functools.cache  # nothing changes a frozen network
def build(network: str, seed: int) -> Any:
  """Builds the network with those weights."""
  arrays, faults = convert(network, draw(network, seed))
  assert not faults
  return build_backbone(network, arrays, source="the recipe")

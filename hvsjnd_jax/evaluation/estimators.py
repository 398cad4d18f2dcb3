"""Every JND model by name: the shipped weights, folders of others, masking, the literature's."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from hvsjnd_jax import weights
from hvsjnd_jax.baselines import BASELINES
from hvsjnd_jax.model import windows
from hvsjnd_jax.model.masking import threshold
from hvsjnd_jax.ops.types import Pixels

# Draws the JND map of an image, [H, W, 3].
Model = Callable[[Pixels], Float[np.ndarray, "h w 3"]]

_MASKING = "masking"

_threshold = jax.jit(threshold)


def list_models() -> tuple[str, ...]:
  """Those with a name; a folder of weights is a model too."""
  return (*weights.SHIPPED, _MASKING, *BASELINES)


def is_model(name: str) -> bool:
  """Whether `load_model` knows the name, or it is that of a folder."""
  return name in list_models() or (bool(name) and Path(name).is_dir())


def load_model(name: str, window: windows.Window) -> Model:
  """The model of this name, or of the weights in the folder of this name.

  Args:
    name: Of `list_models()`, or a folder.
    window: What networks see an image through.

  Raises:
    WeightsError: If the folder holds no weights, or damaged ones.
  """
  if name == _MASKING or name in BASELINES:
    function = _threshold if name == _MASKING else BASELINES[name].function
    return lambda pixels: np.asarray(function(pixels[None].astype(np.float32) / 255))[0]
  model = weights.load(name)

  def draw(pixels: Pixels) -> np.ndarray:
    return windows.analyze(model, pixels[None], window=window).jnd[0]

  return draw


def describe_model(name: str) -> dict[str, str]:
  """What a report says of a model: its name, and its title or the hash of its weights."""
  if name in BASELINES:
    return {"name": name, "title": BASELINES[name].title}
  if name == _MASKING:
    return {"name": name, "title": "Contrast and luminance masking"}
  return {"name": name, "sha256": weights.read_manifest(name)["sha256"]}

"""Everything that draws a JND map, by name: weights, masking alone, and classical models.

To a user each of them is a "model"; here a model is one with networks.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from hvsjnd_jax import weights
from hvsjnd_jax.baselines import BASELINES
from hvsjnd_jax.data.paths import parse_path
from hvsjnd_jax.model.jnd_map import masking_map
from hvsjnd_jax.model.windows import Analyzer, Window
from hvsjnd_jax.ops.samples import to_unit
from hvsjnd_jax.ops.types import DeepPixels, Pixels
from hvsjnd_jax.runtime.jobs import Job, as_job


class Maps(NamedTuple):
  """What an estimator draws of an image.

  Attributes:
    jnd: The JND map.
    attention: The attention map; None where there is no HVS-SD.
  """

  jnd: Float[np.ndarray, "h w 3"]
  attention: Float[np.ndarray, "h w"] | None = None


# Starts the job that draws the maps of an image, [H, W, 3].
Estimator = Callable[[Pixels | DeepPixels], Job[Maps]]

_MASKING = "masking"

_masking_map = jax.jit(masking_map)


def list_estimators() -> tuple[str, ...]:
  """Lists the names; the path of a folder of weights is one, too."""
  return (*weights.SHIPPED, _MASKING, *BASELINES)


def is_estimator(name: str) -> bool:
  """Tells whether `load_estimator` knows the name, or it is that of a folder."""
  return name in list_estimators() or (bool(name) and parse_path(name).is_dir())


def has_networks(name: str) -> bool:
  """Tells whether weights belong to the name: neither masking nor a classical model."""
  return name != _MASKING and name not in BASELINES


def has_attention(name: str) -> bool:
  """Tells whether the estimator of this name draws an attention map, which takes HVS-SD.

  Raises:
    WeightsError: If it is a folder that holds no weights.
  """
  return has_networks(name) and "hvs_sd" in weights.read_manifest(name)["parameters"]


def load_estimator(name: str, window: Window) -> Estimator:
  """Loads an estimator.

  Args:
    name: One of `list_estimators()`, or a folder of weights.
    window: The window through which networks see an image.

  Raises:
    WeightsError: If the folder holds no weights, or damaged ones.
  """
  if not has_networks(name):
    function = _masking_map if name == _MASKING else BASELINES[name].function
    return as_job(lambda pixels: Maps(np.asarray(function(to_unit(pixels[None])))[0]))
  analyzer = Analyzer(weights.load(name), window)

  def draw(pixels: Pixels | DeepPixels) -> Job[Maps]:
    maps = yield from analyzer.start(pixels[None])
    return Maps(maps.jnd[0], maps.priors and maps.priors.attention[0, ..., 0])

  return draw


def describe_estimator(name: str) -> dict[str, str]:
  """Returns what a report says of it: the name, and its title or the hash of its weights."""
  if name in BASELINES:
    return {"name": name, "title": BASELINES[name].title}
  if name == _MASKING:
    return {"name": name, "title": "Contrast and luminance masking"}
  return {"name": name, "sha256": weights.read_manifest(name)["sha256"]}

"""Maps of where models of vision see a difference, and pictures of them."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from hvsjnd_jax.metrics import butteraugli_map, cvvdp_map
from hvsjnd_jax.metrics.butteraugli import BUTTERAUGLI_SMALLEST_PX
from hvsjnd_jax.metrics.cvvdp import CVVDP_SMALLEST_PX
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.viz.sheets import jet

# The memory in which a map is computed, for each pixel.
MAP_BYTES_PER_PIXEL = 210

Map = Float[np.ndarray, "h w"]


class VisionModel(NamedTuple):
  """A model of vision that maps where it sees a difference.

  Attributes:
    name: Its name, in the files' names.
    map: Computes the maps of images.
    full_scale: The value that is drawn in dark red.
    smallest_px: The shortest side that it can map.
  """

  name: str
  map: Callable[..., Float[jax.Array, "b h w"]]
  full_scale: int
  smallest_px: int


_cvvdp_fhd_map = partial(cvvdp_map, display="standard_fhd")

_BUTTERAUGLI = VisionModel("butteraugli", jax.jit(butteraugli_map), 4, BUTTERAUGLI_SMALLEST_PX)

# The model behind each metric that has one.
VISION_MODELS = {
  "butteraugli_3norm": _BUTTERAUGLI,
  "butteraugli_max": _BUTTERAUGLI,
  "cvvdp": VisionModel("cvvdp", jax.jit(cvvdp_map), 2, CVVDP_SMALLEST_PX),
  "cvvdp_fhd": VisionModel("cvvdp_fhd", jax.jit(_cvvdp_fhd_map), 2, CVVDP_SMALLEST_PX),
}


def find_models(metrics: Iterable[str]) -> list[VisionModel]:
  """Lists the models behind metrics, each once, in their order."""
  models = [VISION_MODELS[name] for name in metrics if name in VISION_MODELS]
  return list({model.name: model for model in models}.values())


def compute_map(
  model: VisionModel,
  distorted: Float[np.ndarray, "h w 3"],
  reference: Float[np.ndarray, "h w 3"],
) -> Map:
  """Computes where the model sees that an image in [0, 1] differs from its reference."""
  return np.asarray(model.map(distorted[None], reference[None])[0])


def draw_map(model: VisionModel, values: Map) -> Pixels:
  """Draws a map, from dark blue at 0 to dark red at the model's full scale and above."""
  return jet(np.clip(values / model.full_scale, 0, 1))

"""STAND-IN, until the branch with the classical JND maps is merged: take the other file."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Images = Float[Array, "b h w 3"]
ImagesLike = Float[Array | np.ndarray, "b h w 3"]


class Baseline(NamedTuple):
  """A JND map without weights."""

  function: Callable[[ImagesLike], Images]
  title: str


BASELINES: dict[str, Baseline] = {
  "uniform": Baseline(lambda images: jnp.full_like(images, 1 / 255), "Uniform")
}

"""STAND-IN, until the branch with the classical JND maps is merged: take the other file."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

Images = Float[Array, "b h w 3"]


class Baseline(NamedTuple):
  """A JND map without weights."""

  function: Callable[[Images], Images]
  title: str


BASELINES = {"uniform": Baseline(lambda images: jnp.full_like(images, 1 / 255), "the same value")}

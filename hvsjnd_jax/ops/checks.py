"""Checks of the images that every public function takes."""

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array

from hvsjnd_jax.ops.types import Images

# How far beyond [0, 1] values may lie: a decoder's overshoot passes, 0..255 and -1..1 do not.
_OVERSHOOT = 0.5


def check_type(function: str, name: str, images: Array) -> None:
  """Refuses what is neither float32 nor float64. The names are for the message."""
  if images.dtype not in (jnp.float32, jnp.float64):
    raise TypeError(
      f"{function}: expected float32 or float64 images in [0, 1], got {name} of "
      f"{images.dtype}; divide 8-bit images by 255"
    )


def check_sides(function: str, images: Images, *, smallest_px: int) -> None:
  """Refuses images with a side below `smallest_px`."""
  _, h, w, _ = images.shape
  if min(h, w) < smallest_px:
    raise ValueError(f"{function}: expected sides of at least {smallest_px} pixels, got {h}x{w}")


def check_values(function: str, name: str, images: Array) -> None:
  """Refuses values of another range, where there are any: see `check_pair`."""
  if images.size and not isinstance(images, Tracer):
    with jax.ensure_compile_time_eval():  # a constant inside a function that is traced
      low, high = float(images.min()), float(images.max())
    if low < -_OVERSHOOT or high > 1 + _OVERSHOOT:
      raise ValueError(
        f"{function}: expected values in [0, 1], got {name} from {low:g} to {high:g}"
      )

"""Extents: images that are smaller than the array they lie in.

A window may reach past the end of its image, which then lies at the top left of the array. Its
extent, [B, 2], holds how many rows and columns belong to the image. A layer that is given the
extent treats the image as if the array ended there; None means that it does.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from hvsjnd_jax.ops.types import Images

Extent = Int[Array, "b 2"]


def mask_outside(maps: Images, extent: Extent | None) -> Images:
  """Sets what lies outside the extent to zero, as a convolution pads past an edge."""
  if extent is None:
    return maps
  rows, columns = (
    lax.broadcasted_iota(jnp.int32, maps.shape[:3], axis) < extent[:, axis - 1, None, None]
    for axis in (1, 2)
  )
  return jnp.where((rows & columns)[..., None], maps, 0)


def shrink_extent(extent: Extent | None, factor: int) -> Extent | None:
  """Gives the extent behind layers whose strides multiply to `factor`; sides are rounded up."""
  return None if extent is None else -(-extent // factor)


def extend_past(padded: Images, extent: Extent | None, axis: int, *, step: int) -> Images:
  """Fills the row or column past the extent with the one that lies `step` before it.

  The arrays are padded by one pixel on each side of `axis`: step 1 repeats the edge, step 2
  reflects the image.
  """
  if extent is None:
    return padded
  past = extent[:, axis - 1] + 1
  images = jnp.arange(len(padded))
  if axis == 1:
    return padded.at[images, past].set(padded[images, past - step])
  return padded.at[images, :, past].set(padded[images, :, past - step])

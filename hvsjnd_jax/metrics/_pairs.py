"""What metrics share: checking a pair of images, their layout, and downsampling.

Images are float32 or float64 in [0, 1], NHWC, RGB. Metrics compute on planes, [B·C, H, W]:
rows of one channel lie together, so that filters run along memory.
"""

import jax.numpy as jnp

from hvsjnd_jax.ops.checks import (
  advise_layout,
  check_sides,
  check_type,
  check_values,
  is_channels_first,
)
from hvsjnd_jax.ops.filters import mean_pool
from hvsjnd_jax.ops.types import Images, Planes


def check_pair(
  metric: str, distorted: Images, reference: Images, *, smallest_px: int = 1
) -> tuple[Images, Images]:
  """Refuses what a metric cannot take, and gives the pair as JAX arrays.

  Type and shape are checked always, under `jax.jit` too. Values are checked only where
  there are any: not of what `jax.jit`, `jax.grad` or `jax.vmap` traces. They must be finite,
  and may lie 0.5 beyond [0, 1], for images that are not clipped.

  Args:
    metric: Its name, for the message.
    distorted: Images in [0, 1].
    reference: Same shape.
    smallest_px: What either side must have.

  Returns:
    `distorted` and `reference`.

  Raises:
    TypeError: If one is neither float32 nor float64.
    ValueError: If the two are not of one shape [B, H, W, C], if a side is below
      `smallest_px`, or if values are not finite or those of another range, such as 0..255.
  """
  pair = {"distorted": distorted, "reference": reference}
  for name, images in pair.items():
    check_type(metric, name, images)
  shape = distorted.shape
  if len(shape) != 4 or shape != reference.shape or is_channels_first(shape):
    raise ValueError(
      f"{metric}: expected two images of one shape [B, H, W, C], got distorted "
      f"{shape} and reference {reference.shape}{advise_layout(shape)}"
    )
  check_sides(metric, distorted, smallest_px=smallest_px)
  for name, images in pair.items():
    check_values(metric, name, images)
  return jnp.asarray(distorted), jnp.asarray(reference)


def to_planes(images: Images) -> Planes:
  """Makes a plane of every channel of every image, [B·C, H, W]."""
  return images.transpose(0, 3, 1, 2).reshape(-1, *images.shape[1:3])


def downsample_to_256(planes: Planes) -> Planes:
  """Averages blocks of pixels until the shorter side is about 256, where FSIM is defined.

  Blocks are f x f, f = max(1, round(min(H, W) / 256)), a half rounded to the even number.
  """
  factor = max(1, round(min(planes.shape[1:]) / 256))
  return planes if factor == 1 else mean_pool(planes, factor)

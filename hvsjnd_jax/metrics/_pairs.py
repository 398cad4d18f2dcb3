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
  """Checks a metric's images, by the contract in `ops.checks`, and returns them as JAX arrays.

  Args:
    metric: The metric's name, for the message.
    distorted: Images in [0, 1], of any number of channels.
    reference: Originals, same shape.
    smallest_px: The shortest side that the metric accepts.

  Returns:
    `distorted` and `reference`.

  Raises:
    TypeError: If an image is neither float32 nor float64.
    ValueError: If the two differ in shape or are not [B, H, W, C], if a side is below
      `smallest_px`, or if values are not finite or are outside [0, 1], such as 0..255.
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


def check_rgb_pair(
  metric: str, distorted: Images, reference: Images, *, smallest_px: int = 1
) -> tuple[Images, Images]:
  """Does the same as `check_pair`, for a metric of colour images alone."""
  distorted, reference = check_pair(metric, distorted, reference, smallest_px=smallest_px)
  if (channels := distorted.shape[-1]) != 3:
    raise ValueError(f"{metric}: expected 3 channels, got {channels}")
  return distorted, reference


def to_planes(images: Images) -> Planes:
  """Makes a plane of every channel of every image, [B·C, H, W]."""
  return images.transpose(0, 3, 1, 2).reshape(-1, *images.shape[1:3])


def downsample_to_256(planes: Planes) -> Planes:
  """Averages blocks of pixels until the shorter side is about 256, where FSIM is defined.

  Blocks are f x f, f = max(1, round(min(H, W) / 256)), a half rounded to the even number.
  """
  factor = max(1, round(min(planes.shape[1:]) / 256))
  return planes if factor == 1 else mean_pool(planes, factor)

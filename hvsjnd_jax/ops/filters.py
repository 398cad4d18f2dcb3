"""Small filters: Gaussian and box windows, gradients, local variance, pooling.

Planes are float, [n, h, w]: one channel of each image. Filters are sums of shifted slices, which
XLA fuses into one pass. Convolutions of one channel would be slow on a CPU, and some accelerators
would round their products.
"""

import functools
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool

from hvsjnd_jax.ops.linear_maps import linear
from hvsjnd_jax.ops.types import Planes

Masks = Bool[Array, "n h w"]

Taps = tuple[float, ...]  # the weights of a filter along one axis
Kernel = tuple[Taps, ...]  # the rows of a filter along both

# What lies past an edge: black, or the image mirrored, the outermost pixel repeated.
Border = Literal["zero", "symmetric"]

# The weights of three pixels across a gradient.
PREWITT: Taps = (1, 1, 1)
SOBEL: Taps = (1, 2, 1)
SCHARR: Taps = (3, 10, 3)


def gaussian(radius_px: int, sigma_px: float) -> Taps:
  """Returns a Gaussian of 2 · radius + 1 taps, of sum 1."""
  offsets = np.arange(-radius_px, radius_px + 1)
  window = np.exp(-(offsets**2) / (2 * sigma_px**2))
  return tuple((window / window.sum()).tolist())


def box(radius_px: int) -> Taps:
  """Returns 2 · radius + 1 equal taps, of sum 1."""
  size = 2 * radius_px + 1
  return (1 / size,) * size


def pad(arrays: Array, radius_px: int, border: Border) -> Array:
  """Adds a margin to axes 1 and 2."""
  margin = (radius_px, radius_px)
  others = [(0, 0)] * (arrays.ndim - 3)
  mode = "constant" if border == "zero" else border
  return jnp.pad(arrays, [(0, 0), margin, margin, *others], mode=mode)


def smooth(planes: Planes, taps: Taps) -> Planes:
  """Filters along both axes with an odd number of taps, mirrored past the edges."""
  return smooth_valid(pad(planes, len(taps) // 2, "symmetric"), taps)


def smooth_valid(planes: Planes, taps: Taps) -> Planes:
  """Filters along both axes where all taps lie inside; sides lose `len(taps) - 1` pixels."""
  return _smooth_valid(planes, taps=taps)


def _filter_valid(planes: Planes, *, taps: Taps) -> Planes:
  h, w = (side - len(taps) + 1 for side in planes.shape[1:])
  rows = functools.reduce(jnp.add, (tap * planes[:, i : i + h] for i, tap in enumerate(taps)))
  return functools.reduce(jnp.add, (tap * rows[:, :, i : i + w] for i, tap in enumerate(taps)))


def _filter_back(cotangent: Planes, *, taps: Taps) -> Planes:
  return smooth_valid(pad(cotangent, len(taps) - 1, "zero"), taps[::-1])


# The transpose is the same filter, reversed, of the padded cotangent. The one that JAX would
# derive, a sum of padded slices, takes several times as long to run and to compile.
_smooth_valid = linear(_filter_valid, _filter_back, static=("taps",))


def correlate(planes: Planes, kernel: Kernel, *, border: Border = "symmetric") -> Planes:
  """Filters with a square kernel that is not a product of taps."""
  _, h, w = planes.shape
  padded = pad(planes, len(kernel) // 2, border)
  return functools.reduce(
    jnp.add,
    (
      float(weight) * padded[:, i : i + h, j : j + w]
      for i, row in enumerate(kernel)
      for j, weight in enumerate(row)
      if weight
    ),
  )


def gradient(arrays: Array, taps: Taps, *, border: Border = "symmetric") -> tuple[Array, Array]:
  """Returns the slopes along a row and along a column, over two pixels.

  Each is a difference of two weighted means over three pixels across it. The division comes last,
  so that slopes are exactly 0 where an image is flat, and equal where 8-bit levels are equal.

  Args:
    arrays: Planes, or images [B, H, W, C].
    taps: Weights of the means: `PREWITT`, `SOBEL` or `SCHARR`.
    border: What lies past an edge.
  """
  padded = pad(arrays, 1, border)

  def slope(axis: int, across: int) -> Array:
    length = arrays.shape[across]
    parts = (lax.slice_in_dim(padded, i, i + length, axis=across) for i in range(3))
    sums = functools.reduce(jnp.add, (tap * part for tap, part in zip(taps, parts, strict=True)))
    length = arrays.shape[axis]
    before, after = (lax.slice_in_dim(sums, i, i + length, axis=axis) for i in (0, 2))
    return (after - before) / sum(taps)

  return slope(2, 1), slope(1, 2)


def gradient_magnitude(
  arrays: Array, taps: Taps, *, floor: float, border: Border = "symmetric"
) -> Array:
  """Returns sqrt(x² + y² + floor) of the slopes x and y that `gradient` gives.

  The floor is positive, because the root's own gradient is infinite at 0.
  """
  x, y = gradient(arrays, taps, border=border)
  return jnp.sqrt(x**2 + y**2 + floor)


def local_variance(planes: Planes, radius_px: int) -> Planes:
  """Returns the variance in a square window around each pixel, mirrored past the edges.

  It is the mean over rows of each row's variance, plus the variance of the rows' means. No
  squares of levels are subtracted, which would leave float32 little at low contrast.
  """
  padded = pad(planes, radius_px, "symmetric")
  size = 2 * radius_px + 1

  def moments(arrays: Array, axis: int) -> tuple[Array, Array]:
    length = arrays.shape[axis] - size + 1
    parts = [lax.slice_in_dim(arrays, i, i + length, axis=axis) for i in range(size)]
    mean = functools.reduce(jnp.add, parts) / size
    return mean, functools.reduce(jnp.add, ((part - mean) ** 2 for part in parts)) / size

  row_means, row_variances = moments(padded, 2)
  _, between = moments(row_means, 1)
  within, _ = moments(row_variances, 1)
  return within + between


def mean_pool(planes: Planes, size: int = 2, *, pad_odd: bool = False) -> Planes:
  """Averages size x size pixels with stride `size`.

  What is left over at the end of a side is dropped. With `pad_odd`, and a size of 2, an odd
  side gets a row of zeros at both ends instead, which count in the mean.
  """
  margins = [(side % size, side % size) if pad_odd else (0, 0) for side in planes.shape[1:]]
  window = (1, size, size)
  padding = [(0, 0), *margins]
  return lax.reduce_window(planes, 0.0, lax.add, window, window, padding) / size**2

"""Small windows and edges: what the classical JND models are made of.

Planes are float, [n, h, w]: one channel of each image. Whatever a window reads past an edge is
the image mirrored, the outermost pixel repeated, unless it is said otherwise. Windows are sums
of shifted slices: XLA fuses them, where convolutions of one channel are slow on a CPU, and
round on other hardware.
"""

import functools
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from hvsjnd_jax.ops.types import Planes

Masks = Bool[Array, "n h w"]

Kernel = tuple[tuple[float, ...], ...]

SOBEL: Kernel = ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1))


def transpose(kernel: Kernel) -> Kernel:
  """Its rows as columns."""
  return tuple(zip(*kernel, strict=True))


def correlate(
  planes: Planes, kernel: Kernel, *, beyond: Literal["symmetric", "constant"] = "symmetric"
) -> Planes:
  """sum_ij k_ij · x[y + i, x + j], the window centred, same size.

  Args:
    planes: Images of one channel.
    kernel: Rows of weights, odd in number.
    beyond: Mirrored, or zeros.

  Returns:
    The sums.
  """
  _, h, w = planes.shape
  margins = [(len(kernel) // 2,) * 2, (len(kernel[0]) // 2,) * 2]
  padded = jnp.pad(planes, ((0, 0), *margins), mode=beyond)
  return functools.reduce(
    jnp.add,
    (
      float(weight) * padded[:, i : i + h, j : j + w]
      for i, row in enumerate(kernel)
      for j, weight in enumerate(row)
      if weight
    ),
  )


def smooth(planes: Planes, *, radius_px: int, sigma_px: float) -> Planes:
  """Gaussian window of 2 · radius + 1 pixels, weights of sum 1."""
  offsets = np.arange(-radius_px, radius_px + 1)
  window = np.exp(-(offsets**2) / (2 * sigma_px**2))
  row: Kernel = (tuple((window / window.sum()).tolist()),)
  return correlate(correlate(planes, row), transpose(row))

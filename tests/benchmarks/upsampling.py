"""XLA's own form of `upsampling_conv`, with which the four phases are compared."""

import jax
from jax import lax


def upsample_plainly(images: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes `layers.upsampling_conv` as one convolution of a dilated input."""
  return lax.conv_general_dilated(
    images,
    kernel[::-1, ::-1].swapaxes(2, 3),
    (1, 1),
    ((2, 3), (2, 3)),
    lhs_dilation=(2, 2),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )

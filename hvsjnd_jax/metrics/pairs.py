"""What every metric does with its pair of images: check it, filter it, shrink it.

Images are float in [0, 1], NHWC.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Images = Float[Array, "b h w c"]
Scores = Float[Array, " b"]


def check_pair(metric: str, distorted: Images, reference: Images) -> None:
  for name, images in (("distorted", distorted), ("reference", reference)):
    if not jnp.issubdtype(images.dtype, jnp.floating):
      raise TypeError(
        f"{metric}: expected float images in [0, 1], got {name} of {images.dtype}; "
        "divide 8-bit images by 255"
      )
  if distorted.ndim != 4 or distorted.shape != reference.shape:
    raise ValueError(
      f"{metric}: expected two images of one shape [B, H, W, C], got distorted "
      f"{distorted.shape} and reference {reference.shape}"
    )


def mean_pool(images: Images) -> Images:
  """2x2 mean, stride 2; an odd side is padded with zeros that count, as MS-SSIM does."""
  odd = [(size % 2, size % 2) for size in images.shape[1:3]]
  padding = [(0, 0), *odd, (0, 0)]
  window = (1, 2, 2, 1)
  return lax.reduce_window(images, 0.0, lax.add, window, window, padding) / 4

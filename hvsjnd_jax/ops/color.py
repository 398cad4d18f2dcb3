"""Colour spaces as weights of R, G and B, and linear light."""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float

from hvsjnd_jax.ops.types import RGBImages

Weights = tuple[float, float, float]

LUMA: Weights = (0.299, 0.587, 0.114)  # Y of ITU-R BT.601

# Rows Y, I and Q of NTSC, to three digits.
YIQ: tuple[Weights, ...] = (LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


def clip(values: Float[Array, "..."]) -> Float[Array, "..."]:
  """Clips to [0, 1]; unlike `jnp.clip`, with the whole gradient at exactly 0 and 1."""
  return jnp.where(values < 0, 0, jnp.where(values > 1, 1, values))


def to_linear(values: Float[Array, "..."]) -> Float[Array, "..."]:
  """Returns the linear light of sRGB values, clipped to [0, 1]."""
  values = clip(values)
  # On a CPU a power takes five times as long as this.
  bright = jnp.exp(2.4 * jnp.log((values + 0.055) / 1.055))
  return jnp.where(values <= 0.04045, values / 12.92, bright)


def mix_channels(images: RGBImages, weights: Weights) -> Float[Array, "b h w"]:
  """Returns the weighted sum of R, G and B at every pixel.

  The sum is written out, because a matrix unit would multiply with fewer bits than the images
  have.
  """
  return functools.reduce(jnp.add, (w * images[..., c] for c, w in enumerate(weights)))

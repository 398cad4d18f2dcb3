"""Draws distortions of many kinds, of which stage 1 learns which are seen.

Images are float32 in [0, 1], [B, H, W, 3], RGB, sides multiples of 8. Every image has its own
key. A residual is what a distortion adds to an image; only its direction matters, because it is
scaled to a drawn PSNR.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from hvsjnd_jax.model.masking import threshold
from hvsjnd_jax.model.resizing import resize, upsample_2x
from hvsjnd_jax.noise import random_signs
from hvsjnd_jax.ops.types import RGBImages

Image = Float[Array, "h w 3"]

_Key = Key[Array, ""]

_MIN_PSNR_DB, _MAX_PSNR_DB = 28.0, 40.0

# Noise is drawn as often as blur and compression together, and then some: it is what JND maps
# are made of.
_SHARES = (0.7, 0.15, 0.15)

_LEAST_RMS = 1e-4

# How many cells a side of the random fields has.
_GRAINS = (4, 12, 40)

_BLOCK_PX = 8


_YCBCR = np.asarray(
  [
    [0.299, 0.587, 0.114],
    [-0.168736, -0.331264, 0.5],
    [0.5, -0.418688, -0.081312],
  ]
)

# The cosines of the 8x8 transform, orthonormal, [frequency, pixel].
_COSINES = np.cos(
  np.pi * np.arange(_BLOCK_PX)[:, None] * (2 * np.arange(_BLOCK_PX) + 1) / (2 * _BLOCK_PX)
) * np.sqrt(np.where(np.arange(_BLOCK_PX)[:, None] == 0, 1, 2) / _BLOCK_PX)


def _tabulate_steps() -> Float[np.ndarray, "8 8 3"]:
  """Makes quantisation steps that grow with the frequency as those of JPEG's Annex K do."""
  frequency = np.hypot(*np.indices((_BLOCK_PX, _BLOCK_PX)))
  luma = 12 + 1.1 * frequency**2
  chroma = 17 + 3 * frequency**2
  return np.minimum(np.stack([luma, chroma, chroma], axis=-1), (120, 99, 99))


_STEPS = _tabulate_steps()


def draw_copies(keys: Key[Array, " b"], images: RGBImages, *, copies: int) -> Array:
  """Draws distorted copies of each image, all of one PSNR between 28 and 40 dB.

  Args:
    keys: Sources of everything drawn, one for each image.
    images: Images in [0, 1].
    copies: How many copies of each image.

  Returns:
    The copies, [B, copies, H, W, 3], in [0, 1].
  """
  thresholds = threshold(images)
  return jax.vmap(functools.partial(_draw_copies, copies=copies))(keys, images, thresholds)


def _draw_copies(key: _Key, image: Image, thresholds: Image, *, copies: int) -> Array:
  psnr_key, *residual_keys = jax.random.split(key, copies + 1)
  psnr_db = jax.random.uniform(psnr_key, minval=_MIN_PSNR_DB, maxval=_MAX_PSNR_DB)
  residuals = jax.vmap(_draw_residual, (0, None, None))(jnp.stack(residual_keys), image, thresholds)
  rms = jnp.sqrt(jnp.square(residuals).mean(axis=(1, 2, 3), keepdims=True))
  scale = 10 ** (-psnr_db / 20) / jnp.maximum(rms, _LEAST_RMS)
  return jnp.clip(image[None] + scale * residuals, 0, 1)


def _draw_residual(key: _Key, image: Image, thresholds: Image) -> Image:
  kind_key, key = jax.random.split(key)
  kind = jax.random.choice(kind_key, len(_SHARES), p=jnp.asarray(_SHARES))
  # Under vmap all kinds are computed, and one is kept.
  return jax.lax.switch(kind, (_draw_noise, _draw_blur, _draw_compression), key, image, thresholds)


def _draw_noise(key: _Key, image: Image, thresholds: Image) -> Image:
  """Draws noise scaled by a power of the masking threshold and a random field.

  It is fine or smooth, of shared or of own signs, and more or less of it is in each channel.
  """
  power_key, field_key, sign_key, kind_key, color_key = jax.random.split(key, 5)
  power = jax.random.uniform(power_key, minval=-0.6, maxval=1.3)
  scale = thresholds**power * jnp.exp(_draw_field(field_key, image.shape))
  scale /= jnp.sqrt(jnp.square(scale).mean(axis=(0, 1), keepdims=True))
  signs = random_signs(sign_key, image.shape)
  own, smooth, colored = jax.random.bernoulli(kind_key, jnp.asarray([0.5, 0.25, 0.3]))
  signs = jnp.where(own, signs, signs[..., :1])
  signs = jnp.where(smooth, _smooth(signs), signs)
  colors = jnp.exp(0.5 * jax.random.normal(color_key, (1, 1, 3)))
  return signs * scale * jnp.where(colored, colors, 1)


def _draw_field(key: _Key, shape: tuple[int, ...]) -> Image:
  """Draws a smooth field of random grain and strength, whose exponential modulates noise."""
  h, w, _ = shape
  strength_key, grain_key = jax.random.split(key)
  strength = jax.random.uniform(strength_key, (len(_GRAINS),), maxval=0.8)
  grains = [
    resize(jax.random.normal(jax.random.fold_in(grain_key, cells), (cells, cells, 3)), (h, w))
    for cells in _GRAINS
  ]
  return jnp.stack(grains, axis=-1) @ strength / math.sqrt(len(_GRAINS))


def _draw_blur(key: _Key, image: Image, thresholds: Image) -> Image:
  """Takes away detail: all of the finest, and some of the next coarser."""
  fine = _smooth(image) - image
  coarse = _halve_and_back(image) - image
  return fine + jax.random.uniform(key) * (coarse - fine)


def _smooth(maps: Image) -> Image:
  padded = jnp.pad(maps, ((1, 1), (1, 1), (0, 0)), mode="edge")
  rows = padded[:-2] / 4 + padded[1:-1] / 2 + padded[2:] / 4
  return rows[:, :-2] / 4 + rows[:, 1:-1] / 2 + rows[:, 2:] / 4


def _halve_and_back(maps: Image) -> Image:
  h, w, c = maps.shape
  half = maps.reshape(h // 2, 2, w // 2, 2, c).mean(axis=(1, 3))
  return upsample_2x(half[None])[0]


def _draw_compression(key: _Key, image: Image, thresholds: Image) -> Image:
  """Quantises blocks of 8x8 pixels in YCbCr as JPEG does, more coarsely or less."""
  # Quality 10 to 75 in the scale of the JPEG group's program is 5 to 0.5 times its tables.
  factor = jnp.exp(jax.random.uniform(key, minval=math.log(0.5), maxval=math.log(5.0)))
  h, w, _ = image.shape
  colors = 255 * (image - 0.5) @ jnp.asarray(_YCBCR.T, image.dtype)
  blocks = colors.reshape(h // _BLOCK_PX, _BLOCK_PX, w // _BLOCK_PX, _BLOCK_PX, 3)
  basis = jnp.asarray(_COSINES, image.dtype)
  transform = functools.partial(jnp.einsum, "uy,vx,iyjxc->iujvc", precision="highest")
  steps = factor * jnp.asarray(_STEPS, image.dtype)[None, :, None]
  kept = jnp.round(transform(basis, basis, blocks) / steps) * steps
  colors = transform(basis.T, basis.T, kept).reshape(h, w, 3)
  return colors @ jnp.asarray(np.linalg.inv(_YCBCR).T, image.dtype) / 255 + 0.5 - image

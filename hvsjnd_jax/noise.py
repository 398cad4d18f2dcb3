"""Random signs, and noise of a JND map's amplitude.

Images and maps are float in [0, 1], [B, H, W, 3], RGB. Signs are ±1: the three channels share
them, as in the published method, or each has its own. `noise_scale` finds the scale at which the
noise has a given PSNR.
"""

import zlib
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hvsjnd_jax.ops.checks import check_finite, check_images, check_pixels, check_type
from hvsjnd_jax.ops.types import AnyArray, Pixels, RGBImages

# Whether the three channels of a pixel share one sign, or each has its own.
SignProtocol = Literal["shared", "own"]


def random_signs(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
  """Draws +1 and -1 with equal chances: +1 where uniform noise is at least 0.5.

  Args:
    key: A `jax.random.key`.
    shape: (H, W) or (B, H, W); with a last axis of 3 for signs of each channel's own.

  Returns:
    Signs, float32.

  Examples:
    >>> jnp.unique(random_signs(jax.random.key(0), (8, 8))).tolist()
    [-1.0, 1.0]
  """
  # In float64, to which JAX_ENABLE_X64 would change it, the same key would draw other signs.
  signs = jnp.where(jax.random.uniform(key, shape, jnp.float32) >= 0.5, 1.0, -1.0)
  return signs.astype(jnp.float32)


def draw_signs(
  pixels: Pixels, *, seed: int, protocol: SignProtocol = "shared"
) -> Float[np.ndarray, "h w *c"]:
  """Draws the signs for an image on the host, from a seed and the image itself.

  So they depend neither on the file's name nor on its place among others.

  Args:
    pixels: The image.
    seed: A whole number, >= 0.
    protocol: "shared": the three channels of a pixel share one sign; "own": each channel has
      signs of its own.

  Returns:
    Signs, float32, [H, W] if shared, [H, W, 3] otherwise.

  Raises:
    TypeError, ValueError: If the image is not uint8, [H, W, 3], or there is no such protocol.

  Examples:
    >>> np.unique(draw_signs(np.zeros((8, 8, 3), np.uint8), seed=0)).tolist()
    [-1.0, 1.0]
    >>> draw_signs(np.zeros((8, 8, 3), np.uint8), seed=0, protocol="own").shape
    (8, 8, 3)
  """
  check_pixels("draw_signs", pixels)
  if protocol not in get_args(SignProtocol):
    raise ValueError(f"draw_signs: expected protocol shared or own, got {protocol}")
  rng = np.random.default_rng((seed, zlib.crc32(pixels.tobytes())))
  shape = pixels.shape if protocol == "own" else pixels.shape[:2]
  return rng.choice(np.asarray((-1, 1), np.float32), shape)


def inject(
  images: Float[AnyArray, "b h w 3"],
  jnd: Float[AnyArray, "b h w 3"],
  signs: Float[Array | np.ndarray, "*shape"],
  *,
  lmbda: float | Array = 1.0,
) -> Float[AnyArray, "b h w 3"]:
  """Adds noise of random sign, scaled by the JND map: clip(x + lmbda·r·xj, 0, 1).

  Args:
    images: Images in [0, 1] of any float type, [B, H, W, 3].
    jnd: JND maps, same shape.
    signs: ±1. The three channels share those of shape [H, W] or [B, H, W]; in [H, W, 3] or
      [B, H, W, 3] each has its own.
    lmbda: Noise scale. At 1 the map itself is added; the published README runs 10.

  Returns:
    The distorted images y0, in [0, 1]; a NumPy array if the inputs are.

  Raises:
    TypeError: If images or maps are not arrays of floats.
    ValueError: If the shapes do not fit; outside `jax.jit`, if a value is not finite or one
      of the images lies more than 0.5 beyond [0, 1].

  Source: Jin et al., arXiv 2208.07583.

  Examples:
    >>> images, jnd = jnp.full((1, 8, 8, 3), 0.5), jnp.full((1, 8, 8, 3), 0.0625)
    >>> float(inject(images, jnd, -jnp.ones((8, 8)), lmbda=2).mean())
    0.375
  """
  check_images("inject", images, half=True)
  _check_map(images, jnd)
  if signs.shape in (images.shape[:3], images.shape[1:3]):
    signs = signs[..., None]
  elif signs.shape not in (images.shape, images.shape[1:]):
    raise ValueError(
      f"inject: expected signs {images.shape[1:3]} or {images.shape[:3]}, or one of these with a "
      f"last axis of 3, got {signs.shape}"
    )
  if signs.ndim < images.ndim:
    signs = signs[None]
  return (images + lmbda * signs * jnd).clip(0, 1)


def inject_at_psnr(
  images: RGBImages, maps: RGBImages, signs: RGBImages, *, psnr_db: Float[Array, " b"]
) -> RGBImages:
  """Adds noise whose R, G and B each have a given PSNR, but for what is clipped.

  Three models of vision let noise hide in blue; so the amount of each channel is fixed, and a
  map can only say where it goes.

  Args:
    images: Images in [0, 1].
    maps: JND maps, > 0 somewhere in each channel; their scale does not matter.
    signs: ±1, for each pixel and channel.
    psnr_db: The PSNR of each image's noise.

  Returns:
    The distorted images, in [0, 1].

  Examples:
    >>> images, signs = jnp.full((1, 8, 8, 3), 0.5), jnp.ones((1, 8, 8, 3))
    >>> distorted = inject_at_psnr(images, signs, signs, psnr_db=jnp.asarray([20.0]))
    >>> round(float(distorted.mean()), 4)
    0.6
  """
  rms = jnp.sqrt(jnp.square(maps).mean(axis=(1, 2), keepdims=True))
  wanted = (10 ** (-psnr_db / 20))[:, None, None, None]
  return jnp.clip(images + signs * maps / rms * wanted, 0, 1)


def _check_map(images: Array | np.ndarray, jnd: Array | np.ndarray) -> None:
  check_type("inject", "jnd", jnd, half=True)
  if jnd.shape != images.shape:
    raise ValueError(f"inject: expected jnd of the images' shape {images.shape}, got {jnd.shape}")
  check_finite("inject", "jnd", jnd)

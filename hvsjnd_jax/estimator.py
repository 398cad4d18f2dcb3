"""The public face: image to JND map, noise injection, the perceptual domain.

Images and maps are float in [0, 1], NHWC, RGB, H and W at least 8. All functions are
pure, and work under `jax.jit`, `jax.grad` (reverse mode only) and `jax.vmap`.
"""

import functools
from typing import Any, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from hvsjnd_jax.model import priors, windows
from hvsjnd_jax.model.generator import Resolution
from hvsjnd_jax.model.jnd_model import Analysis, JNDModel
from hvsjnd_jax.model.priors import AttentionLayer, Priors
from hvsjnd_jax.ops.types import RGBImages, RGBImagesLike

MIN_SIDE_PX = 8  # one cell of HVS-SD's feature


_Maps = TypeVar("_Maps", Array, np.ndarray)


def estimate(
  model: JNDModel,
  images: RGBImagesLike,
  *,
  resolution: Resolution | None = None,
  attention: AttentionLayer | None = None,
  window: tuple[int, int] | None = None,
) -> RGBImages:
  """Estimates the JND map: how much change goes unseen, per pixel and channel.

  HVS-SD gives the attention map xc and the input gradient xg; the generator draws
  xj = G(x, xc, xc·xg).

  Args:
    model: What `hvsjnd_jax.load` returned.
    images: Images in [0, 1], [B, H, W, 3], H and W at least 8.
    resolution: "reference" (every map passes through 88x88, as published), "native"
      (detail survives at any size) or "fine" (native, times `masking.threshold`: what
      contrast and luminance mask at each pixel). None: the weights' default.
    attention: "reconstruction" (as the published code) or "feature" (as the paper's
      text). None: the weights' default. Both options are static under `jax.jit`.
    window: Height and width of windows (`windows.plan_window` finds good ones), through
      which images of any size are computed with one compile and in bounded memory, to the
      same maps. None: the images whole, one compile for each size; under `jax.jit` and
      `jax.grad` there is no other way. (`windows.analyze` leaves the maps on the host.)

  Returns:
    JND maps in [0, 1], same shape, float32 as the weights. A batch equals its images
    one by one.

  Raises:
    TypeError: If the images are not floating point.
    ValueError: If the shape is not [B, H, W, 3], or a side is below 8 pixels, or an
      option is unknown, or the window has sides that are no multiples of 8 above 112.

  Source: Jin et al., arXiv 2208.07583.

  Examples:
    >>> estimate(hvsjnd_jax.load(), jnp.zeros((1, 16, 16, 3))).shape
    (1, 16, 16, 3)
  """
  return analyze(model, images, resolution=resolution, attention=attention, window=window).jnd


def analyze(
  model: JNDModel,
  images: RGBImagesLike,
  *,
  resolution: Resolution | None = None,
  attention: AttentionLayer | None = None,
  window: tuple[int, int] | None = None,
) -> Analysis:
  """Estimates the JND map and keeps what it was drawn from, in one pass.

  Args, Raises: As `estimate`.

  Returns:
    The map and the priors.

  Examples:
    >>> seen = analyze(hvsjnd_jax.load(), jnp.zeros((1, 16, 16, 3)))
    >>> seen.jnd.shape, seen.priors.attention.shape
    ((1, 16, 16, 3), (1, 16, 16, 1))
  """
  _check_images("estimate", images)
  _check_sides("estimate", images)
  resolution = resolution or model.resolution
  attention = attention or model.attention
  _check_option("resolution", resolution, Resolution)
  _check_option("attention", attention, AttentionLayer)
  if window is None:
    return _analyze(model, _as_weights(model, images), resolution, attention)
  if isinstance(images, Tracer):
    raise ValueError("estimate: expected no window under jax.jit, jax.grad or jax.vmap")
  maps = windows.analyze(
    model.hvs_sd,
    model.generator,
    np.asarray(images),
    window=window,
    resolution=resolution,
    attention=attention,
  )
  jnd, *seen = map(jnp.asarray, maps)
  return Analysis(jnd, Priors(*seen))


@functools.partial(jax.jit, static_argnames=("resolution", "attention"))
def _analyze(
  model: JNDModel, images: RGBImages, resolution: Resolution, attention: AttentionLayer
) -> Analysis:
  seen = priors.compute_priors(model.hvs_sd, images, attention=attention)
  jnd = model.generator(images, seen.attention, seen.gradient, resolution=resolution)
  return Analysis(jnd, seen)


def degrade(model: JNDModel, images: RGBImagesLike) -> RGBImages:
  """The perceptual-domain image x2: what is left of the image between eye and brain.

  Args:
    model: What `hvsjnd_jax.load` returned.
    images: Images in [0, 1], [B, H, W, 3], H and W at least 8.

  Returns:
    Images of the same shape, float32 as the weights; mostly, not strictly, in [0, 1].

  Raises:
    TypeError, ValueError: As `estimate`.

  Examples:
    >>> degrade(hvsjnd_jax.load(), jnp.zeros((1, 16, 16, 3))).shape
    (1, 16, 16, 3)
  """
  _check_images("degrade", images)
  _check_sides("degrade", images)
  return _degrade(model, _as_weights(model, images))


@jax.jit
def _degrade(model: JNDModel, images: RGBImages) -> RGBImages:
  return priors.degrade(model.hvs_sd, images)


def random_signs(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
  """A map of +1 and -1 with equal chances: +1 where uniform noise is at least 0.5.

  Args:
    key: A `jax.random.key`.
    shape: (H, W) or (B, H, W).

  Returns:
    Signs, float32.

  Examples:
    >>> jnp.unique(random_signs(jax.random.key(0), (8, 8))).tolist()
    [-1.0, 1.0]
  """
  return jnp.where(jax.random.uniform(key, shape) >= 0.5, 1.0, -1.0)


def inject(
  images: Float[_Maps, "b h w 3"],
  jnd: Float[_Maps, "b h w 3"],
  signs: Float[Array | np.ndarray, "*b h w"],
  *,
  lmbda: float | Array = 1.0,
) -> Float[_Maps, "b h w 3"]:
  """Adds noise of random sign, scaled by the JND map: clip(x + lmbda·r·xj, 0, 1).

  Args:
    images: Images in [0, 1], [B, H, W, 3].
    jnd: JND maps, same shape.
    signs: ±1, [H, W] or [B, H, W]; the three channels share them.
    lmbda: Noise scale. At 1 the map itself is added; the published README runs 10.

  Returns:
    The distorted images y0, in [0, 1]; NumPy of NumPy.

  Raises:
    TypeError: If the images are not floating point.
    ValueError: If the shapes do not fit.

  Source: Jin et al., arXiv 2208.07583.

  Examples:
    >>> images, jnd = jnp.full((1, 8, 8, 3), 0.5), jnp.full((1, 8, 8, 3), 0.0625)
    >>> float(inject(images, jnd, -jnp.ones((8, 8)), lmbda=2).mean())
    0.375
  """
  _check_images("inject", images)
  if jnd.shape != images.shape:
    raise ValueError(f"inject: expected jnd of the images' shape {images.shape}, got {jnd.shape}")
  if signs.shape not in (images.shape[:3], images.shape[1:3]):
    raise ValueError(
      f"inject: expected signs {images.shape[1:3]} or {images.shape[:3]}, got {signs.shape}"
    )
  return (images + lmbda * signs[..., None] * jnd).clip(0, 1)


def _as_weights(model: JNDModel, images: RGBImagesLike) -> RGBImages:
  """The images in the precision of the weights: convolutions do not mix two."""
  return jnp.asarray(images, model.generator.conv1.kernel[...].dtype)


def _check_images(function: str, images: RGBImagesLike) -> None:
  if not jnp.issubdtype(images.dtype, jnp.floating):
    raise TypeError(
      f"{function}: expected float images in [0, 1], got {images.dtype}; divide 8-bit images by 255"
    )
  if images.ndim != 4 or images.shape[-1] != 3:
    raise ValueError(f"{function}: expected RGB images [B, H, W, 3], got shape {images.shape}")


def _check_sides(function: str, images: RGBImagesLike) -> None:
  if min(images.shape[1:3]) < MIN_SIDE_PX:
    raise ValueError(
      f"{function}: expected sides of at least {MIN_SIDE_PX} pixels, got {images.shape[1:3]}"
    )


def _check_option(name: str, value: str, option: Any) -> None:
  known = get_args(option)
  if value not in known:
    raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")

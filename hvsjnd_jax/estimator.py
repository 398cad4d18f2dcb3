"""Estimates JND maps, and computes what HVS-SD leaves of an image.

Images and maps are float in [0, 1], NHWC, RGB, H and W at least 8. All functions are
pure, and work under `jax.jit`, `jax.grad`, `jax.jvp` and `jax.vmap`; models have no `jax.jvp`.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from hvsjnd_jax.model import priors, windows
from hvsjnd_jax.model.hvs_sd import HVSSD
from hvsjnd_jax.model.jnd_map import Resolution, draw_jnd
from hvsjnd_jax.model.jnd_model import MIN_SIDE_PX, Analysis, JNDModel
from hvsjnd_jax.model.priors import AttentionLayer, Priors
from hvsjnd_jax.ops.checks import check_images
from hvsjnd_jax.ops.types import RGBImages, RGBImagesLike


def estimate(
  model: JNDModel,
  images: RGBImagesLike,
  *,
  resolution: Resolution | None = None,
  attention_layer: AttentionLayer | None = None,
  window: tuple[int, int] | None = None,
) -> RGBImages:
  """Estimates the JND map: how much change goes unseen, per pixel and channel.

  HVS-SD gives the priors, among them the attention map xc and the input gradient xg, and the
  generator draws the map from the image and these. `model.jnd_map` has the equations.

  Args:
    model: What `hvsjnd_jax.load` returned.
    images: Images in [0, 1] of any float type, [B, H, W, 3], H and W at least 8.
    resolution: For weights of the published generator "reference" (every map passes through
      88x88, as published) or "native" (detail survives at any size); other weights have
      "fine" alone. None means the weights' default.
    attention_layer: "reconstruction" (as the published code) or "feature" (as the paper's
      text). None means the weights' default. Both options are static under `jax.jit`.
    window: Height and width of windows (`windows.plan_window` finds good ones), through
      which images of any size are computed with one compile and in bounded memory, to the
      same maps; there is a warning for windows so small that their overlaps more than double
      the work. None means that images are computed whole, with one compile for each size;
      under `jax.jit` and `jax.grad` that is the only way. `windows.analyze` leaves the maps
      on the host.

  Returns:
    JND maps in [0, 1], same shape, float32 as the weights. A batch equals its images
    one by one.

  Raises:
    TypeError: If the images are not an array of floats.
    ValueError: If the shape is not [B, H, W, 3]; if a side is below 8 pixels; outside
      `jax.jit`, if a value is not finite or lies more than 0.5 beyond [0, 1]; if an option
      is unknown, or not one of the weights'; or if the window has sides that are not
      multiples of 8 above 112.

  Source: Jin et al., arXiv 2208.07583.

  Examples:
    >>> estimate(hvsjnd_jax.load(), jnp.zeros((1, 16, 16, 3))).shape
    (1, 16, 16, 3)
  """
  images = _fetch(images) if window else images
  check_images("estimate", images, smallest_px=MIN_SIDE_PX, half=True)
  return _analyze(model, images, resolution, attention_layer, window).jnd


def analyze(
  model: JNDModel,
  images: RGBImagesLike,
  *,
  resolution: Resolution | None = None,
  attention_layer: AttentionLayer | None = None,
  window: tuple[int, int] | None = None,
) -> Analysis:
  """Estimates the JND map and returns it with the priors that it was drawn from.

  Args, Raises: As `estimate`.

  Returns:
    The map and the priors; None for the priors where the weights have no HVS-SD.

  Examples:
    >>> analysis = analyze(hvsjnd_jax.load(), jnp.zeros((1, 16, 16, 3)))
    >>> analysis.jnd.shape, analysis.priors.attention.shape
    ((1, 16, 16, 3), (1, 16, 16, 1))
  """
  images = _fetch(images) if window else images
  check_images("analyze", images, smallest_px=MIN_SIDE_PX, half=True)
  return _analyze(model, images, resolution, attention_layer, window)


def _fetch(images: RGBImagesLike) -> RGBImagesLike:
  """Copies a device's array to the host, where images of any size are checked without a compile."""
  is_on_device = isinstance(images, jax.Array) and not isinstance(images, Tracer)
  return np.asarray(images) if is_on_device else images


def _analyze(
  model: JNDModel,
  images: RGBImagesLike,
  resolution: Resolution | None,
  attention_layer: AttentionLayer | None,
  window: tuple[int, int] | None,
) -> Analysis:
  options = model.choose_options(resolution, attention_layer)
  if window is None:
    return _analyze_whole(model, jnp.asarray(images, model.param_dtype), *options)
  _, height, width, _ = images.shape
  _warn_of_waste((height, width), window)
  maps = windows.analyze(
    model, images, window=window, resolution=resolution, attention_layer=attention_layer
  )
  jnd, seen = jax.device_put(maps)  # jnp.asarray would compile for every size
  return Analysis(jnd, None if seen is None else Priors(*seen))


def _warn_of_waste(size: tuple[int, int], window: tuple[int, int]) -> None:
  """Warns of a window that is small for the image. A large one may have been chosen for others."""
  height, width = windows.check_window(window)
  if windows.count_pixels([size], window) > height * width and windows.judge_window([size], window):
    # Without numbers of the image, so that Python shows it once, and not for each size.
    reason = "is so small that overlaps more than double the work; windows.plan_window finds others"
    warnings.warn(f"window {height}x{width} {reason}", stacklevel=4)


@functools.partial(jax.jit, static_argnames=("resolution", "attention_layer"))
def _analyze_whole(
  model: JNDModel, images: RGBImages, resolution: Resolution, attention_layer: AttentionLayer
) -> Analysis:
  seen = None
  if model.hvs_sd is not None:
    seen = priors.compute_priors(model.hvs_sd, images, attention_layer=attention_layer)
  return Analysis(draw_jnd(model.generator, images, seen, resolution=resolution), seen)


def degrade(model: JNDModel, images: RGBImagesLike) -> RGBImages:
  """Computes the perceptual-domain image x2: what is left of an image between eye and brain.

  Args:
    model: What `hvsjnd_jax.load` returned.
    images: Images in [0, 1] of any float type, [B, H, W, 3], H and W at least 8.

  Returns:
    Images of the same shape, float32 as the weights; mostly, not strictly, in [0, 1].

  Raises:
    TypeError, ValueError: As `estimate`; also a ValueError if the weights have no HVS-SD.

  Examples:
    >>> degrade(hvsjnd_jax.load(), jnp.zeros((1, 16, 16, 3))).shape
    (1, 16, 16, 3)
  """
  check_images("degrade", images, smallest_px=MIN_SIDE_PX, half=True)
  return _degrade(model.require_hvs_sd("degrade"), jnp.asarray(images, model.param_dtype))


@jax.jit
def _degrade(hvs_sd: HVSSD, images: RGBImages) -> RGBImages:
  return priors.degrade(hvs_sd, images)

"""The JND map: what the generator draws, in the image's size.

  xj = clip(|E(g)|, 0, 1)          "reference" and "native"
  xj = L · min(T(x) · exp(c), 1)   "fine"

with g the map of the published generator, of a quarter of the size, and E a bilinear
enlargement: "reference" takes every map through 88x88 and 176x176, as the published code does
at any image size; "native" doubles it twice, so that detail survives at any size. For images of
176x176 the two are equal. "fine" is the map of our own generator: T is the masking threshold
(`masking`), c what the correction network draws for each pixel, and L the level of the weights,
which gives `lmbda` its meaning. The bound keeps noise at the strongest contrasts from standing out;
generators are trained with it, at level 1.
"""

from typing import Any, Literal

import jax.numpy as jnp

from hvsjnd_jax.model.correction import CorrectionNetwork
from hvsjnd_jax.model.extents import Extent, shrink_extent
from hvsjnd_jax.model.generator import STRIDE, JNDGenerator
from hvsjnd_jax.model.masking import log_threshold
from hvsjnd_jax.model.priors import Priors
from hvsjnd_jax.model.resizing import resize, upsample_2x
from hvsjnd_jax.ops.types import AnyArray, Images, RGBImages

Resolution = Literal["reference", "native", "fine"]

# How many channels the priors have that the correction network is given.
PRIOR_CHANNELS = 7

# Keeps the slope of the root finite.
_LEAST_GRADIENT = 1e-6

_REFERENCE_SIZES = ((88, 88), (176, 176))


def draw_jnd(
  generator: JNDGenerator | CorrectionNetwork,
  images: RGBImages,
  priors: Priors | None,
  *,
  resolution: Resolution,
  extent: Extent | None = None,
) -> RGBImages:
  """Draws the JND map from an image and its priors.

  Args:
    generator: The network: a `CorrectionNetwork` for "fine", else the published generator.
    images: Images in [0, 1]; H and W at least 8.
    priors: Those of the images; None for a correction network that does without.
    resolution: The form of the map; a `CorrectionNetwork` has but one.
    extent: Where the images end (see `extents`); not for "reference".

  Returns:
    The JND map in [0, 1]: how much change goes unseen, per pixel and channel.
  """
  if isinstance(generator, CorrectionNetwork):
    log_thresholds = log_threshold(images, extent)
    known = () if priors is None else _describe(images, priors, log_thresholds)
    correction = generator(images, log_thresholds, known, extent=extent)
    return generator.level * _bound(log_thresholds + correction)
  assert priors is not None
  quarter = generator(images, priors.attention, priors.gradient, extent=extent)
  h, w = images.shape[1:3]
  if resolution == "reference":
    return enlarge_as_published(quarter, (h, w))
  maps = _quadruple(quarter, extent)[:, :h, :w]  # the strides round odd sides up
  return _clip_magnitude(maps)


def masking_map(images: RGBImages) -> RGBImages:
  """Draws the "fine" map that needs no network, min(T(x), 1).

  Args:
    images: Images in [0, 1].

  Returns:
    The map in (0, 1]. Only proportions matter: it has no level.

  Source: ours.
  """
  return _bound(log_threshold(images))


def _bound(log_maps: RGBImages) -> RGBImages:
  return jnp.minimum(jnp.exp(log_maps), 1)


def _describe(images: RGBImages, priors: Priors, log_thresholds: RGBImages) -> tuple[Images, ...]:
  """Gives the priors to the correction network, all in units of about one."""
  # Most of an input gradient is tiny next to its maximum. What is lost counts in thresholds.
  lost = (priors.degraded - images) * jnp.exp(-log_thresholds)
  return priors.attention, jnp.sqrt(priors.gradient + _LEAST_GRADIENT), lost


def enlarge_as_published(quarter: AnyArray, size: tuple[int, int]) -> AnyArray:
  """Turns whole quarter-size maps, [..., h, w, 3], into "reference" maps of a given size."""
  for step in (*_REFERENCE_SIZES, size):
    quarter = resize(quarter, step)
  return _clip_magnitude(quarter)


def _quadruple(quarter: RGBImages, extent: Extent | None) -> RGBImages:
  ends = shrink_extent(extent, STRIDE)
  maps = upsample_2x(quarter, extent=ends)
  return upsample_2x(maps, extent=None if ends is None else 2 * ends)


def _clip_magnitude(maps: AnyArray) -> AnyArray:
  magnitude: Any = abs(maps)
  return magnitude.clip(0, 1)

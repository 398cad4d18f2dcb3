"""The JND map: what the generator draws, enlarged to the image's size.

  xj = clip(|E(g)|, 0, 1)          "reference" and "native"
  xj = clip(|E(g) · T(x)|, 0, 1)   "fine"

with g the generator's map, of a quarter of the size, T the masking threshold (`masking`), and
E a bilinear enlargement: "reference" takes every map through 88x88 and 176x176, as the
published code does at any image size; "native" and "fine" double it twice, so that detail
survives at any size. For images of 176x176 the first two are equal.
"""

from typing import Any, Literal

from jaxtyping import Array, Float

from hvsjnd_jax.model.extents import Extent, shrink_extent
from hvsjnd_jax.model.generator import STRIDE, JNDGenerator
from hvsjnd_jax.model.masking import threshold_within
from hvsjnd_jax.model.resizing import resize, upsample_2x
from hvsjnd_jax.ops.types import AnyArray, RGBImages

Resolution = Literal["reference", "native", "fine"]

_REFERENCE_SIZES = ((88, 88), (176, 176))


def draw_jnd(
  generator: JNDGenerator,
  images: RGBImages,
  attention: Float[Array, "b h w 1"],
  gradient: RGBImages,
  *,
  resolution: Resolution,
  extent: Extent | None = None,
) -> RGBImages:
  """Draws the JND map from an image and its priors.

  Args:
    generator: The network.
    images: Images in [0, 1]; H and W at least 8.
    attention: Attention map in [0, 1] (xc in the paper).
    gradient: Normalised input gradient in [0, 1] (xg in the paper).
    resolution: How the map is enlarged. For "fine" the networks tell by how much an image
      departs from what contrast and luminance alone mask, pixel by pixel.
    extent: Where the images end (see `extents`); not for "reference".

  Returns:
    The JND map in [0, 1]: how much change goes unseen, per pixel and channel.
  """
  quarter = generator(images, attention, gradient, extent=extent)
  h, w = images.shape[1:3]
  if resolution == "reference":
    return enlarge_as_published(quarter, (h, w))
  maps = _quadruple(quarter, extent)[:, :h, :w]  # the strides round odd sides up
  if resolution == "fine":
    maps = maps * threshold_within(images, extent)
  return _clip_magnitude(maps)


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

"""Gradient-magnitude similarity deviation. Images are float in [0, 1], NHWC."""

import jax.numpy as jnp

from hvsjnd_jax.metrics._pairs import check_pair, to_planes
from hvsjnd_jax.ops import filters
from hvsjnd_jax.ops.types import Images, Scores

_STABILITY = 170  # T, on the 0..255 scale

GMSD_SMALLEST_PX = 6  # Prewitt's window of three pixels, before the 2x2 mean


def gmsd(distorted: Images, reference: Images, *, gradient_floor: float = 1e-12) -> Scores:
  """Gradient-magnitude similarity deviation; lower is better, 0 for equal images.

  The score is the standard deviation (n - 1) over pixels and channels of

    (2 g d + T) / (g² + d² + T)

  where g and d are Prewitt gradient magnitudes sqrt(x² + y² + e) of the 2x2-averaged images, with
  zeros around them, and T = 170 on the 0..255 scale. The last row of an odd side is left out.

  With the published e = 1e-12 the root's gradient is of full size however small x and y are, so
  that it amplifies the least noise in flat areas. Where an image is exactly flat (JPEG's blocks,
  saturated skies), x and y are 0 here; in other implementations they are rounding errors, and the
  metric's gradient is noise. To train against it, pass `gradient_floor=1`: flat areas stay quiet,
  and the score changes by a few per cent (0.0574 to 0.0554 for a JPEG photograph).

  Args:
    distorted: Images in [0, 1], [B, H, W, C], with sides of at least 6 pixels.
    reference: Originals, same shape.
    gradient_floor: e, on the 0..255 scale.

  Returns:
    Scores in [0, 0.6], [B].

  Raises:
    TypeError, ValueError: As `psnr`.

  Source: Xue et al., "Gradient magnitude similarity deviation", 2014. Deviation, as in the
  published JND code: the score is of R, G and B together, not of luma, and divides by n - 1, not
  n. For the paper's version, pass luma, [B, H, W, 1].

  Examples:
    >>> image = jnp.full((1, 16, 16, 3), 0.5)
    >>> float(gmsd(image, image)[0])
    0.0
  """
  distorted, reference = check_pair("gmsd", distorted, reference, smallest_px=GMSD_SMALLEST_PX)
  d, r = (
    filters.gradient_magnitude(
      filters.mean_pool(to_planes(images)),
      filters.PREWITT,
      floor=gradient_floor / 255**2,
      border="zero",
    )
    for images in (distorted, reference)
  )
  stability = _STABILITY / 255**2
  # One minus the ratio has the same deviation, and is exactly 0 for equal images.
  difference = (d - r) ** 2 / (d**2 + r**2 + stability)
  deviation = jnp.var(difference.reshape(len(distorted), -1), axis=-1, ddof=1)
  # At equal images the score has its minimum, and the root's own gradient is infinite.
  return jnp.where(deviation > 0, jnp.sqrt(jnp.where(deviation > 0, deviation, 1)), 0)

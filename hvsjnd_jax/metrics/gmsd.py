"""Gradient-magnitude similarity deviation. Images are float in [0, 1], NHWC."""

import jax.numpy as jnp

from hvsjnd_jax.metrics.pairs import Images, Scores, check_pair, mean_pool

_GMSD_STABILITY = 170 / 255**2


def gmsd(distorted: Images, reference: Images, *, gradient_floor: float = 1e-12) -> Scores:
  """Gradient-magnitude similarity deviation; lower is better, 0 for equal images.

  The spatial standard deviation (n - 1) of (2 g d + T) / (g^2 + d^2 + T), where g and d
  are Prewitt gradient magnitudes of the 2x2-averaged images.

  Args:
    distorted: Images in [0, 1].
    reference: Same shape.
    gradient_floor: e in the magnitude sqrt(x^2 + e), on the 0..255 scale. The
      published 1e-12 makes the metric's gradient noise where an image is flat; train
      with 1 or so.

  Returns:
    Scores, [B], >= 0.

  Source: Xue et al., "Gradient magnitude similarity deviation", 2014. Deviation, as in
  the published JND code: computed on R, G and B, not on luma.
  """
  check_pair("gmsd", distorted, reference)

  def magnitude(images: Images) -> Images:
    h, w = images.shape[1:3]
    images = mean_pool(images[:, : h // 2 * 2, : w // 2 * 2])  # an odd row is left out
    images = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = (images[:, :-2] + images[:, 1:-1] + images[:, 2:]) / 3
    columns = (images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]) / 3
    horizontal = rows[:, :, 2:] - rows[:, :, :-2]
    vertical = columns[:, 2:] - columns[:, :-2]
    return jnp.sqrt(horizontal**2 + vertical**2 + gradient_floor / 255**2)

  d, r = magnitude(distorted), magnitude(reference)
  similarity = (2 * d * r + _GMSD_STABILITY) / (d**2 + r**2 + _GMSD_STABILITY)
  deviation = jnp.var(similarity, axis=(1, 2, 3), ddof=1)
  # Equal images: the root's gradient at 0 is infinite; the score's own minimum is there.
  return jnp.where(deviation > 0, jnp.sqrt(jnp.where(deviation > 0, deviation, 1)), 0)

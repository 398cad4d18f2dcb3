"""Losses of three models of human vision.

Images and maps are float32 in [0, 1], NHWC, RGB. A loss returns one value for each image, [B].

A loss is the logarithm of what a model sees, so that a change of one per cent counts alike in
all of them. One model alone is overfitted: maps that hide noise from it show it to the others.
"""

from typing import Literal, get_args

import jax.numpy as jnp

from hvsjnd_jax.metrics import cvvdp, ssimulacra2_distance
from hvsjnd_jax.metrics.butteraugli import butteraugli_map, pool
from hvsjnd_jax.ops.types import RGBImages
from hvsjnd_jax.training.losses import Losses

VisionTerm = Literal["butteraugli", "peaks", "ssimulacra2", "jod"]

VISION_TERMS: tuple[VisionTerm, ...] = get_args(VisionTerm)

# The norm of "peaks": near the maximum, with a gradient at more than one pixel.
_PEAKS_NORM = 16.0

# Keeps logarithms finite where a model sees nothing. Far below what it sees at 40 dB.
_LEAST = 1e-3


def vision_losses(distorted: RGBImages, reference: RGBImages) -> dict[VisionTerm, Losses]:
  """Computes the logarithm of the difference that each model of vision sees.

    "butteraugli"  of Butteraugli's 3-norm
    "peaks"        of Butteraugli's 16-norm, which the most visible spots decide
    "ssimulacra2"  of SSIMULACRA 2's sum S, with a mirrored border
    "jod"          of the JOD that are lost on ColorVideoVDP's 4k display

  Args:
    distorted: Images in [0, 1], sides of at least 113 pixels, as SSIMULACRA 2 needs for all of
      its scales.
    reference: Same shape.

  Returns:
    Losses, [B], by name; all of them are log(0.001) for equal images.

  Source: ours; the models name their own. The border of a training crop is not that of an
  image; with SSIMULACRA 2's own border, of zeros, noise would gather there.

  Examples:
    >>> image = jnp.full((1, 128, 128, 3), 0.5)
    >>> losses = jax.eval_shape(vision_losses, image, image)
    >>> sorted(losses)
    ['butteraugli', 'jod', 'peaks', 'ssimulacra2']
  """
  seen = butteraugli_map(distorted, reference)
  differences: dict[VisionTerm, Losses] = {
    "butteraugli": pool(seen),
    "peaks": pool(seen, norm=_PEAKS_NORM),
    "ssimulacra2": ssimulacra2_distance(distorted, reference, border="symmetric"),
    "jod": 10 - cvvdp(distorted, reference),
  }
  return {name: jnp.log(seen + _LEAST) for name, seen in differences.items()}

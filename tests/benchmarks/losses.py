"""Scores as losses, which are 0 for equal pictures, and the lower the better."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from hvsjnd_jax.evaluation import scores
from hvsjnd_jax.evaluation.scores import ImageScores

Image = Float[np.ndarray, "h w 3"]


class Loss(NamedTuple):
  """A loss: its title in tables, and how it follows from the score."""

  title: str
  of: Callable[[float], float]


LOSSES = {
  "butteraugli_3norm": Loss("Butteraugli", lambda score: score),
  "butteraugli_max": Loss("its max", lambda score: score),
  "ssimulacra2": Loss("SSIMULACRA 2", lambda score: 100 - score),
  "cvvdp": Loss("JOD", lambda score: 10 - score),
  "ssim": Loss("SSIM", lambda score: 1 - score),
  "ms_ssim": Loss("MS-SSIM", lambda score: 1 - score),
  "gmsd": Loss("GMSD", lambda score: score),
  "fsim": Loss("FSIM", lambda score: 1 - score),
}

# Those of the models of human vision.
VISION = ("butteraugli_3norm", "butteraugli_max", "ssimulacra2", "cvvdp")


def to_losses(found: ImageScores, metrics: Sequence[str]) -> Float[np.ndarray, " loss"]:
  """Turns scores into losses, in the order of the metrics; NaN where an image has no score."""
  values = [found[name] for name in metrics]
  pairs = zip(metrics, values, strict=True)
  return np.asarray([np.nan if value is None else LOSSES[name].of(value) for name, value in pairs])


def measure_vision(noisy: Image, reference: Image) -> Float[np.ndarray, " loss"]:
  """Measures the losses of the models of vision, of images in [0, 1]."""
  return to_losses(scores.measure(noisy, reference, VISION, backbones={}), VISION)

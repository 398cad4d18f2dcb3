"""Image-quality metrics: how far a distorted image is from its reference.

Images are float32 or float64 in [0, 1], NHWC, RGB. Every metric is called with `distorted,
reference` and returns one score for each image, [B]; networks and options are keywords. All are
pure functions: `jax.jit`, `jax.grad`, `jax.jvp` and `jax.vmap` work on them.

Three are models of human vision: SSIMULACRA 2, Butteraugli and ColorVideoVDP. Two of them also
map where a difference is seen: `butteraugli_map` and `cvvdp_map`.

`METRICS` lists the metrics by name, for the commands and for tests.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from hvsjnd_jax.metrics.butteraugli import (
  BUTTERAUGLI_SMALLEST_PX,
  butteraugli,
  butteraugli_map,
)
from hvsjnd_jax.metrics.cvvdp import CVVDP_SMALLEST_PX, Display, cvvdp, cvvdp_map
from hvsjnd_jax.metrics.dists import dists
from hvsjnd_jax.metrics.fsim import FSIM_SMALLEST_PX, fsim
from hvsjnd_jax.metrics.gmsd import GMSD_SMALLEST_PX, gmsd
from hvsjnd_jax.metrics.psnr import psnr
from hvsjnd_jax.metrics.ssim import MS_SSIM_SMALLEST_PX, SSIM_SMALLEST_PX, ms_ssim, ssim
from hvsjnd_jax.metrics.ssimulacra2 import (
  SSIMULACRA2_SMALLEST_PX,
  ssimulacra2,
  ssimulacra2_distance,
)
from hvsjnd_jax.ops.types import Scores

__all__ = [
  "METRICS",
  "Display",
  "Metric",
  "butteraugli",
  "butteraugli_map",
  "cvvdp",
  "cvvdp_map",
  "dists",
  "fsim",
  "gmsd",
  "ms_ssim",
  "psnr",
  "ssim",
  "ssimulacra2",
  "ssimulacra2_distance",
]


class Metric(NamedTuple):
  """Describes a metric.

  Attributes:
    function: The metric itself.
    better: Which of two scores is better.
    lowest: The lowest score that images in [0, 1] can have.
    highest: The highest score that they can have.
    equal: The score of equal images.
    smallest_px: The shortest side that the metric accepts.
    bytes_per_pixel: The memory in which it computes the score of a float32 pair, besides the
      pair itself, for each pixel of one image; measured at 1024x1024 on a CPU.
    unit: The score's unit; "" for a plain number.
    backbone: The network that the metric needs, as the keyword of this name.

  Examples:
    >>> METRICS["gmsd"].better, METRICS["gmsd"].smallest_px
    ('lower', 6)
  """

  function: Callable[..., Scores]
  better: Literal["higher", "lower"]
  lowest: float
  highest: float
  equal: float
  smallest_px: int
  bytes_per_pixel: int
  unit: str = ""
  backbone: Literal["vgg16"] | None = None


_reference_ms_ssim = functools.partial(ms_ssim, variant="reference")

_butteraugli_max = functools.partial(butteraugli, norm="max")
_cvvdp_fhd = functools.partial(cvvdp, display="standard_fhd")

METRICS: dict[str, Metric] = {
  "psnr": Metric(psnr, "higher", 0, math.inf, 100, 1, 0, unit="dB"),
  "ssim": Metric(ssim, "higher", 0, 1, 1, SSIM_SMALLEST_PX, 110),
  "ms_ssim": Metric(ms_ssim, "higher", 0, 1, 1, MS_SSIM_SMALLEST_PX, 130),
  "ms_ssim_reference": Metric(_reference_ms_ssim, "higher", 0, 1, 1, MS_SSIM_SMALLEST_PX, 130),
  "gmsd": Metric(gmsd, "lower", 0, 0.6, 0, GMSD_SMALLEST_PX, 35),
  "fsim": Metric(fsim, "higher", 0, 1, 1, FSIM_SMALLEST_PX, 75),
  "dists": Metric(dists, "lower", 0, 2, 0, 1, 110, backbone="vgg16"),
  "ssimulacra2": Metric(ssimulacra2, "higher", -math.inf, 100, 100, SSIMULACRA2_SMALLEST_PX, 190),
  "butteraugli_3norm": Metric(butteraugli, "lower", 0, math.inf, 0, BUTTERAUGLI_SMALLEST_PX, 185),
  "butteraugli_max": Metric(
    _butteraugli_max, "lower", 0, math.inf, 0, BUTTERAUGLI_SMALLEST_PX, 185
  ),
  "cvvdp": Metric(cvvdp, "higher", -math.inf, 10, 10, CVVDP_SMALLEST_PX, 110, unit="JOD"),
  "cvvdp_fhd": Metric(_cvvdp_fhd, "higher", -math.inf, 10, 10, CVVDP_SMALLEST_PX, 110, unit="JOD"),
}

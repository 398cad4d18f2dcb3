"""Image-quality metrics: how far a distorted image is from its reference.

Images are float32 or float64 in [0, 1], NHWC, RGB. Every metric is called with `distorted,
reference` and returns one score for each image, [B]; networks and options are keywords. All are
pure functions: `jax.jit`, `jax.grad` and `jax.vmap` work on them.

`METRICS` lists them by name, for the commands and for tests.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from hvsjnd_jax.metrics.dists import dists
from hvsjnd_jax.metrics.fsim import FSIM_SMALLEST_PX, fsim
from hvsjnd_jax.metrics.gmsd import GMSD_SMALLEST_PX, gmsd
from hvsjnd_jax.metrics.psnr import psnr
from hvsjnd_jax.metrics.ssim import MS_SSIM_SMALLEST_PX, SSIM_SMALLEST_PX, ms_ssim, ssim
from hvsjnd_jax.ops.types import Scores

__all__ = ["METRICS", "Metric", "dists", "fsim", "gmsd", "ms_ssim", "psnr", "ssim"]


class Metric(NamedTuple):
  """Describes a metric.

  Attributes:
    function: The metric itself.
    better: Which of two scores is better.
    lowest: The lowest score that images in [0, 1] can have.
    highest: The highest score that they can have.
    equal: The score of equal images.
    smallest_px: The shortest side that the metric accepts.
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
  unit: str = ""
  backbone: Literal["vgg16"] | None = None


_reference_ms_ssim = functools.partial(ms_ssim, variant="reference")

METRICS: dict[str, Metric] = {
  "psnr": Metric(psnr, "higher", 0, math.inf, 100, 1, unit="dB"),
  "ssim": Metric(ssim, "higher", 0, 1, 1, SSIM_SMALLEST_PX),
  "ms_ssim": Metric(ms_ssim, "higher", 0, 1, 1, MS_SSIM_SMALLEST_PX),
  "ms_ssim_reference": Metric(_reference_ms_ssim, "higher", 0, 1, 1, MS_SSIM_SMALLEST_PX),
  "gmsd": Metric(gmsd, "lower", 0, 0.6, 0, GMSD_SMALLEST_PX),
  "fsim": Metric(fsim, "higher", 0, 1, 1, FSIM_SMALLEST_PX),
  "dists": Metric(dists, "lower", 0, 2, 0, 1, backbone="vgg16"),
}

"""Image-quality metrics: how far a distorted image is from its reference.

Images are float32 or float64 in [0, 1], NHWC, RGB. Every metric takes `distorted,
reference` and returns one score for each image, [B]; what it needs more, and every option,
is given by name. All are pure functions: `jax.jit`, `jax.grad` and `jax.vmap` work on them.

`METRICS` is the table of them, by name, which the commands read.
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
  """What is known of a metric.

  Attributes:
    function: Of `distorted, reference`, and of the network that `backbone` names.
    better: Which of two scores is the better one.
    lowest: The lowest score of images in [0, 1].
    highest: The highest.
    equal: The score of equal images.
    smallest_px: The least that either side may have.
    unit: Of the score; empty for a plain number.
    backbone: The network that it must be given, by this name; None for none.

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


_released_ms_ssim = functools.partial(ms_ssim, variant="reference")

METRICS: dict[str, Metric] = {
  "psnr": Metric(psnr, "higher", 0, math.inf, 100, 1, unit="dB"),
  "ssim": Metric(ssim, "higher", 0, 1, 1, SSIM_SMALLEST_PX),
  "ms_ssim": Metric(ms_ssim, "higher", 0, 1, 1, MS_SSIM_SMALLEST_PX),
  "ms_ssim_reference": Metric(_released_ms_ssim, "higher", 0, 1, 1, MS_SSIM_SMALLEST_PX),
  "gmsd": Metric(gmsd, "lower", 0, 0.6, 0, GMSD_SMALLEST_PX),
  "fsim": Metric(fsim, "higher", 0, 1, 1, FSIM_SMALLEST_PX),
  "dists": Metric(dists, "lower", 0, 2, 0, 1, backbone="vgg16"),
}

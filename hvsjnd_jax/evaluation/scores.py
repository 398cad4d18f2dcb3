"""Scores of distorted images: how they are measured, averaged and worded.

A metric that an image is too small for has the score None. PSNR has four: psnr, and psnr_r,
psnr_g and psnr_b of the channels.
"""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from hvsjnd_jax import weights
from hvsjnd_jax.metrics import METRICS
from hvsjnd_jax.metrics.backbones import VGG16
from hvsjnd_jax.metrics.psnr import to_decibels
from hvsjnd_jax.ops.types import Images, Scores

Image = Float[np.ndarray, "h w 3"]

# The scores of one image, or their means, by the metric's name.
ImageScores = dict[str, float | None]

# The scores by the row's name: of each model, or at each lmbda.
ScoreTable = dict[str, ImageScores]

# The networks that metrics need, by name.
Backbones = dict[str, VGG16]

CHANNEL_PSNR = ("psnr_r", "psnr_g", "psnr_b")

ALL_PSNR = (*CHANNEL_PSNR, "psnr")

# Two norms of one map of differences.
_OF_ONE_MAP = ("butteraugli_3norm", "butteraugli_max")


def parse_metrics(text: str) -> tuple[str, ...]:
  """Parses names of metrics, separated by commas; duplicates count once.

  Raises:
    ValueError: If one is unknown; the message lists those that are known.
  """
  names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
  for name in names:
    if name not in METRICS:
      raise ValueError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
  return names


def load_backbones(metrics: Sequence[str], *, vgg16: Path | None) -> Backbones:
  """Loads the networks that the metrics need, from the folder of each.

  Raises:
    WeightsError: If a folder is missing or damaged; the message says how to make one.
  """
  needing = [name for name in metrics if METRICS[name].backbone == "vgg16"]
  if not needing:
    return {}
  try:
    return {"vgg16": weights.load_vgg16(vgg16)}
  except weights.WeightsError as error:
    if vgg16 is not None:
      raise
    raise weights.WeightsError(
      f"--metrics {needing[0]}: {error}; then add --vgg16 DIR to this command"
    ) from None


def measure(
  distorted: Image, reference: Image, metrics: Sequence[str], *, backbones: Backbones
) -> ImageScores:
  """Scores one image: all four of PSNR, and the metrics asked for.

  PSNR is computed on the host, the others by JAX, which compiles them for each size anew,
  and one after the other, so that they never need more memory than `bytes_per_pixel` tells.

  Args:
    distorted: Image in [0, 1], [H, W, 3], float32.
    reference: Image of the same shape.
    metrics: Names in `METRICS`.
    backbones: What `load_backbones` returned.

  Returns:
    The scores; None for a metric that the image is too small for.
  """
  errors = measure_errors(distorted, reference)
  psnrs = to_decibels(np.append(errors, errors.mean()))
  measured: ImageScores = dict(zip(ALL_PSNR, map(float, psnrs), strict=True))
  side = min(reference.shape[:2])
  fitting = [name for name in metrics if name != "psnr" and METRICS[name].smallest_px <= side]
  for group in group_metrics(fitting):
    scores = _score(distorted[None], reference[None], backbones, metrics=group)
    measured |= {name: float(score[0]) for name, score in scores.items()}
  return dict.fromkeys(metrics) | measured


def bytes_per_pixel(metrics: Sequence[str]) -> int:
  """Returns the memory that `measure` needs for each pixel, besides the images."""
  return max(METRICS[name].bytes_per_pixel for name in metrics)


def group_metrics(metrics: Iterable[str]) -> list[tuple[str, ...]]:
  """Groups metrics: those of one group cost hardly more than one of them."""
  groups: dict[str, list[str]] = {}
  for name in metrics:
    groups.setdefault("butteraugli" if name in _OF_ONE_MAP else name, []).append(name)
  return [tuple(names) for names in groups.values()]


def measure_errors(distorted: Image, reference: Image) -> Float[np.ndarray, "3"]:
  """Computes each channel's mean squared error, of which PSNR is made."""
  # Row by row, so that no array of the image's size is made.
  rows = [
    np.square(d - r, dtype=np.float64).mean(axis=0)
    for d, r in zip(distorted, reference, strict=True)
  ]
  return np.mean(rows, axis=0)


@functools.partial(jax.jit, static_argnames="metrics")
def _score(
  distorted: Images, reference: Images, backbones: Backbones, *, metrics: tuple[str, ...]
) -> dict[str, Scores]:
  def score(name: str) -> Scores:
    metric = METRICS[name]
    networks = {} if metric.backbone is None else {metric.backbone: backbones[metric.backbone]}
    return metric.function(distorted, reference, **networks)

  return {name: score(name) for name in metrics}


def select(scores: ImageScores, metrics: Sequence[str]) -> ImageScores:
  """Selects the scores of these metrics, in order; for PSNR all four."""
  names: list[str] = []
  for name in metrics:
    names += ALL_PSNR if name == "psnr" else [name]
  return {name: scores[name] for name in names}


def list_scores(metrics: Sequence[str]) -> list[str]:
  """Lists the scores of these metrics, those of single channels last."""
  return [*metrics, *(CHANNEL_PSNR if "psnr" in metrics else ())]


def average(images: Sequence[ImageScores]) -> ImageScores:
  """Averages each score over the images that have it; None where no image has."""
  mean: ImageScores = {}
  for name in images[0] if images else ():
    values = [value for scores in images if (value := scores[name]) is not None]
    mean[name] = float(np.mean(values)) if values else None
  return mean


def describe(
  scores: ImageScores, metrics: Sequence[str], *, size: tuple[int, int] | None = None
) -> str:
  """Words scores, one line each; PSNR as the published code prints it.

  Args:
    scores: Those of one image, or their means.
    metrics: Which ones, in order.
    size: Height and width of the one image.
  """
  lines: list[str] = []
  for name, value in select(scores, metrics).items():
    if value is None:
      least = METRICS[name].smallest_px
      subject = "no image is large enough" if size is None else f"{size[1]}x{size[0]} pixels"
      lines.append(f"{name}: {subject}; at least {least}x{least} are needed")
    elif name == "psnr":
      lines.append(f"Total PSNR: {value:.4f}")
    elif name in CHANNEL_PSNR:
      lines.append(f"Result-{name[-1].upper()} PSNR: {value:.4f}")
    else:
      lines.append(f"{name}: {value:.6f}")
  return "\n".join(lines)

"""What the commands report of a distorted image: measured, averaged, put into words.

A figure is a metric's score of one image, by the metric's name, or None where the image is
too small for it. PSNR is measured also by channel: psnr_r, psnr_g, psnr_b.
"""

import functools
from collections.abc import Sequence
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

Figures = dict[str, float | None]

# The networks that metrics need, by name.
Networks = dict[str, VGG16]

PSNR_FIGURES = ("psnr_r", "psnr_g", "psnr_b", "psnr")


def parse_metrics(text: str) -> tuple[str, ...]:
  """Names of metrics, separated by commas; each once.

  Raises:
    ValueError: If one is unknown; the message lists those that are.
  """
  names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
  for name in names:
    if name not in METRICS:
      raise ValueError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
  return names


def load_backbones(metrics: Sequence[str], *, vgg16: Path | None) -> Networks:
  """Loads what the metrics need, from the folder of each network.

  Raises:
    WeightsError: If a folder is missing or damaged; it says how to make one.
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
  distorted: Image, reference: Image, metrics: Sequence[str], *, backbones: Networks
) -> Figures:
  """PSNR in all its figures, and the metrics asked for, of one image.

  PSNR is measured on the host, the others by JAX, which compiles them for each size anew.

  Args:
    distorted: Image in [0, 1], [H, W, 3], float32.
    reference: Same shape.
    metrics: Names in `METRICS`.
    backbones: What `load_backbones` gave.

  Returns:
    The figures; None for a metric whose smallest size the image does not have.
  """
  errors = measure_errors(distorted, reference)
  figures: Figures = dict(
    zip(PSNR_FIGURES, map(float, to_decibels(np.append(errors, errors.mean()))), strict=True)
  )
  side = min(reference.shape[:2])
  fitting = tuple(name for name in metrics if name != "psnr" and METRICS[name].smallest_px <= side)
  if fitting:
    scores = _score(distorted[None], reference[None], backbones, metrics=fitting)
    figures |= {name: float(score[0]) for name, score in scores.items()}
  return dict.fromkeys(metrics) | figures


def measure_errors(distorted: Image, reference: Image) -> Float[np.ndarray, "3"]:
  """Each channel's mean squared error, of which PSNR is made."""
  # Row by row: no array of the image's size is made.
  rows = [
    np.square(d - r, dtype=np.float64).mean(axis=0)
    for d, r in zip(distorted, reference, strict=True)
  ]
  return np.mean(rows, axis=0)


@functools.partial(jax.jit, static_argnames="metrics")
def _score(
  distorted: Images, reference: Images, backbones: Networks, *, metrics: tuple[str, ...]
) -> dict[str, Scores]:
  def score(name: str) -> Scores:
    metric = METRICS[name]
    networks = {} if metric.backbone is None else {metric.backbone: backbones[metric.backbone]}
    return metric.function(distorted, reference, **networks)

  return {name: score(name) for name in metrics}


def select(figures: Figures, metrics: Sequence[str]) -> Figures:
  """The figures of these metrics, in order; of PSNR also each channel's."""
  names: list[str] = []
  for name in metrics:
    names += PSNR_FIGURES if name == "psnr" else [name]
  return {name: figures[name] for name in names}


def average(records: Sequence[Figures]) -> Figures:
  """The mean of each figure, over the images that have it; None if none has."""
  mean: Figures = {}
  for name in records[0] if records else ():
    values = [value for record in records if (value := record[name]) is not None]
    mean[name] = float(np.mean(values)) if values else None
  return mean


def describe(
  figures: Figures, metrics: Sequence[str], *, size: tuple[int, ...] | None = None
) -> str:
  """A line for each metric; for PSNR four, in the published code's words.

  Args:
    figures: Of one image, or a mean.
    metrics: Which, in order.
    size: Height and width of the one image.
  """
  lines: list[str] = []
  for name, value in select(figures, metrics).items():
    if value is None:
      least = METRICS[name].smallest_px
      subject = "no image is large enough" if size is None else f"{size[1]}x{size[0]} pixels"
      lines.append(f"{name}: {subject}; at least {least}x{least} are needed")
    elif name == "psnr":
      lines.append(f"Total PSNR: {value:.4f}")
    elif name in PSNR_FIGURES:
      lines.append(f"Result-{name[-1].upper()} PSNR: {value:.4f}")
    else:
      lines.append(f"{name}: {value:.6f}")
  return "\n".join(lines)

"""Measure whether distances in the perceptual domain predict what is seen.

  python -m tests.benchmarks.domain --data ../shared/data
  python -m tests.benchmarks.domain --data ../shared/data --models default paper W

The middle of each Kodak image, 256x256, is distorted twelve times, at 32.57 dB: by noise scaled by
powers of a masking threshold and random fields, with signs shared by the channels or of their
own, fine or smooth; by blur; and by JPEG. Within an image, the copies are ranked by a measure and
by each of three models of vision; figures are Spearman's rank correlation, mean over the images.
The measures are the root-mean-square distance of x2 and y2 (of the HVS-SD of each model), MS-SSIM
of x2 and y2, and MS-SSIM, FSIM and GMSD of pixels.

The last column is about people. TID2013 tells how the same white noise was liked on each of these
images (levels 2 to 4: 30, 27 and 24 dB). The rank correlation of the measure and the opinion is
over the images, signed so that +1 is right everywhere.
"""

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
import scipy.stats
from jaxtyping import Array, Float
from PIL import Image
from tqdm import tqdm

from hvsjnd_jax import weights
from hvsjnd_jax.cli.command import make_parser, report_error, run_command
from hvsjnd_jax.data.images import read_image
from hvsjnd_jax.metrics import fsim, gmsd, ms_ssim
from hvsjnd_jax.model.hvs_sd import HVSSD
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.runtime.compilation_cache import keep_compilations
from tests.benchmarks.human import read_noise_study
from tests.benchmarks.losses import LOSSES, VISION, measure_vision
from tests.benchmarks.pictures import cut_middle
from tests.benchmarks.tables import align
from tests.support.former_masking import former_threshold

_VIEW_PX = 256
_COPIES = 12
_PSNR_DB = 32.57
_OPINION_PSNR_DB = (30.0, 27.0, 24.0)
_KINDS = ("noise", "noise", "noise", "noise", "blur", "jpeg", "smooth noise")
_SEED = 5

View = Float[np.ndarray, "h w 3"]

# (distorted [B, H, W, 3], reference) -> [B], the greater, the more differs
Measure = Callable[[Any, Any], Any]


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  parser = make_parser("domain", __doc__, module="tests.benchmarks.domain")
  parser.add_argument(
    "--data", type=Path, required=True, metavar="DIR", help="holds the folders human and kodak"
  )
  parser.add_argument(
    "--models", nargs="+", default=["default", "paper"], metavar="M", help="(default and paper)"
  )
  args = parser.parse_args(argv)
  return run_command("domain", lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
  keep_compilations(partial(report_error, "domain"))
  study = read_noise_study(args.data)
  measures = _list_measures(args.models)
  correlations: dict[str, list[list[float]]] = {name: [] for name in measures}
  disliked: dict[str, list[float]] = {name: [] for name in measures}
  rng = np.random.default_rng(_SEED)
  for file in tqdm(study.files, unit="image", disable=None):
    pixels = cut_middle(read_image(file), _VIEW_PX)
    image = pixels.astype(np.float32) / 255
    copies = np.stack([_distort(image, draw_residual(rng, pixels)) for _ in range(_COPIES)])
    noisy = [
      _distort(image, rng.normal(size=image.shape), psnr_db=psnr_db) for psnr_db in _OPINION_PSNR_DB
    ]
    seen = np.asarray([measure_vision(copy, image) for copy in copies])
    for name, measure in measures.items():
      values = np.asarray(measure(copies, np.broadcast_to(image, copies.shape)))
      ranks = [_correlate(values, column) for column in seen.T]
      correlations[name].append(ranks)
      stacked = np.asarray(noisy, np.float32)
      disliked[name].append(float(measure(stacked, np.broadcast_to(image, stacked.shape)).mean()))
  rows = [["", *(LOSSES[name].title for name in VISION), "people, noise"]]
  for name, each in correlations.items():
    people = -_correlate(disliked[name], study.judged)
    rows.append([name, *(f"{value:+.2f}" for value in (*np.mean(each, axis=0), people))])
  print("Spearman's rank correlation with what models of vision and people see, +1 being right")
  print(align(rows))
  return 0


def _correlate(values: Sequence[float] | np.ndarray, others: Sequence[float] | np.ndarray) -> float:
  result: Any = scipy.stats.spearmanr(values, others)
  return float(result.statistic)


def _list_measures(models: Sequence[str]) -> dict[str, Measure]:
  measures: dict[str, Measure] = {}
  for name in models:
    hvs_sd = weights.load(name).require_hvs_sd(name)
    measures[f"{name}: distance of x2, y2"] = jax.jit(_in_domain(hvs_sd, _root_mean_square))
    measures[f"{name}: MS-SSIM of x2, y2"] = jax.jit(
      _in_domain(hvs_sd, lambda d, r: -ms_ssim(d, r))
    )
  measures["MS-SSIM of pixels"] = jax.jit(lambda d, r: -ms_ssim(d, r))
  measures["FSIM of pixels"] = jax.jit(lambda d, r: -fsim(d, r))
  measures["GMSD of pixels"] = jax.jit(gmsd)
  return measures


def _in_domain(hvs_sd: HVSSD, measure: Measure) -> Measure:
  return lambda distorted, reference: measure(*map(_clip(hvs_sd), (distorted, reference)))


def _clip(hvs_sd: HVSSD) -> Callable[[Array], Array]:
  return lambda images: jnp.clip(hvs_sd(images), 0, 1)


def _root_mean_square(distorted: Array, reference: Array) -> Array:
  return jnp.sqrt(jnp.square(distorted - reference).mean(axis=(1, 2, 3)))


def _distort(image: View, residual: View, *, psnr_db: float = _PSNR_DB) -> View:
  rms = np.sqrt(np.square(residual).mean())
  return (image + 10 ** (-psnr_db / 20) / rms * residual).clip(0, 1).astype(np.float32)


def draw_residual(rng: np.random.Generator, pixels: Pixels) -> View:
  """Draws what a distortion of a random kind adds to a picture, of any scale."""
  image = pixels.astype(np.float64) / 255
  kind = rng.choice(_KINDS)
  if kind == "blur":
    return _blur(image, rng.uniform(0.5, 2)) - image
  if kind == "jpeg":
    buffer = io.BytesIO()
    quality, subsampling = int(rng.integers(8, 75)), int(rng.choice([0, 2]))
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(buffer)) / 255 - image
  return _draw_noise(rng, pixels, smooth=kind != "noise")


def _draw_noise(rng: np.random.Generator, pixels: Pixels, *, smooth: bool) -> View:
  shape = pixels.shape
  field = _blur(rng.normal(size=shape), np.exp(rng.uniform(np.log(2), np.log(30))))
  if rng.random() < 0.5:
    field = field[..., :1]
  scale = former_threshold(pixels) ** rng.uniform(-0.6, 1.3)
  scale = scale * np.exp(rng.uniform(0, 0.8) * field / field.std())
  scale /= np.sqrt(np.square(scale).mean(axis=(0, 1)))
  signs = rng.choice([-1.0, 1.0], shape if rng.random() < 0.5 else (*shape[:2], 1))
  if smooth:
    signs = _blur(signs, rng.uniform(0.4, 1.5))
  colors = np.exp(rng.normal(size=3) * 0.5 * (rng.random() < 0.3))
  return signs * scale * colors


def _blur(maps: np.ndarray, sigma: float) -> np.ndarray:
  return scipy.ndimage.gaussian_filter(maps, (sigma, sigma, 0), mode="reflect")


if __name__ == "__main__":
  sys.exit(main())

"""Measure what JPEG, WebP and AVIF save when the JND map filters a photograph beforehand.

  python -m tests.benchmarks.compression --path ../shared/data/kodak
  python -m tests.benchmarks.compression --path PHOTOS --model fast --side 256

The filter moves each value towards a smoothed copy, by at most lmbda x JND: by half of the
just-noticeable, lmbda 5, or by all of it, 10. "even" has one bound everywhere, the mean of that of
the map. Filtered pictures are rounded to 8 bits, so that a bound below half a gray level does
nothing. All are encoded at several qualities and scored against the unfiltered photograph.

A figure is a BD-rate (VCEG-M33, with PCHIP as the curve): how many per cent more bits the filtered
photograph takes at the same score, mean over the scores that both reach; negative is saved. It is
the mean over the photographs, with the least and the most in brackets. "bits, at one quality" is
the change of size when the encoder's quality stays, whatever that does to the scores.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import scipy.interpolate
import scipy.ndimage
from jaxtyping import Float
from PIL import Image
from tqdm import tqdm

from hvsjnd_jax.cli.command import make_parser, report_error, run_command
from hvsjnd_jax.cli.options import add_photographs
from hvsjnd_jax.cli.photographs import find_photographs, plan_window
from hvsjnd_jax.data.images import read_image, to_uint8
from hvsjnd_jax.evaluation.estimators import Estimator, load_estimator
from hvsjnd_jax.evaluation.scores import measure
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.runtime.compilation_cache import keep_compilations
from hvsjnd_jax.runtime.jobs import run_job
from tests.benchmarks.losses import LOSSES
from tests.benchmarks.pictures import cut_middle
from tests.benchmarks.tables import align

_CODECS = {"JPEG": "JPEG", "WebP": "WEBP", "AVIF": "AVIF"}
_QUALITIES = (30, 50, 70, 80, 90, 95)
_SCORES = ("ssimulacra2", "cvvdp")
_LMBDAS = (5.0, 10.0)
_SIGMA_PX = 1.5

View = Float[np.ndarray, "h w 3"]


class Curve(NamedTuple):
  """Bytes and scores of a photograph, as the quality rises."""

  sizes: Float[np.ndarray, " quality"]
  scores: dict[str, Float[np.ndarray, " quality"]]


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  args = _parse(argv)
  return run_command("compression", lambda: _run(args))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("compression", __doc__, module="tests.benchmarks.compression")
  add_photographs(parser)
  parser.add_argument("--model", default="default", metavar="NAME", help="as for compare (default)")
  parser.add_argument(
    "--side", type=int, metavar="PX", help="encode only the middle, PX x PX (default: all of it)"
  )
  return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> int:
  keep_compilations(partial(report_error, "compression"))
  photographs = find_photographs(args.path)
  estimator = load_estimator(args.model, plan_window(photographs))
  changes: dict[tuple[str, str], list[list[float]]] = {}
  for path in tqdm(photographs.paths, unit="image", disable=None):
    pixels = read_image(path)
    side = args.side or max(pixels.shape)
    plain = cut_middle(pixels, side)
    filtered = {
      name: cut_middle(version, side) for name, version in _filter_all(pixels, estimator).items()
    }
    for title, codec in _CODECS.items():
      unfiltered = _encode_all(plain, plain, codec)
      for name, version in filtered.items():
        curve = _encode_all(version, plain, codec)
        changes.setdefault((title, name), []).append(_compare(curve, unfiltered))
  rows = [["", "filter", *(LOSSES[score].title for score in _SCORES), "bits, at one quality"]]
  for (title, name), each in changes.items():
    rows.append([title, name, *(_summarize(column) for column in np.transpose(each))])
  print(align(rows))
  return 0


def _filter_all(pixels: Pixels, estimator: Estimator) -> dict[str, Pixels]:
  image, jnd = pixels.astype(np.float32) / 255, run_job(estimator(pixels)).jnd
  maps = {"JND": jnd, "even": np.full_like(jnd, jnd.mean())}
  bounds = {f"{name}, {lmbda:g}": lmbda * each for name, each in maps.items() for lmbda in _LMBDAS}
  return {name: to_uint8(prefilter(image, bound)) for name, bound in bounds.items()}


def prefilter(image: View, bound: View) -> View:
  """Moves an image towards a smoothed copy, each value by at most its bound."""
  smooth = scipy.ndimage.gaussian_filter(image, (_SIGMA_PX, _SIGMA_PX, 0), mode="nearest")
  return image + np.clip(smooth - image, -bound, bound)


def _encode_all(pixels: Pixels, original: Pixels, codec: str) -> Curve:
  reference = original.astype(np.float32) / 255
  sizes: list[int] = []
  scores: dict[str, list[float]] = {name: [] for name in _SCORES}
  for quality in _QUALITIES:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, codec, quality=quality)
    decoded = np.asarray(Image.open(file).convert("RGB"), np.float32) / 255
    found = measure(decoded, reference, _SCORES, backbones={})
    sizes.append(file.getbuffer().nbytes)
    for name in _SCORES:
      score = found[name]
      scores[name].append(np.nan if score is None else score)
  return Curve(np.asarray(sizes, float), {k: np.asarray(v) for k, v in scores.items()})


def _compare(curve: Curve, base: Curve) -> list[float]:
  rates = [
    bd_rate(curve.sizes, curve.scores[name], base.sizes, base.scores[name]) for name in _SCORES
  ]
  return [*rates, 100 * float(np.expm1(np.log(curve.sizes / base.sizes).mean()))]


def bd_rate(
  sizes: Float[np.ndarray, " n"],
  scores: Float[np.ndarray, " n"],
  base_sizes: Float[np.ndarray, " n"],
  base_scores: Float[np.ndarray, " n"],
) -> float:
  """Computes the per cent of bits that a codec takes more than its base at equal scores.

  The logarithm of the size is interpolated over the score, by PCHIP, and averaged over the scores
  that both reach. Points that cost more than another without a better score are left out.

  Returns:
    The change; NaN if no scores are reached by both.

  Source:
    G. Bjøntegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001,
    which fits a cubic polynomial where this has PCHIP.
  """
  curves = [_interpolate(sizes, scores), _interpolate(base_sizes, base_scores)]
  low, high = max(curve.x[0] for curve in curves), min(curve.x[-1] for curve in curves)
  if not low < high:
    return np.nan
  ours, theirs = (float(curve.integrate(low, high)) / (high - low) for curve in curves)
  return 100 * float(np.expm1(ours - theirs))


def _interpolate(
  sizes: Float[np.ndarray, " n"], scores: Float[np.ndarray, " n"]
) -> scipy.interpolate.PchipInterpolator:
  order = np.argsort(sizes)
  sizes, scores = sizes[order], scores[order]
  best_before = np.maximum.accumulate(np.r_[-np.inf, scores[:-1]])
  useful = scores > best_before
  return scipy.interpolate.PchipInterpolator(scores[useful], np.log(sizes[useful]))


def _summarize(changes: Float[np.ndarray, " image"]) -> str:
  return f"{changes.mean():+.1f} [{changes.min():+.1f}, {changes.max():+.1f}]"


if __name__ == "__main__":
  sys.exit(main())

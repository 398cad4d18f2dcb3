"""Judge JND maps against the masking threshold of commit e282939, image by image.

  python -m tests.benchmarks.judge --path ../shared/data/kodak
  python -m tests.benchmarks.judge --path PHOTOS --models W masking --psnr 32.57
  python -m tests.benchmarks.judge --path PHOTOS --models default --strength 0.8 0.6

Noise scaled by each map has one PSNR in each of R, G and B, as in `hvsjnd_jax.compare`, once
with signs that the channels share and once with signs of each channel's own. Figures are means
over the images of the change of a loss, in per cent of what the former threshold has on the same
image; negative is less visible. In brackets stands the share of the images that are better, in
per cent. The losses are Butteraugli's 3-norm and maximum, 100 - SSIMULACRA 2, and 10 - JOD
(ColorVideoVDP on a 4k display), then 1 - SSIM, 1 - MS-SSIM, GMSD and 1 - FSIM.

A map at strength s is map^s times the former threshold^(1 - s).
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

import numpy as np
from tqdm import tqdm

from hvsjnd_jax.cli.command import make_parser, report_error, run_command
from hvsjnd_jax.cli.options import add_photographs
from hvsjnd_jax.cli.photographs import find_photographs, plan_window
from hvsjnd_jax.data.images import read_picture, to_uint8
from hvsjnd_jax.evaluation import comparison
from hvsjnd_jax.evaluation.comparison import Case
from hvsjnd_jax.evaluation.estimators import Estimator, Maps, load_estimator
from hvsjnd_jax.evaluation.scores import ImageScores
from hvsjnd_jax.ops.samples import to_unit
from hvsjnd_jax.ops.types import DeepPixels, Pixels
from hvsjnd_jax.runtime.compilation_cache import keep_compilations
from hvsjnd_jax.runtime.jobs import Job, as_job, run_job
from tests.benchmarks.losses import LOSSES, to_losses
from tests.benchmarks.tables import align
from tests.support.former_masking import former_threshold

_FORMER = "masking of e282939"

_CASES: dict[Case, str] = {"channels": "shared", "channels_own": "own"}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  args = _parse(argv)
  return run_command("judge", lambda: _run(args))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("judge", __doc__, module="tests.benchmarks.judge")
  add_photographs(parser)
  parser.add_argument(
    "--models",
    nargs="+",
    default=["default", "fast", "masking", "contrast_heuristic"],
    metavar="NAME",
    help="as for compare (default: default fast masking contrast_heuristic)",
  )
  parser.add_argument(
    "--psnr", nargs="+", type=float, default=[32.57, 36.0], metavar="DB", help="(32.57 and 36)"
  )
  parser.add_argument(
    "--strength", nargs="+", type=float, default=[1.0], metavar="S", help="in [0, 1] (default: 1)"
  )
  return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> int:
  keep_compilations(partial(report_error, "judge"))
  photographs = find_photographs(args.path)
  window = plan_window(photographs)
  estimators: dict[str, Estimator] = {}
  for name in args.models:
    for strength in args.strength:
      title = name if strength == 1 else f"{name} at {strength:g}"
      estimators[title] = _weaken(load_estimator(name, window), strength)
  titles = list(estimators)
  estimators[_FORMER] = as_job(lambda pixels: Maps(former_threshold(pixels)))
  rows = [["", "signs", "dB", *(loss.title for loss in LOSSES.values())]]
  for psnr_db in args.psnr:
    compared = [
      run_job(comparison.compare(read_picture(path), estimators, psnr_db=psnr_db, seed=0)).scores
      for path in tqdm(photographs.paths, unit="image", disable=None)
    ]
    for name in titles:
      for case, signs in _CASES.items():
        scores = [each[case] for each in compared]
        cells = _judge([s[name] for s in scores], [s[_FORMER] for s in scores])
        rows.append([name, signs, f"{psnr_db:g}", *cells])
  print(align(rows))
  return 0


def _weaken(estimator: Estimator, strength: float) -> Estimator:
  def draw(pixels: Pixels | DeepPixels) -> Job[Maps]:
    jnd = (yield from estimator(pixels)).jnd
    return Maps(jnd**strength * former_threshold(to_uint8(to_unit(pixels))) ** (1 - strength))

  return draw


def _judge(ours: Sequence[ImageScores], former: Sequence[ImageScores]) -> list[str]:
  losses, formers = (
    np.asarray([to_losses(image, list(LOSSES)) for image in images]) for images in (ours, former)
  )
  changes = losses / formers - 1
  means, shares = 100 * changes.mean(axis=0), 100 * (changes < 0).mean(axis=0)
  return [f"{mean:+.1f} ({share:.0f})" for mean, share in zip(means, shares, strict=True)]


if __name__ == "__main__":
  sys.exit(main())

"""Judge JND maps against the masking threshold of commit e282939, image by image.

  python -m tests.benchmarks.judge --path ../shared/data/kodak
  python -m tests.benchmarks.judge --path PHOTOS --models W masking --psnr 32.57

Noise scaled by each map has one PSNR in each of R, G and B, as in `hvsjnd_jax.compare`, once
with signs that the channels share and once with signs of each channel's own. Figures are means
over the images of the change of a loss, in per cent of what the former threshold has on the same
image; negative is less visible. In brackets stands the share of the images that are better, in
per cent. The losses are Butteraugli's 3-norm and maximum, 100 - SSIMULACRA 2, and 10 - JOD
(ColorVideoVDP on a 4k display), then 1 - SSIM, 1 - MS-SSIM, GMSD and 1 - FSIM.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from tqdm import tqdm

from hvsjnd_jax.cli.command import report_error, run_command
from hvsjnd_jax.cli.options import add_photographs
from hvsjnd_jax.cli.photographs import find_photographs, plan_window
from hvsjnd_jax.data.images import read_image
from hvsjnd_jax.evaluation import comparison
from hvsjnd_jax.evaluation.comparison import Case
from hvsjnd_jax.evaluation.estimators import load_estimator
from hvsjnd_jax.evaluation.scores import ImageScores
from hvsjnd_jax.runtime.compilation_cache import keep_compilations
from tests.benchmarks.tables import align
from tests.support.former_masking import former_threshold

_FORMER = "masking of e282939"

_LOSSES: dict[str, tuple[str, Callable[[float], float]]] = {
  "butteraugli_3norm": ("Butteraugli", lambda score: score),
  "butteraugli_max": ("its max", lambda score: score),
  "ssimulacra2": ("SSIMULACRA 2", lambda score: 100 - score),
  "cvvdp": ("JOD", lambda score: 10 - score),
  "ssim": ("SSIM", lambda score: 1 - score),
  "ms_ssim": ("MS-SSIM", lambda score: 1 - score),
  "gmsd": ("GMSD", lambda score: score),
  "fsim": ("FSIM", lambda score: 1 - score),
}

_CASES: dict[Case, str] = {"channels": "shared", "channels_own": "own"}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  args = _parse(argv)
  return run_command("judge", lambda: _run(args))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  description, _, notes = (__doc__ or "").partition("\n\n")
  parser = argparse.ArgumentParser(
    prog="python -m tests.benchmarks.judge",
    description=description,
    epilog=notes,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
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
  return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> int:
  keep_compilations(partial(report_error, "judge"))
  photographs = find_photographs(args.path)
  window = plan_window(photographs)
  estimators = {name: load_estimator(name, window) for name in args.models}
  estimators[_FORMER] = former_threshold
  rows = [["", "signs", "dB", *(title for title, _ in _LOSSES.values())]]
  for psnr_db in args.psnr:
    compared = [
      comparison.compare(read_image(path), estimators, psnr_db=psnr_db, seed=0).scores
      for path in tqdm(photographs.paths, unit="image", disable=None)
    ]
    for name in args.models:
      for case, signs in _CASES.items():
        scores = [each[case] for each in compared]
        cells = _judge([s[name] for s in scores], [s[_FORMER] for s in scores])
        rows.append([name, signs, f"{psnr_db:g}", *cells])
  print(align(rows))
  return 0


def _judge(ours: Sequence[ImageScores], former: Sequence[ImageScores]) -> list[str]:
  cells = []
  for metric, (_, to_loss) in _LOSSES.items():
    changes = [
      to_loss(a[metric] or 0) / to_loss(b[metric] or 0) - 1
      for a, b in zip(ours, former, strict=True)
    ]
    cells.append(f"{100 * np.mean(changes):+.1f} ({100 * np.mean(np.less(changes, 0)):.0f})")
  return cells


if __name__ == "__main__":
  sys.exit(main())

"""Tell how strong, and how visible, the noise of each lmbda is on your photographs.

  python -m hvsjnd_jax.calibrate --path photos
  python -m hvsjnd_jax.calibrate --path photos --model W --lmbda 5,10 --json calibrated.json

For each lmbda the command prints the mean PSNR and other scores of the pictures that eval --save
writes: the image plus lmbda times sign times map, clipped and rounded to 8 bits. Rounding
removes noise of less than half a gray level, so that a small lmbda changes few pixels.

Below, a second table tells at which lmbda three models of human vision begin to see the noise, to
1 %: in the median image, and in the quartiles: a quarter of the images need no more than the
first, a quarter no less than the third. "never" is an image whose noise does not reach the score
at any lmbda.

  Butteraugli    a distance: 0 is equal, 1 just noticeable, by its worst spot or by the 3-norm,
                 which is over all pixels; as in libjxl 0.7
  SSIMULACRA 2   100 is equal, 90 visually lossless, 80 very high quality
  ColorVideoVDP  10 JOD is equal; where 1 is lost, three in four people prefer the original. On a
                 30-inch 4K display seen from 75 cm, and a 24-inch Full HD one from 60 cm

A model is one that compare takes. The exit status is that of compare.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from functools import partial

from hvsjnd_jax.cli.command import make_parser, report_error, run_command
from hvsjnd_jax.cli.image_loop import Memory, computing
from hvsjnd_jax.cli.options import (
  add_photographs,
  apply_max_megapixels,
  check_models,
  parse_scales,
)
from hvsjnd_jax.cli.outputs import check_output, write_json
from hvsjnd_jax.cli.photographs import Photographs, find_photographs, plan_window
from hvsjnd_jax.evaluation import comparison, scores, tables
from hvsjnd_jax.evaluation.calibration import (
  THRESHOLDS,
  Calibration,
  calibrate,
  find_quartiles,
)
from hvsjnd_jax.evaluation.estimators import (
  Estimator,
  describe_estimator,
  list_estimators,
  load_estimator,
)
from hvsjnd_jax.model.windows import Window
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.runtime.compilation_cache import keep_compilations

# The host's memory for each of the image's pixels, without the metrics' and the window's own.
_BYTES_PER_PIXEL = 115

_METRICS = (*comparison.SCORED, *(threshold.metric for threshold in THRESHOLDS.values()))

_LMBDAS = "1,2,5,10,15,20"


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  args = _parse(argv)
  return run_command("calibrate", lambda: _run(args), json=args.json)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("calibrate", __doc__)
  add_photographs(parser)
  parser.add_argument(
    "--lmbda",
    type=parse_scales,
    default=_LMBDAS,
    metavar="L,L",
    help=f"scales of the noise (default: {_LMBDAS})",
  )
  parser.add_argument(
    "--model",
    default="default",
    metavar="M",
    help=f"{', '.join(list_estimators())}, or a folder of weights (default: default)",
  )
  return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> int:
  keep_compilations(partial(report_error, "calibrate"))
  apply_max_megapixels(args)
  check_models("--model", [args.model])
  photographs = find_photographs(args.path)
  window = plan_window(photographs)
  estimator = load_estimator(args.model, window)
  check_output("--json", args.json, inputs=photographs.paths)

  calibrated, errors = _calibrate_all(args, photographs, estimator, window)
  images = list(calibrated.values())
  mean = comparison.average([image.scores for image in images])
  quartiles = {
    name: find_quartiles([image.noticeable[name] for image in images])
    for name in (THRESHOLDS if images else ())
  }
  too_small = tables.name_too_small([next(iter(image.scores.values())) for image in images])
  if images:
    print(f"{args.model}: means over {len(images)} image{'s' * (len(images) > 1)}")
    columns = tables.list_columns(mean, kind="value", psnr=("psnr",))
    print(tables.tabulate(mean, columns, head="lmbda"), end="\n\n")
    print(_tabulate_quartiles(quartiles))
  for line in too_small:
    print(line)
  if args.json is not None:
    report = {
      "model": describe_estimator(args.model),
      "seed": args.seed,
      "window": window,
      "mean": mean,
      "just_noticeable": {
        name: {key: None if math.isinf(value) else value for key, value in values.items()}
        for name, values in quartiles.items()
      },
      "images": [{"path": path, **image._asdict()} for path, image in calibrated.items()],
      "errors": errors,
      "skipped": list(map(str, photographs.skipped)),
    }
    write_json(args.json, report)
  return 1 if errors or too_small else 0


def _calibrate_all(
  args: argparse.Namespace, photographs: Photographs, estimator: Estimator, window: Window
) -> tuple[dict[str, Calibration], list[dict[str, str]]]:
  """Calibrates on each image; returns the results by path, and the errors."""
  compute = partial(calibrate, estimator=estimator, lmbdas=args.lmbda, seed=args.seed)
  calibrated: dict[str, Calibration] = {}
  errors: list[dict[str, str]] = []
  memory = Memory(_BYTES_PER_PIXEL, scores.bytes_per_pixel(_METRICS), window)
  with computing("calibrate", photographs, compute, memory=memory) as outcomes:
    for path, outcome in outcomes:
      if isinstance(outcome, HVSJNDError):
        errors.append({"path": str(path), "error": str(outcome)})
      else:
        _, calibrated[str(path)] = outcome
  return calibrated, errors


def _tabulate_quartiles(quartiles: dict[str, dict[str, float]]) -> str:
  """Lays out the lmbdas that reach the thresholds, and what these mean."""
  rows = [("The lmbda that reaches", "median", "quartiles", "")]
  for name, values in quartiles.items():
    low, median, high = (
      "never" if math.isinf(lmbda) else f"{lmbda:.3g}" for lmbda in values.values()
    )
    threshold = THRESHOLDS[name]
    rows.append((threshold.title, median, f"{low} to {high}", threshold.meaning))
  widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
  return "\n".join(
    f"{title:{widths[0]}}  {median:>{widths[1]}}  {spread:>{widths[2]}}  {meaning}".rstrip()
    for title, median, spread, meaning in rows
  )


if __name__ == "__main__":
  sys.exit(main())

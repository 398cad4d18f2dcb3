"""Tell how strong, and how visible, the noise of each lmbda is on your photographs.

  python -m hvsjnd_jax.calibrate --path photos
  python -m hvsjnd_jax.calibrate --path photos --model W --lmbda 5,10 --json calibrated.json

For each lmbda the command prints the mean PSNR and other scores of the pictures that eval --save
writes: the image plus lmbda times sign times map, clipped and rounded to 8 bits. Rounding
removes noise of less than half a gray level, so that a small lmbda changes few pixels.

Where the program butteraugli_main is on the PATH, the command then prints the lmbda at which the
noise becomes just noticeable, where Butteraugli's distance reaches 1, to 1 %: that of the median
image, and the quartiles. The maximum is the distance in the worst spot of an image, the 3-norm
is over all pixels. An image whose noise never reaches the distance counts as one with the
largest lmbda.

A model is one that compare takes. The exit status is that of compare.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from functools import partial

from hvsjnd_jax.cli.command import make_parser, run_command
from hvsjnd_jax.cli.image_loop import computing
from hvsjnd_jax.cli.options import add_photographs, check_models
from hvsjnd_jax.cli.outputs import check_output, write_json
from hvsjnd_jax.cli.photographs import Photographs, find_photographs, plan_window
from hvsjnd_jax.evaluation import comparison, tables
from hvsjnd_jax.evaluation.butteraugli_program import ADVICE, find_butteraugli
from hvsjnd_jax.evaluation.calibration import (
  NOTICEABLE,
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
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.runtime.compilation_cache import keep_compilations

# As `compare`, whose metrics it measures.
_BYTES_PER_PIXEL = 400

_LMBDAS = "1,2,5,10,15,20"


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  args = _parse(argv)
  return run_command("calibrate", lambda: _run(args))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("calibrate", __doc__)
  add_photographs(parser)
  parser.add_argument(
    "--lmbda",
    type=_parse_lmbdas,
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


def _parse_lmbdas(text: str) -> list[float]:
  try:
    values = [float(part) for part in text.split(",")]
  except ValueError:
    values = [math.nan]
  if not all(0 < value < math.inf for value in values):
    raise argparse.ArgumentTypeError(f"expected numbers above 0, such as {_LMBDAS}, got {text}")
  return values


def _run(args: argparse.Namespace) -> int:
  keep_compilations()
  check_models("--model", [args.model])
  photographs = find_photographs(args.path)
  window = plan_window(photographs)
  estimator = load_estimator(args.model, window)
  check_output("--json", args.json, inputs=photographs.paths)

  calibrated, errors = _calibrate_all(args, photographs, estimator)
  images = list(calibrated.values())
  mean = comparison.average([image.scores for image in images])
  quartiles = {
    norm: find_quartiles([image.noticeable[norm] for image in images])
    for norm in (images[0].noticeable if images else ())
  }
  too_small = tables.name_too_small([next(iter(image.scores.values())) for image in images])
  if images:
    print(f"{args.model}: means over {len(images)} image{'s' * (len(images) > 1)}")
    columns = tables.list_columns(mean, kind="value", psnr=("psnr",))
    print(tables.tabulate(mean, columns, head="lmbda"))
  for norm, values in quartiles.items():
    print(_word_quartiles(norm, values))
  for line in too_small:
    print(line)
  if args.json is not None:
    report = {
      "model": describe_estimator(args.model),
      "seed": args.seed,
      "window": window,
      "mean": mean,
      "just_noticeable": {
        norm: {name: None if math.isinf(value) else value for name, value in values.items()}
        for norm, values in quartiles.items()
      },
      "images": [{"path": path, **image._asdict()} for path, image in calibrated.items()],
      "errors": errors,
    }
    write_json(args.json, report)
  return 1 if errors or too_small else 0


def _calibrate_all(
  args: argparse.Namespace, photographs: Photographs, estimator: Estimator
) -> tuple[dict[str, Calibration], list[dict[str, str]]]:
  """Calibrates on each image; returns the results by path, and the errors."""
  program = find_butteraugli()
  if program is None:
    print(f"calibrate: left out: {ADVICE}", file=sys.stderr)
  compute = partial(
    calibrate, estimator=estimator, lmbdas=args.lmbda, seed=args.seed, program=program
  )
  calibrated: dict[str, Calibration] = {}
  errors: list[dict[str, str]] = []
  with computing("calibrate", photographs, compute, bytes_per_pixel=_BYTES_PER_PIXEL) as outcomes:
    for path, outcome in outcomes:
      if isinstance(outcome, HVSJNDError):
        errors.append({"path": str(path), "error": str(outcome)})
      else:
        _, calibrated[str(path)] = outcome
  return calibrated, errors


def _word_quartiles(norm: str, quartiles: dict[str, float]) -> str:
  low, median, high = (
    "none" if math.isinf(lmbda) else f"{lmbda:.3g}" for lmbda in quartiles.values()
  )
  return f"{norm} reaches {NOTICEABLE:g} at lmbda {median} (median; quartiles {low} and {high})"


if __name__ == "__main__":
  sys.exit(main())

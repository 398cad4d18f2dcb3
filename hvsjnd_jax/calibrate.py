"""What lmbda amounts to: how strong and how visible a model's noise is on your photographs.

  python -m hvsjnd_jax.calibrate --path photos
  python -m hvsjnd_jax.calibrate --path photos --model W --lmbda 5,10 --json calibrated.json

For each lmbda, the mean PSNR and scores of visibility of the pictures that `eval --save` writes:
image, plus lmbda times sign times map, clipped and rounded to 8 bits. Rounding keeps noise of
less than half a gray level out of them, so that a small lmbda changes few pixels.

Then, where the program butteraugli_main is on the PATH, the lmbda at which the noise becomes
just noticeable: where Butteraugli's distance, by either norm, reaches 1, to 1 %, of the median
image, with the quartiles. Its maximum is that of the worst spot of an image, its 3-norm is
over all pixels. An image whose noise never reaches it counts as one with the largest lmbda.

A model is one that `compare` takes. The exit status is that of `compare`.
"""

import argparse
import functools
import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from hvsjnd_jax.cli.command import make_parser, run_command
from hvsjnd_jax.cli.options import add_photographs, check_models
from hvsjnd_jax.cli.outputs import check_output, write_json
from hvsjnd_jax.cli.photographs import blame_image, check_size, find_photographs, plan_window
from hvsjnd_jax.cli.prefetch import progress
from hvsjnd_jax.data.images import ImageError, to_uint8
from hvsjnd_jax.evaluation import calibration, comparison, tables
from hvsjnd_jax.evaluation.butteraugli_program import (
  ADVICE,
  ButteraugliError,
  butteraugli,
  find_butteraugli,
)
from hvsjnd_jax.evaluation.estimators import Model, describe_model, list_models, load_model
from hvsjnd_jax.evaluation.scores import Figures
from hvsjnd_jax.noise import draw_signs, inject
from hvsjnd_jax.ops.types import Pixels

# As `compare`, whose metrics it measures.
_BYTES_PER_PIXEL = 400

_LMBDAS = "1,2,5,10,15,20"

_DISTANCE = 1.0  # of Butteraugli: what its authors call just noticeable

_NORMS = ("butteraugli_max", "butteraugli_3norm")

_QUARTILES = {"q1": 25, "median": 50, "q3": 75}


class Calibrated(NamedTuple):
  """One image: its scores at each lmbda, and the lmbda that is just noticeable by each norm."""

  scores: dict[str, Figures]
  noticeable: dict[str, float | None]


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit status."""
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
    help=f"scales of the noise to show (default: {_LMBDAS})",
  )
  parser.add_argument(
    "--model",
    default="default",
    metavar="M",
    help=f"of {', '.join(list_models())}, or a folder of weights (default: default)",
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
  check_models("--model", [args.model])
  files = find_photographs(args.path)
  window = plan_window(files)
  draw = load_model(args.model, window)
  if args.json is not None:
    check_output("--json", args.json, inputs=files)
  program = find_butteraugli()
  if program is None:
    print(f"calibrate: left out: {ADVICE}", file=sys.stderr)
  calibrated: dict[str, Calibrated] = {}
  errors: list[dict[str, str]] = []
  with progress(files) as photographs:
    for file, pixels in photographs:
      try:
        if isinstance(pixels, ImageError):
          raise pixels
        check_size(pixels, bytes_per_pixel=_BYTES_PER_PIXEL)
        with blame_image(pixels):
          calibrated[str(file)] = calibrate(
            pixels, draw, lmbdas=args.lmbda, seed=args.seed, program=program
          )
      except (ImageError, ButteraugliError) as error:
        errors.append({"path": str(file), "error": str(error)})
        tqdm.write(f"calibrate: {file}: {error}", file=sys.stderr)

  images = list(calibrated.values())
  mean = comparison.average([image.scores for image in images])
  noticeable = {
    norm: _find_quartiles([image.noticeable[norm] for image in images])
    for norm in (_NORMS if images and program else ())
  }
  if images:
    columns = tables.list_columns(mean, kind="value", psnr=tables.TOTAL_PSNR)
    print(f"{args.model}: means over {len(images)} image{'s' * (len(images) > 1)}")
    print(tables.tabulate(mean, columns, head="lmbda"))
  for norm, quartiles in noticeable.items():
    low, median, high = map(_show, quartiles.values())
    print(f"{norm} reaches {_DISTANCE:g} at lmbda {median} (median; quartiles {low} and {high})")
  too_small = tables.name_too_small([next(iter(image.scores.values())) for image in images])
  for line in too_small:
    print(line)
  if args.json is not None:
    report = {
      "model": describe_model(args.model),
      "seed": args.seed,
      "window": window,
      "mean": mean,
      "just_noticeable": {
        norm: {name: None if math.isinf(value) else value for name, value in quartiles.items()}
        for norm, quartiles in noticeable.items()
      },
      "images": [{"path": path, **image._asdict()} for path, image in calibrated.items()],
      "errors": errors,
    }
    write_json(args.json, report)
  return 1 if errors or too_small else 0


def calibrate(
  pixels: Pixels, draw: Model, *, lmbdas: Sequence[float], seed: int, program: str | None
) -> Calibrated:
  """Scores an image's noise at each lmbda, and finds where it becomes noticeable.

  Args:
    pixels: The image.
    draw: The model.
    lmbdas: Above 0.
    seed: Of the noise's signs.
    program: As `comparison.score`; without it nothing is found.
  """
  image, jnd = pixels[None].astype(np.float32) / 255, draw(pixels)[None]
  signs = draw_signs(pixels, seed=seed)

  def distort(lmbda: float) -> Pixels:
    return to_uint8(inject(image, jnd, signs, lmbda=lmbda)[0])

  scores = {
    f"{lmbda:g}": comparison.score(distort(lmbda), pixels, program=program) for lmbda in lmbdas
  }
  noticeable: dict[str, float | None] = {}
  if program is not None:
    measure = functools.cache(lambda lmbda: butteraugli(program, distort(lmbda), pixels))
    for norm in _NORMS:
      noticeable[norm] = calibration.find_lmbda(
        lambda lmbda, norm=norm: measure(lmbda)[norm], distance=_DISTANCE
      )
  return Calibrated(scores, noticeable)


def _find_quartiles(lmbdas: Sequence[float | None]) -> dict[str, float]:
  known = [math.inf if lmbda is None else lmbda for lmbda in lmbdas]
  # Of the images' own values: none is between a number and infinity.
  values = np.percentile(known, list(_QUARTILES.values()), method="lower")
  return dict(zip(_QUARTILES, map(float, values), strict=True))


def _show(lmbda: float) -> str:
  return "none" if math.isinf(lmbda) else f"{lmbda:.3g}"


if __name__ == "__main__":
  sys.exit(main())

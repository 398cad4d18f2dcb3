"""Compare JND models: how visible is their noise when all of it has the same PSNR?

  python -m hvsjnd_jax.compare --path photos --psnr 32.57
  python -m hvsjnd_jax.compare --path photos --psnr 32.57 --models default,uniform,W \
    --json compared.json --sheet compared.png

A model is one of the shipped weights, "default" or "paper", a folder of others, a map from
the literature, or "masking": what the default weights start from, without networks. Each
one's map is scaled until its noise, of the same random signs for all, clipped and rounded to
8 bits, has the given PSNR to 0.005 dB: in the first table in each of R, G and B, so that only
the places differ; in the second in the three together, so that a map's split among the
channels counts. Below each is told on which share of the images the first model is the better
one; at the end, what a map's own split gains. Means are over the images that every model has.

Butteraugli is measured by the program butteraugli_main, where it is on the PATH.

The sheet holds, of four images, the crop in which the models' noise differs most in strength,
and every model's copy of it, of the first table.

The exit status is 0 when every model was scored on every image, 1 when some or all could not
be (or an image was too small for a metric), 2 when the command could not start or the results
could not be written, 130 when it was interrupted, and 141 when the reader of its output left.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from hvsjnd_jax.runtime.compilation_cache import keep_compilations
from hvsjnd_jax.cli.command import make_parser, run_command
from hvsjnd_jax.cli.options import add_photographs, check_models, parse_psnr
from hvsjnd_jax.cli.outputs import check_output, write_json, writing
from hvsjnd_jax.cli.photographs import blame_image, check_size, find_photographs, plan_window
from hvsjnd_jax.cli.prefetch import progress
from hvsjnd_jax.data.images import ImageError, write_png
from hvsjnd_jax.evaluation import comparison, tables
from hvsjnd_jax.evaluation.butteraugli_program import ADVICE, find_butteraugli
from hvsjnd_jax.evaluation.comparison import CASES, Case
from hvsjnd_jax.evaluation.estimators import describe_model, list_models, load_model
from hvsjnd_jax.evaluation.tables import Scores
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.viz import sheets

# Of the image; measured, a window's own memory left out; most of it is the metrics'.
_BYTES_PER_PIXEL = 400

_SHEET_IMAGES = 4


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit status."""
  args = _parse(argv)
  return run_command("compare", lambda: _run(args))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("compare", __doc__)
  add_photographs(parser)
  parser.add_argument(
    "--psnr", type=parse_psnr, required=True, metavar="DB", help="what every model's noise has"
  )
  parser.add_argument(
    "--models",
    default=",".join(list_models()),
    metavar="M,M",
    help=f"of {', '.join(list_models())}, folders of weights; the first is set against the others "
    "(default: all with a name)",
  )
  parser.add_argument(
    "--sheet", type=Path, metavar="FILE", help="write crops of images and noisy copies as PNG"
  )
  return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> int:
  keep_compilations()
  names = tuple(dict.fromkeys(name.strip() for name in args.models.split(",")))
  check_models("--models", names)
  files = find_photographs(args.path)
  window = plan_window(files)
  models = {name: load_model(name, window) for name in names}
  for option, file in (("--json", args.json), ("--sheet", args.sheet)):
    if file is not None:
      check_output(option, file, inputs=files)
  program = find_butteraugli()
  if program is None:
    print(f"compare: left out: {ADVICE}", file=sys.stderr)

  paths: list[str] = []
  scores: dict[Case, list[Scores]] = {case: [] for case in CASES}
  errors: list[dict[str, str]] = []
  crops: list[_Crop] = []
  with progress(files) as photographs:
    for file, pixels in photographs:
      failed: list[dict[str, str]] = []
      try:
        if isinstance(pixels, ImageError):
          raise pixels
        check_size(pixels, bytes_per_pixel=_BYTES_PER_PIXEL)
        with blame_image(pixels):
          compared = comparison.compare(
            pixels, models, psnr_db=args.psnr, seed=args.seed, program=program
          )
      except ImageError as error:
        failed.append({"path": str(file), "error": str(error)})
      else:
        paths.append(str(file))
        for case in CASES:
          scores[case].append(compared.scores[case])
        failed += [{"path": str(file), "model": m, "error": e} for m, e in compared.errors]
        if args.sheet is not None and compared.noisy.keys() == models.keys():
          crops.append(_crop(file.name, pixels, compared))
          crops = sorted(crops, key=lambda crop: -crop.difference)[:_SHEET_IMAGES]
      for error in failed:
        who = f"{error['path']}, {error['model']}" if "model" in error else error["path"]
        tqdm.write(f"compare: {who}: {error['error']}", file=sys.stderr)
      errors += failed

  summary: dict[Case, dict[str, Scores]] = {
    case: {
      "mean": comparison.average(scores[case]),
      "first_better": comparison.count_wins(scores[case], names[0]),
    }
    for case in CASES
  }
  gains = comparison.gain_by_split(scores["channels"], scores["total"])
  _print_tables(summary, gains, scores, psnr_db=args.psnr, first=names[0])
  too_small = tables.name_too_small(
    [next(iter(models.values())) for models in scores["channels"] if models]
  )
  for line in too_small:
    print(line)
  if args.json is not None:
    report = {
      "psnr": args.psnr,
      "seed": args.seed,
      "window": window,
      "models": [describe_model(name) for name in names],
      **summary,
      "gain_by_split": gains,
      "images": [
        {"path": path, **{case: scores[case][i] for case in CASES}} for i, path in enumerate(paths)
      ],
      "errors": errors,
    }
    write_json(args.json, report)
  if args.sheet is not None:
    _write_sheet(args.sheet, crops)
  return 1 if errors or too_small else 0


def _print_tables(
  summary: dict[Case, dict[str, Scores]],
  gains: Scores,
  scores: dict[Case, list[Scores]],
  *,
  psnr_db: float,
  first: str,
) -> None:
  heads: dict[Case, str] = {
    "channels": f"{psnr_db:g} dB in each of R, G and B",
    "total": f"{psnr_db:g} dB over the three channels together",
  }
  for case, head in heads.items():
    mean, shares = summary[case]["mean"], summary[case]["first_better"]
    used, seen = len(comparison.select_common(scores[case])), len(scores[case])
    if not mean:
      print(f"{head}: no image on which every model could be scored\n")
      continue
    of = f"{used} of {seen}" if used < seen else f"{used}"
    psnr = tables.CHANNEL_PSNR if case == "total" else ()
    columns = tables.list_columns(mean, kind="score", psnr=psnr)
    print(f"{head}: means over {of} image{'s' * (seen > 1)}, * the best")
    print(tables.tabulate(mean, columns), end="\n\n")
    if shares:
      print(f"{head}: on how many of the images {first} is better")
      columns = tables.list_columns(shares, kind="share")
      print(tables.tabulate({f"than {n}": s for n, s in shares.items()}, columns), end="\n\n")
  if gains:
    print("What a model's own split among the channels gains, + being better")
    print(tables.tabulate(gains, tables.list_columns(gains, kind="gain")))


class _Crop(NamedTuple):
  """Part of an image, for the sheet: captioned, beside every model's copy."""

  difference: float
  panels: list[tuple[str, Pixels]]


def _crop(name: str, pixels: Pixels, compared: comparison.Compared) -> _Crop:
  difference, rows, columns = comparison.find_difference(pixels, compared.noisy)
  panels = [(f"{name} (figures: of the whole)", pixels[rows, columns].copy())]
  for model, noisy in compared.noisy.items():
    distance = compared.scores["channels"][model].get("butteraugli_3norm")
    note = "" if distance is None else f": butteraugli {distance:.2f}"
    panels.append((f"{model}{note}", noisy[rows, columns].copy()))
  return _Crop(difference, panels)


def _write_sheet(file: Path, crops: list[_Crop]) -> None:
  if not crops:
    print(f"compare: {file} not written: no image has every model's noise", file=sys.stderr)
    return
  panels = [panel for crop in crops for panel in crop.panels]
  sheet = sheets.sheet(panels, columns=len(crops[0].panels), panel_px=comparison.CROP_PX * 2)
  with writing(file):
    write_png(file, sheet)


if __name__ == "__main__":
  sys.exit(main())

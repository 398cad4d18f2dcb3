"""Compare JND models: how visible is their noise when all of it has the same PSNR?

  python -m hvsjnd_jax.compare --path photos --psnr 32.57
  python -m hvsjnd_jax.compare --path photos --psnr 32.57 --models default,uniform,W \\
    --json compared.json --sheet compared.png --save compared

A model is one of the shipped weights, "default", "fast" or "paper"; a folder of other weights; a
map from the literature; or "masking", the threshold that the default weights refine, without
networks. Each model's map is scaled until its noise, of the same random signs for all, clipped
and rounded to 8 bits, has the PSNR given, to 0.005 dB. In the first two tables each of R, G and
B has it, so that models differ only in where they put the noise; in the third the three together
have it, so that a map's split among them counts, too. Below each, a table tells on which share of
the images the first model is better than each other one. The last one tells what the split gains.
Means are over the images that every model has.

In the first table the three channels of a pixel share one sign, as in the published method; in
the second each has signs of its own. With shared signs a map can look better by a trick of colour,
red and blue noise on other pixels than green noise, which gains nothing in the second table: trust
a difference that both tables show.

The scores are SSIM, MS-SSIM, GMSD, FSIM, and those of three models of human vision, Butteraugli
(as in libjxl 0.7), SSIMULACRA 2 and ColorVideoVDP (on a 30-inch 4K display).

The sheet shows crops of four images, where the models' noise differs most in strength, beside
every model's copy, of the first table. --save writes all images and every model's copies, of the
first two tables, to a folder, and index.html: a page to blink between any two of them, and to lay
each model's maps over them: its JND map, its attention where it has HVS-SD, and where Butteraugli
and ColorVideoVDP see its noise. --outputs chooses among these.

Exit status: 0 when every model was scored on every image; 1 when one could not be, or an image
was too small for a metric; 2 when the command could not start or write its results; 130 when
interrupted; 141 when the reader of the output left; 143 after SIGTERM.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hvsjnd_jax.cli.command import make_parser, report_error, run_command
from hvsjnd_jax.cli.image_loop import Memory, computing
from hvsjnd_jax.cli.options import (
  add_photographs,
  apply_max_megapixels,
  check_models,
  parse_path,
  parse_psnr,
)
from hvsjnd_jax.cli.outputs import check_output, write_json, writing
from hvsjnd_jax.cli.pages import check_page, describe_comparison, write_page
from hvsjnd_jax.cli.photographs import Photographs, find_photographs, plan_window
from hvsjnd_jax.cli.saved_comparison import (
  OUTPUTS,
  SAVED,
  choose_outputs,
  find_maps,
  list_names,
  save_comparison,
)
from hvsjnd_jax.cli.saved_images import find_mapped, has_page, make_stems, parse_outputs
from hvsjnd_jax.data.images import write_png
from hvsjnd_jax.evaluation import comparison, comparison_sheet, scores, tables
from hvsjnd_jax.evaluation.comparison import CASES, Case, Summary
from hvsjnd_jax.evaluation.comparison_sheet import Crop
from hvsjnd_jax.evaluation.estimators import (
  Estimator,
  describe_estimator,
  has_attention,
  list_estimators,
  load_estimator,
)
from hvsjnd_jax.evaluation.scores import CHANNEL_PSNR, ScoreTable
from hvsjnd_jax.evaluation.vision_maps import MAP_BYTES_PER_PIXEL
from hvsjnd_jax.model.windows import Window
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.runtime.compilation_cache import keep_compilations

# The host's memory for each of the image's pixels, without the metrics' and the window's own.
_BYTES_PER_PIXEL = 135

# With --save, for each picture of a model, but for its copies with shared signs.
_BYTES_PER_PICTURE = 3

_HEADS: dict[Case, str] = {
  "channels": "{:g} dB in each of R, G and B; one sign a pixel for all channels",
  "channels_own": "{:g} dB in each of R, G and B; signs of each channel's own",
  "total": "{:g} dB over the three channels together; one sign a pixel for all channels",
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  args = _parse(argv)
  return run_command("compare", lambda: _run(args), json=args.json)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("compare", __doc__)
  add_photographs(parser)
  parser.add_argument(
    "--psnr", type=parse_psnr, required=True, metavar="DB", help="PSNR of every model's noise"
  )
  parser.add_argument(
    "--models",
    default=",".join(list_estimators()),
    metavar="M,M",
    help=f"{', '.join(list_estimators())}, or folders of weights; the first is set against each "
    "of the others (default: all but folders)",
  )
  parser.add_argument(
    "--sheet",
    type=_parse_sheet,
    metavar="FILE.png",
    help="write crops of images and noisy copies",
  )
  parser.add_argument(
    "--save",
    type=parse_path,
    metavar="DIR",
    help="write all images, noisy copies and maps to this folder, and index.html, a page to look "
    "at them",
  )
  parser.add_argument(
    "--outputs",
    type=partial(parse_outputs, known=OUTPUTS),
    metavar="O,O",
    help=f"with --save: what to write: {', '.join(OUTPUTS)} (default: all but cvvdp_fhd.png); the "
    "page needs original.png and distorted.png",
  )
  args = parser.parse_args(argv)
  if args.outputs is not None and args.save is None:
    parser.error("--outputs needs --save DIR")
  if args.json is not None and args.json == args.sheet:
    parser.error("--json and --sheet need a file each")
  return args


def _parse_sheet(text: str) -> Path:
  file = parse_path(text)
  if file.suffix.lower() != ".png":  # the noise is to be seen as it is, and so without loss
    raise argparse.ArgumentTypeError(f"expected a name that ends in .png, got {text}")
  return file


class _Results:
  """What was found so far: the images' sizes, scores and errors, and the crops for the sheet."""

  def __init__(self) -> None:
    self.sizes: dict[Path, tuple[int, int]] = {}
    self.scores: dict[Case, list[ScoreTable]] = {case: [] for case in CASES}
    self.errors: list[dict[str, str]] = []
    self.crops: list[Crop] = []


def _run(args: argparse.Namespace) -> int:
  keep_compilations(partial(report_error, "compare"))
  apply_max_megapixels(args)
  names = tuple(dict.fromkeys(name.strip() for name in args.models.split(",")))
  check_models("--models", names)
  photographs = find_photographs(args.path, leave_out=args.save)
  window = plan_window(photographs)
  estimators = {name: load_estimator(name, window) for name in names}
  check_output("--json", args.json, inputs=photographs.paths)
  check_output("--sheet", args.sheet, inputs=photographs.paths)
  if args.save is not None:
    args.outputs = choose_outputs(args.outputs, names)
  stems = _make_stems(args, photographs, names)

  results = _compare_all(args, photographs, estimators, window, stems)
  measured = results.scores
  summaries: dict[Case, Summary] = {
    case: comparison.summarize(measured[case], names[0]) for case in CASES
  }
  gains = comparison.gain_by_split(measured["channels"], measured["total"])
  too_small = tables.name_too_small(
    [next(iter(models.values())) for models in measured["channels"] if models]
  )
  _print_tables(summaries, measured, psnr_db=args.psnr, first=names[0])
  _print_gains(gains)
  for line in too_small:
    print(line)
  if args.json is not None:
    report = {
      "psnr": args.psnr,
      "seed": args.seed,
      "window": window,
      "models": [describe_estimator(name) for name in names],
      **{case: summary._asdict() for case, summary in summaries.items()},
      "gain_by_split": gains,
      "images": [
        {"path": str(path), **{case: measured[case][i] for case in CASES}}
        for i, path in enumerate(results.sizes)
      ],
      "errors": results.errors,
      "skipped": list(map(str, photographs.skipped)),
    }
    write_json(args.json, report)
  if args.save is not None and has_page(args.outputs):
    images = {path: (stems[path], *size) for path, size in results.sizes.items()}
    options = {"psnr_db": args.psnr, "seed": args.seed}
    attentive = [name for name in names if has_attention(name)]
    page = describe_comparison(
      args.save, names, args.outputs, attentive, images, measured, **options
    )
    write_page(args.save, page)
  if args.sheet is not None:
    _write_sheet(args.sheet, results.crops)
  return 1 if results.errors or too_small else 0


def _make_stems(
  args: argparse.Namespace, photographs: Photographs, names: Sequence[str]
) -> dict[Path, Path]:
  """Settles where each image's pictures go; nowhere without --save."""
  if args.save is None:
    return {}
  stems = make_stems(photographs.paths, args.save, list_names(names, args.outputs))
  if has_page(args.outputs):
    check_page(args.save, inputs=photographs.paths)
  return stems


def _compare_all(
  args: argparse.Namespace,
  photographs: Photographs,
  estimators: dict[str, Estimator],
  window: Window,
  stems: dict[Path, Path],
) -> _Results:
  """Compares the models on each image, saves the copies, and prints what fails."""
  compute = partial(
    comparison.compare,
    estimators=estimators,
    psnr_db=args.psnr,
    seed=args.seed,
    kept=SAVED if stems else SAVED[:1],
    drawn=find_maps(args.outputs or ()),
  )
  results = _Results()
  memory = _plan_memory(args, len(estimators), window)
  with computing("compare", photographs, compute, memory=memory) as outcomes:
    for path, outcome in outcomes:
      if isinstance(outcome, HVSJNDError):
        results.errors.append({"path": str(path), "error": str(outcome)})
        continue
      picture, compared = outcome
      height, width, _ = picture.pixels.shape
      results.sizes[path] = (height, width)
      for case in CASES:
        results.scores[case].append(compared.scores[case])
      for model, error in compared.errors:
        report_error("compare", f"{path}, {model}", error)
        results.errors.append({"path": str(path), "model": model, "error": error})
      if stems:
        save_comparison(stems[path], list(estimators), args.outputs, picture.pixels, compared)
      if args.sheet is not None and compared.noisy["channels"].keys() == estimators.keys():
        crop = comparison_sheet.crop(path.name, picture.pixels, compared)
        results.crops = comparison_sheet.select_crops([*results.crops, crop])
  return results


def _plan_memory(args: argparse.Namespace, models: int, window: Window) -> Memory:
  outputs = args.outputs or ()
  mapped = len(find_mapped(outputs))
  own = len(find_maps(outputs)) - mapped
  pictures = len(SAVED) - 1 + own + mapped * len(SAVED) if outputs else 0
  whole = max(scores.bytes_per_pixel(comparison.SCORED), MAP_BYTES_PER_PIXEL if mapped else 0)
  return Memory(_BYTES_PER_PIXEL + _BYTES_PER_PICTURE * models * pictures, whole, window)


def _print_tables(
  summaries: dict[Case, Summary],
  measured: dict[Case, list[ScoreTable]],
  *,
  psnr_db: float,
  first: str,
) -> None:
  for case, (mean, shares) in summaries.items():
    head = _HEADS[case].format(psnr_db)
    used, seen = len(comparison.select_common(measured[case])), len(measured[case])
    if not mean:
      print(f"{head}: no image on which every model could be scored\n")
      continue
    of = f"{used} of {seen}" if used < seen else f"{used}"
    psnr = CHANNEL_PSNR if case == "total" else ()
    columns = tables.list_columns(mean, kind="score", psnr=psnr)
    print(f"{head}: means over {of} image{'s' * (seen > 1)}, * the best")
    print(tables.tabulate(mean, columns), end="\n\n")
    if shares:
      print(f"{head}: on how many of the images {first} is better")
      columns = tables.list_columns(shares, kind="share")
      print(tables.tabulate({f"than {n}": s for n, s in shares.items()}, columns), end="\n\n")


def _print_gains(gains: ScoreTable) -> None:
  if gains:
    print("What a model's own split among the channels gains, + being better")
    print(tables.tabulate(gains, tables.list_columns(gains, kind="gain")))


def _write_sheet(file: Path, crops: list[Crop]) -> None:
  if not crops:
    print(f"compare: {file} not written: no image has every model's noise", file=sys.stderr)
    return
  sheet = comparison_sheet.draw_sheet(crops)
  with writing(file):
    write_png(file, sheet)


if __name__ == "__main__":
  sys.exit(main())

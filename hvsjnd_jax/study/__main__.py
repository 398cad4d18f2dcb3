"""Measure with people: build a flicker study as a page, and analyze what participants answered.

  python -m hvsjnd_jax.study build --path PHOTOS --lmbda 2,4,...,40 --out STUDY
  python -m hvsjnd_jax.study analyze RESULTS --out FOUND --json found.json

`build` writes a folder with a page that runs the study in a browser, offline. A participant sees
an image twice, side by side; on one side it alternates with its noisy copy, and they say which one
flickers. The page saves a file on their machine, and sends nothing. `analyze` reads these files,
fits psychometric functions, and gives the lmbda at which three of four answers are right: for each
model, over all images and for each of them.

docs/study.md tells how to run a study. `build --help` and `analyze --help` list the options.
"""

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hvsjnd_jax.cli.command import UsageError, make_parser, report_error, run_command
from hvsjnd_jax.cli.image_loop import Memory, computing
from hvsjnd_jax.cli.options import (
  add_json,
  add_photographs,
  apply_max_megapixels,
  check_models,
  parse_local_path,
  parse_scales,
)
from hvsjnd_jax.cli.outputs import check_output, make_folder, write_json, writing
from hvsjnd_jax.cli.photographs import find_photographs, plan_window
from hvsjnd_jax.data.atomic import whole_file
from hvsjnd_jax.data.images import place
from hvsjnd_jax.evaluation.estimators import (
  describe_estimator,
  list_estimators,
  load_estimator,
)
from hvsjnd_jax.evaluation.tables import Column, tabulate
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.runtime.compilation_cache import keep_compilations
from hvsjnd_jax.study import calibration, plots
from hvsjnd_jax.study.analysis import Analysis, Threshold, analyze
from hvsjnd_jax.study.design import (
  MOST_IMAGES,
  MOST_LMBDA,
  Design,
  Image,
  Model,
  count_forgiven_traps,
  identify,
  validate,
)
from hvsjnd_jax.study.pages import StudyPage, count_trials, draw_pictures
from hvsjnd_jax.study.results import Result, Results, find_results, read_results
from hvsjnd_jax.study.screening import find_fault

_LMBDAS = "1,2,3,4,6,8,12,16,24,32"
_CROP_PX = 512

# Traps and practice show this many times the largest lmbda.
_OBVIOUS = 4

# The host's memory for each of the image's pixels, without the window's own.
_BYTES_PER_PIXEL = 100

_DRAWS = 200

# Setting up the screen, and each answer, take a participant about so long; for the estimate that
# `build` prints, as the page does.
_SETUP_MINUTES = 2
_ANSWER_S = 3.0

_COLUMNS = (
  Column("lmbda", ("75 %", "lmbda"), "{:.3g}"),
  Column("low", ("95 % interval", "from"), "{:.3g}"),
  Column("high", ("", "to"), "{:.3g}"),
  Column("slope", ("slope",), "{:.1f}"),
  Column("spread", ("spread",), "{:.2f}"),
  Column("lapse", ("lapses",), "{:.1%}"),
  Column("trials", ("trials",), "{:.0f}"),
)

_DIFFERENCES = (
  Column("ratio", ("ratio",), "{:.3f}"),
  Column("low", ("95 % interval", "from"), "{:.3f}"),
  Column("high", ("", "to"), "{:.3f}"),
  Column("p", ("p",), "{:.2g}"),
)

_MEANING = {
  "participants": "The intervals are for people in general: participants were resampled.",
  "answers": "The intervals are for these participants alone: fewer than three say nothing of "
  "people in general.",
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  args = _parse(argv)
  run = {"build": _build, "analyze": _analyze}[args.action]
  return run_command("study", lambda: run(args), json=args.json)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("study", __doc__)
  actions = parser.add_subparsers(dest="action", required=True, metavar="build|analyze")
  _add_build(actions.add_parser("build", help="write the page", allow_abbrev=False))
  _add_analyze(actions.add_parser("analyze", help="fit the answers", allow_abbrev=False))
  return parser.parse_args(argv)


def _add_build(parser: argparse.ArgumentParser) -> None:
  add_photographs(parser)
  parser.add_argument(
    "--model",
    nargs="+",
    default=["default"],
    metavar="M",
    help=f"{', '.join(list_estimators())}, or folders of weights (default: default)",
  )
  parser.add_argument(
    "--lmbda",
    type=partial(parse_scales, largest=MOST_LMBDA / _OBVIOUS),
    default=_LMBDAS,
    metavar="L,L",
    help=f"scales of the noise to show; 2,4,...,40 goes on in equal steps (default: {_LMBDAS})",
  )
  parser.add_argument(
    "--out",
    type=parse_local_path,
    required=True,
    metavar="DIR",
    help="folder to write; must not exist, or be empty",
  )
  parser.add_argument(
    "--method",
    choices=("constant", "staircase"),
    default="constant",
    help="show every lmbda equally often, or for each image and model go down a step after three "
    "right answers and up after a wrong one (default: constant)",
  )
  parser.add_argument(
    "--repeats",
    type=partial(_parse_count, largest=1000),
    default=4,
    metavar="N",
    help="with --method constant: trials of each image, model and lmbda (default: 4)",
  )
  parser.add_argument(
    "--crop-px",
    type=partial(_parse_count, largest=8192),
    default=_CROP_PX,
    metavar="N",
    help=f"larger images are cut to this side around their centre (default: {_CROP_PX})",
  )
  parser.add_argument(
    "--title",
    default="Which picture flickers?",
    metavar="TEXT",
    help="what participants read at the top (default: Which picture flickers?)",
  )


def _add_analyze(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "results",
    type=parse_local_path,
    nargs="+",
    metavar="RESULTS",
    help="participants' files, or folders",
  )
  parser.add_argument(
    "--out",
    type=parse_local_path,
    metavar="DIR",
    help="write calibration.json, thresholds.csv, psychometric.png and thresholds.png here",
  )
  parser.add_argument(
    "--draws",
    type=partial(_parse_count, largest=100_000, least=2),
    default=_DRAWS,
    metavar="N",
    help=f"how often participants are resampled for the intervals (default: {_DRAWS})",
  )
  parser.add_argument(
    "--seed",
    type=partial(_parse_count, largest=2**32 - 1, least=0),
    default=0,
    metavar="S",
    help="seed of the draws (default: 0)",
  )
  add_json(parser)


def _parse_count(text: str, *, largest: int, least: int = 1) -> int:
  if not (text.isdecimal() and len(text) <= 10 and least <= int(text) <= largest):
    raise argparse.ArgumentTypeError(
      f"expected a whole number from {least} to {largest}, got {text}"
    )
  return int(text)


def _build(args: argparse.Namespace) -> int:
  keep_compilations(partial(report_error, "study"))
  apply_max_megapixels(args)
  names = list(dict.fromkeys(args.model))
  check_models("--model", names)
  _check_study(args, names)
  photographs = find_photographs(args.path)
  if len(photographs.paths) > MOST_IMAGES:
    raise UsageError(f"{len(photographs.paths)} images; a study has at most {MOST_IMAGES}")
  window = plan_window(photographs)
  estimators = {name: load_estimator(name, window) for name in names}
  check_output("--json", args.json, inputs=photographs.paths)
  make_folder(args.out)

  lmbdas = [*_sort_lmbdas(args), _OBVIOUS * max(args.lmbda)]
  compute = partial(
    draw_pictures, estimators=estimators, lmbdas=lmbdas, seed=args.seed, crop_px=args.crop_px
  )
  page = StudyPage(args.out)
  images: dict[Path, Image] = {}
  errors: list[dict[str, str]] = []
  copies = 3 * len(lmbdas) * len(names)  # bytes of each pixel
  memory = Memory(_BYTES_PER_PIXEL + copies, window=window)
  with computing("study", photographs, compute, memory=memory) as outcomes:
    for path, outcome in outcomes:
      if isinstance(outcome, HVSJNDError):
        errors.append({"path": str(path), "error": str(outcome)})
        continue
      _, (original, distorted) = outcome
      with writing(args.out):
        page.add_image(len(images), original, distorted)
      height, width, _ = original.shape
      images[path] = Image(_name(path, taken=images.values()), height, width)
  if not images:
    raise UsageError(f"none of {len(errors)} images can be used; {args.out} is no study")
  design = _make_design(args, names, list(images.values()))
  with writing(args.out):
    page.finish(design)
  _print_study(args.out, design)
  if args.json is not None:
    sources = [{"path": str(path), "name": image.name} for path, image in images.items()]
    write_json(args.json, {"study": identify(design), "images": sources, "errors": errors})
  return 1 if errors else 0


def _check_study(args: argparse.Namespace, names: list[str]) -> None:
  """Refuses options before anything is computed."""
  if len(_sort_lmbdas(args)) < 2:
    raise UsageError("--lmbda: a study needs two or more, from hard to see to easy")
  _make_design(args, names, [Image("any", 1, 1)])
  if args.out.exists() and not (args.out.is_dir() and not any(args.out.iterdir())):
    raise UsageError(f"--out {args.out}: exists already; choose another")


def _make_design(args: argparse.Namespace, names: list[str], images: list[Image]) -> Design:
  design = Design(
    title=args.title,
    method=args.method,
    seed=args.seed,
    models=[Model(name, describe_estimator(name).get("sha256")) for name in names],
    images=images,
    lmbdas=_sort_lmbdas(args),
    trap_lmbda=_OBVIOUS * max(args.lmbda),
    repeats=args.repeats,
  )
  try:
    return validate(design)
  except ValueError as error:
    raise UsageError(f"no study that can be analyzed: {error}") from None


def _sort_lmbdas(args: argparse.Namespace) -> list[float]:
  return sorted(set(args.lmbda))


def _name(path: Path, *, taken: Any) -> str:
  """Names an image by its file, and by a number, too, where another one has that name."""
  stem = "".join(letter if letter.isprintable() else "?" for letter in path.stem)
  names = {image.name for image in taken}
  candidates = (stem if i == 0 else f"{stem} ({i + 1})" for i in range(len(names) + 1))
  return next(name for name in candidates if name not in names)


def _print_study(out: Path, design: Design) -> None:
  trials = count_trials(design)
  minutes = _SETUP_MINUTES + trials * (_ANSWER_S + design.timing.pause_s) / 60
  cropped = {(image.width, image.height) for image in design.images}
  sizes = ", ".join(f"{width}x{height}" for width, height in sorted(cropped))
  about = "" if design.method == "constant" else "about "
  print(
    f"{out}: study {identify(design)}\n"
    f"{_count(design.images, 'image')}, shown at {sizes} pixels, two side by side\n"
    f"{about}{trials} trials for each participant, about {minutes:.0f} minutes; traps show lmbda "
    f"{design.trap_lmbda:g}, and {count_forgiven_traps(design.traps)} of {design.traps} may be "
    f"missed\nopen {out / 'index.html'} in a browser; participants return the file that it saves"
  )


def _count(things: Sequence[object], what: str) -> str:
  return f"{len(things)} {what}{'s' * (len(things) > 1)}"


def _analyze(args: argparse.Namespace) -> int:
  files = find_results(args.results)
  check_output("--json", args.json, inputs=files)
  if args.out is not None:
    if place(args.out) in {place(file).parent for file in files}:
      raise UsageError(f"--out {args.out}: holds the participants' files; choose another folder")
    plots.check_matplotlib()
    make_folder(args.out)
  read = read_results(files)
  for file, reason in read.problems:
    report_error("study", file, reason)
  faults = {file: find_fault(result) for file, result in read.files.items()}
  used = [result for file, result in read.files.items() if faults[file] is None]
  _print_participants(read, faults)
  if not used:
    raise UsageError("no participant is left whose answers count")
  found = analyze(read.design, used, draws=args.draws, seed=args.seed)
  _print_analysis(found)
  calibrated = calibration.make_calibration(read.design, found, participants=len(used))
  if args.out is not None:
    with writing(args.out):
      _write_found(args.out, found, calibrated)
  if args.json is not None:
    write_json(args.json, _report(args, read, faults, found))
  return 1 if read.problems else 0


def _print_participants(read: Results, faults: dict[Path, str | None]) -> None:
  design = read.design
  left_out = {file: fault for file, fault in faults.items() if fault is not None}
  count = len(faults) - len(left_out)
  print(
    f"Study {identify(design)}, {design.title!r}, {design.method}: "
    f"{_count(design.models, 'model')}, {_count(design.images, 'image')}, "
    f"lmbda {design.lmbdas[0]:g} to {design.lmbdas[-1]:g}\n"
    f"{count} participant{'s' * (count != 1)}; {len(left_out)} more left out"
  )
  for file, fault in left_out.items():
    print(f"  {read.files[file].participant}: {fault}")


def _print_analysis(found: Analysis) -> None:
  print()
  print(tabulate({name: _row(each) for name, each in found.pooled.items()}, _COLUMNS))
  for model, images in found.images.items():
    if len(images) > 1:
      rows = {image: _row(each) for image, each in images.items()}
      print(f"\n{model}\n{tabulate(rows, _COLUMNS, head='image')}")
  if found.differences:
    print("\nThresholds of one model divided by another's; p by Holm's method")
    rows = {f"{d.first} / {d.second}": d._asdict() for d in found.differences}
    print(tabulate(rows, _DIFFERENCES, head="models"))
  print(f"\n{_MEANING[found.resampled]}")
  for model, image, threshold in _list_thresholds(found):
    if threshold.beyond:
      where = "largest" if threshold.beyond == "above" else "smallest"
      print(f"{model}, {image or 'all images'}: {threshold.beyond} the {where} lmbda shown")


def _row(threshold: Threshold) -> dict[str, Any]:
  row = threshold._asdict()
  return row | dict.fromkeys(("lmbda", "low", "high")) if threshold.beyond else row


def _list_thresholds(found: Analysis) -> list[tuple[str, str, Threshold]]:
  """Lists models, images ("" for all of them) and thresholds."""
  listed = [(model, "", threshold) for model, threshold in found.pooled.items()]
  for model, images in found.images.items():
    listed += [(model, image, threshold) for image, threshold in images.items()]
  return listed


def _write_found(out: Path, found: Analysis, calibrated: calibration.CalibrationFile) -> None:
  """Writes tables, plots and the calibration, and says what the latter lacks."""
  table = io.StringIO()
  names = ("lmbda", "low", "high", "beyond", "slope", "spread", "lapse", "trials")
  writer = csv.writer(table, lineterminator="\n")
  writer.writerow(("model", "image", *names))
  for model, image, threshold in _list_thresholds(found):
    row = threshold._asdict()
    writer.writerow((model, image, *(row[name] for name in names)))
  texts = {"thresholds.csv": table.getvalue(), "calibration.json": calibration.encode(calibrated)}
  for name, text in texts.items():
    with whole_file(out / name) as partial_file:
      partial_file.write_text(text)
  plots.draw_plots(found, out)
  print(f"{out}: {', '.join([*texts, 'psychometric.png', 'thresholds.png'])} written")


def _report(
  args: argparse.Namespace, read: Results, faults: dict[Path, str | None], found: Analysis
) -> dict[str, Any]:
  return {
    "study": identify(read.design),
    "title": read.design.title,
    "method": read.design.method,
    "draws": args.draws,
    "seed": args.seed,
    "resampled": found.resampled,
    "participants": [
      _describe_participant(file, result, faults[file]) for file, result in read.files.items()
    ],
    "models": [
      {
        "name": model.name,
        "sha256": model.sha256,
        "pooled": found.pooled[model.name].describe(),
        "images": {
          image: threshold.describe() for image, threshold in found.images[model.name].items()
        },
      }
      for model in read.design.models
    ],
    "differences": [difference._asdict() for difference in found.differences],
    "errors": [{"path": str(file), "error": reason} for file, reason in read.problems],
  }


def _describe_participant(file: Path, result: Result, fault: str | None) -> dict[str, Any]:
  screen = {name: getattr(result.screen, name) for name in result.screen.__struct_fields__}
  return {
    "participant": result.participant,
    "path": str(file),
    "left_out": fault,
    "trials": sum(trial.kind == "main" for trial in result.trials),
    "screen": screen,
  }


if __name__ == "__main__":
  sys.exit(main())

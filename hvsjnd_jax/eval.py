"""Estimate the JND of photographs, inject noise scaled by it, and report the PSNR.

  python -m hvsjnd_jax.eval --lmbda 10
  python -m hvsjnd_jax.eval --path photos --lmbda 10 --save out --json out.json
  python -m hvsjnd_jax.eval --path photos --lmbda 10 --metrics psnr,ms_ssim,fsim
  python -m hvsjnd_jax.eval --path photos --psnr 32.57
  python -m hvsjnd_jax.eval --path corpus --lmbda 10 --jsonl corpus.jsonl --multihost

What a lmbda amounts to with the default weights, in 8-bit pictures, mean over Kodak:

  lmbda                        1     2     5    10    15    20
  PSNR, dB                  53.9  47.9  40.2  34.3  30.8  28.4
  Butteraugli, 3-norm       0.10  0.22  0.55  1.15  1.79  2.45
  Butteraugli, worst spot   0.29  0.53  1.31  2.72  4.11  5.53
  SSIMULACRA 2              97.1  95.0  88.6  77.1  65.0  53.1
  ColorVideoVDP, JOD       10.00 10.00  9.98  9.90  9.76  9.58

Butteraugli calls a distance of 1 just noticeable. In the median image the worst spot reaches it
at lmbda 4.0, the 3-norm, which is over all pixels, at 8.8. For other weights or photographs:
python -m hvsjnd_jax.calibrate.

PSNR is that of the clipped and not yet rounded result. --psnr is met to 0.005 dB, by a lmbda for
each image; an image that no lmbda takes there, as its map is zero or too much is clipped, is
named and left out.

The signs of the noise depend on the seed and the image's content alone. An image given twice is
evaluated once. A --save folder inside a --path folder is not searched for images.

With --jsonl FILE, a run that was stopped or killed goes on when the same command is given again:
images that have scores in FILE are skipped, and count in the means; errors are tried again. An
image's line is written after its pictures. FILE is refused if it was written with other settings
or holds other images. With --multihost each process writes its lines beside FILE, and at the end
FILE is, byte for byte, what a single process would have written.

Images are computed through windows of one size, chosen for all of them, so that a folder of many
sizes compiles once, and large images take little more memory than a few copies of them. Another
window changes the maps by float32 rounding. Metrics other than PSNR see images whole, and
compile for each size. Compiled code is kept in ~/.cache/hvsjnd_jax; to keep it elsewhere, set
JAX_COMPILATION_CACHE_DIR; to keep none, JAX_ENABLE_COMPILATION_CACHE=false.

Exit status: 0 when every image was evaluated; 1 when one could not be, or was too small for a
metric, whose mean leaves it out; 2 when the command could not start or write its results; 130
when interrupted; 141 when the reader of the output left.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from hvsjnd_jax import weights
from hvsjnd_jax.cli.background import Background
from hvsjnd_jax.cli.command import UsageError, make_parser, run_command
from hvsjnd_jax.cli.image_loop import computing
from hvsjnd_jax.cli.jsonl import Record, RecordWriter, Settings, begin, gather
from hvsjnd_jax.cli.options import (
  add_model,
  add_photographs,
  apply_max_megapixels,
  load_model,
  parse_lmbda,
  parse_psnr,
)
from hvsjnd_jax.cli.outputs import check_output, write_json
from hvsjnd_jax.cli.photographs import Photographs, find_photographs, open_dataset, plan_window
from hvsjnd_jax.cli.saved_images import OUTPUTS, make_stems, parse_outputs, save_outputs
from hvsjnd_jax.evaluation import scores
from hvsjnd_jax.evaluation.evaluate import LARGEST_LMBDA, Evaluation, evaluate
from hvsjnd_jax.metrics import METRICS
from hvsjnd_jax.model import windows
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.runtime.compilation_cache import keep_compilations
from hvsjnd_jax.runtime.processes import join_processes

# The host's memory for each of the image's pixels, with --save and without the metrics' and the
# window's own; 73 was measured.
_BYTES_PER_PIXEL = 80


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  args = _parse(argv)
  return run_command("eval", lambda: _run(args))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("eval", __doc__)
  add_photographs(parser)
  _add_noise(parser)
  add_model(parser)
  _add_results(parser)
  _add_corpora(parser)
  args = parser.parse_args(argv)
  _check_combinations(parser, args)
  if args.save is not None:
    args.outputs = args.outputs or OUTPUTS
  if args.lmbda is None and args.psnr is None:
    args.lmbda = 1.0
  return args


def _add_noise(parser: argparse.ArgumentParser) -> None:
  strength = parser.add_mutually_exclusive_group()
  strength.add_argument(
    "--lmbda",
    type=partial(parse_lmbda, largest=LARGEST_LMBDA),
    metavar="L",
    help="scale of the noise: y = clip(x + L * sign * JND, 0, 1); the published README runs 10 "
    "(default: 1)",
  )
  strength.add_argument(
    "--psnr",
    type=parse_psnr,
    metavar="DB",
    help="in place of --lmbda: the total PSNR that each image is given",
  )


def _add_results(parser: argparse.ArgumentParser) -> None:
  lower_is_better = [name for name, metric in METRICS.items() if metric.better == "lower"]
  parser.add_argument(
    "--metrics",
    default="psnr",
    metavar="M,M",
    help=f"what to report: {', '.join(METRICS)} (default: psnr); lower is better for "
    f"{', '.join(lower_is_better)}, higher for the others",
  )
  parser.add_argument(
    "--vgg16",
    type=Path,
    metavar="DIR",
    help="for dists: a folder with VGG16's weights, made by convert.from_torch in a clone",
  )
  parser.add_argument(
    "--save", type=Path, metavar="DIR", help="write pictures of each image to this folder"
  )
  parser.add_argument(
    "--outputs",
    type=parse_outputs,
    metavar="O,O",
    help=f"with --save: what to write: {', '.join(OUTPUTS)} (default: all)",
  )


def _add_corpora(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--jsonl",
    type=Path,
    metavar="FILE",
    help="write a line of JSON for each image as soon as it is done, and go on from FILE if it "
    "exists",
  )
  parser.add_argument(
    "--multihost",
    action="store_true",
    help="share the images with the processes of other hosts (TPU pod, SLURM, ...); needs --jsonl",
  )
  parser.add_argument(
    "--tfds", metavar="NAME|DIR", help="in place of --path: a dataset of TensorFlow Datasets"
  )
  parser.add_argument(
    "--tfds-split", default="train", metavar="S", help="with --tfds: the split (default: train)"
  )
  parser.add_argument(
    "--window",
    type=_parse_window,
    metavar="HxW",
    help="sides of the window, multiples of 8 above 112 (default: chosen for all images)",
  )


def _check_combinations(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
  if args.tfds is not None and args.path is not None:
    parser.error("argument --tfds: not allowed with argument --path")
  if args.multihost and args.jsonl is None:
    parser.error("--multihost needs --jsonl FILE, in a folder that all processes see")
  if args.json is not None and args.json == args.jsonl:
    parser.error("--json and --jsonl need a file each")
  if args.outputs is not None and args.save is None:
    parser.error("--outputs needs --save DIR")


def _parse_window(text: str) -> windows.Window:
  sides = text.split("x")
  if not (len(sides) == 2 and all(side.isdecimal() for side in sides)):
    raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, such as 512x768, got {text}")
  try:
    return windows.check_window((int(sides[0]), int(sides[1])))
  except ValueError as error:
    raise argparse.ArgumentTypeError(str(error)) from None


class _Plan(NamedTuple):
  """What a run is about.

  Attributes:
    photographs: The images.
    stems: Where each image's pictures go; none without --save.
    settings: All that the results depend on, but for the images.
    done: The records of images that need not be evaluated again, by path.
  """

  photographs: Photographs
  stems: dict[Path, Path]
  settings: Settings
  done: dict[str, Record]


def _run(args: argparse.Namespace) -> int:
  keep_compilations()
  if args.multihost:
    join_processes()
  apply_max_megapixels(args)
  args.metrics = _parse_metrics(args.metrics)
  photographs = _find_photographs(args)
  backbones = scores.load_backbones(args.metrics, vgg16=args.vgg16)
  model = load_model(args)
  plan = _make_plan(args, photographs, model)
  records = plan.done | _evaluate_share(args, plan, model, backbones)
  if args.jsonl is not None:
    gathered = gather(args.jsonl, list(map(str, photographs.paths)))
    if gathered is None:  # the first process reports for all
      return _judge(records.values())
    records = gathered
  return _report(args, plan.settings, [records[str(path)] for path in photographs.paths])


def _parse_metrics(text: str) -> tuple[str, ...]:
  try:
    return scores.parse_metrics(text)
  except ValueError as error:
    raise UsageError(f"--metrics: {error}") from None


def _find_photographs(args: argparse.Namespace) -> Photographs:
  if args.tfds is not None:
    return open_dataset(args.tfds, args.tfds_split)
  return find_photographs(args.path, leave_out=args.save)


def _make_plan(args: argparse.Namespace, photographs: Photographs, model: JNDModel) -> _Plan:
  """Settles where results go and what they depend on, and finds what is done already."""
  paths = photographs.paths
  stems = {} if args.save is None else make_stems(paths, args.save)
  check_output("--json", args.json, inputs=paths)
  check_output("--jsonl", args.jsonl, inputs=paths)

  def settle(former: Settings) -> Settings:
    window = args.window or former.get("window") or plan_window(photographs)
    return _describe_settings(args, model, window)

  if args.jsonl is None:
    return _Plan(photographs, stems, settle({}), {})
  saved = {str(path): str(stems[path]) if stems else None for path in paths}
  settings, done = begin(args.jsonl, saved, settle)
  if done and not jax.process_index():
    print(f"{args.jsonl}: {len(done)} of {len(paths)} images are done already")
  return _Plan(photographs, stems, settings, done)


def _describe_settings(
  args: argparse.Namespace, model: JNDModel, window: tuple[int, int]
) -> Settings:
  """Describes all that scores and pictures depend on, but for the images."""
  needs_vgg16 = any(METRICS[name].backbone == "vgg16" for name in args.metrics)
  return {
    "lmbda": args.lmbda,
    "target_psnr": args.psnr,
    "seed": args.seed,
    "metrics": args.metrics,
    "window": window,
    "weights": weights.read_manifest(args.model)["sha256"],
    "resolution": args.resolution or model.resolution,
    "attention": args.attention_layer or model.attention_layer,
    "dtype": args.dtype,
    "vgg16": weights.read_backbone_manifest("vgg16", args.vgg16)["sha256"] if needs_vgg16 else None,
    "outputs": args.outputs,
  }


def _evaluate_share(
  args: argparse.Namespace, plan: _Plan, model: JNDModel, backbones: scores.Backbones
) -> dict[str, Record]:
  """Evaluates this process's share of the images, prints and saves; returns the records."""
  paths = plan.photographs.paths[jax.process_index() :: jax.process_count()]
  share = plan.photographs._replace(paths=[path for path in paths if str(path) not in plan.done])
  compute = partial(
    evaluate,
    model,
    lmbda=args.lmbda,
    psnr_db=args.psnr,
    seed=args.seed,
    metrics=args.metrics,
    backbones=backbones,
    window=plan.settings["window"],
    resolution=plan.settings["resolution"],
    attention_layer=plan.settings["attention"],
  )
  records: dict[str, Record] = {}
  need = _BYTES_PER_PIXEL + scores.bytes_per_pixel(args.metrics)
  with (
    RecordWriter(args.jsonl, plan.settings) if args.jsonl else contextlib.nullcontext() as lines,
    computing("eval", share, compute, bytes_per_pixel=need) as outcomes,
    Background() as background,
  ):
    for path, outcome in outcomes:
      tasks = []
      if isinstance(outcome, HVSJNDError):
        record = {"path": str(path), "error": str(outcome)}
      else:
        picture, evaluated = outcome
        _print_scores(args, path, picture.pixels, evaluated)
        record = _make_record(args, path, picture.pixels, evaluated)
        if plan.stems:
          record["saved"] = str(plan.stems[path])
          tasks.append(partial(save_outputs, plan.stems[path], args.outputs, picture, evaluated))
      records[str(path)] = record
      if lines is not None:  # after the pictures, as the line says that the image is done
        tasks.append(partial(lines.add, record))
      background.run(tasks)
  return records


def _print_scores(
  args: argparse.Namespace, path: Path, pixels: Pixels, evaluated: Evaluation
) -> None:
  height, width, _ = pixels.shape
  found = "" if args.psnr is None else f"lmbda: {evaluated.lmbda:.6g}\n"
  described = scores.describe(evaluated.scores, args.metrics, size=(height, width))
  tqdm.write(f"Images Path is: {path}\n{found}{described}")


def _make_record(
  args: argparse.Namespace, path: Path, pixels: Pixels, evaluated: Evaluation
) -> Record:
  height, width, _ = pixels.shape
  record = {"path": str(path), "height": height, "width": width, "lmbda": evaluated.lmbda}
  return record | scores.select(evaluated.scores, args.metrics)


def _report(args: argparse.Namespace, settings: Settings, records: list[Record]) -> int:
  """Prints the means, writes --json, and returns the exit status."""
  errors = [record for record in records if "error" in record]
  images = [record for record in records if "error" not in record]
  mean = scores.average([scores.select(record, args.metrics) for record in images])
  found_lmbda = None
  if images:
    described = scores.describe(mean, args.metrics)
    if args.psnr is not None:
      found_lmbda = _summarize_lmbdas(images)
      described = "lmbda: {mean:.6g}, median {median:.6g}\n".format(**found_lmbda) + described
    print(f"Mean over {len(images)} image{'s' * (len(images) > 1)}:\n{described}")
  if errors:
    print(f"eval: {len(errors)} of {len(records)} files could not be used", file=sys.stderr)
  if args.json is not None:
    report = {
      **{name: settings[name] for name in ("lmbda", "target_psnr")},
      "found_lmbda": found_lmbda,
      **{name: settings[name] for name in ("seed", "window")},
      "weights": {
        "name": args.model,
        "sha256": settings["weights"],
        **{name: settings[name] for name in ("resolution", "attention", "dtype")},
      },
      "images": images,
      "mean": mean,
      "errors": errors,
    }
    write_json(args.json, report)
  return _judge(records)


def _summarize_lmbdas(images: Sequence[Record]) -> dict[str, Any]:
  lmbdas = [record["lmbda"] for record in images]
  return {"mean": float(np.mean(lmbdas)), "median": float(np.median(lmbdas))}


def _judge(records: Iterable[Record]) -> int:
  """Returns 1 where an image could not be used, or was too small for a metric; 0 otherwise."""
  return int(any("error" in record or None in record.values() for record in records))


if __name__ == "__main__":
  sys.exit(main())

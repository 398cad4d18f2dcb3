"""Estimate the JND of photographs, inject noise scaled by it, and report the PSNR.

  python -m hvsjnd_jax.eval --lmbda 10
  python -m hvsjnd_jax.eval --path photos --lmbda 10 --save out --json out.json
  python -m hvsjnd_jax.eval --path photos --lmbda 10 --metrics psnr,ms_ssim,fsim
  python -m hvsjnd_jax.eval --path photos --lmbda 5,10,20 --save out
  python -m hvsjnd_jax.eval --path photos --psnr 32.57
  python -m hvsjnd_jax.eval --path photos --calibration calibration.json --jnd 1
  python -m hvsjnd_jax.eval --path corpus --lmbda 10 --jsonl corpus.jsonl --multihost

With the weights "default" and "fast", the noise of lmbda 10 is just noticeable: the level of the
maps was set so that Kodak's median image then has a SSIMULACRA 2 of 90, "visually lossless", the
strictest of three thresholds; the others are a 3-norm of Butteraugli of 1, and 9.5 JOD on a Full HD
display. What a lmbda amounts to with the default weights, in 8-bit pictures, mean over Kodak:

  lmbda                        1     2     5    10    15    20    30    40
  PSNR, dB                  60.0  53.6  45.8  39.9  36.4  34.0  30.7  28.3
  Butteraugli, 3-norm       0.03  0.07  0.20  0.43  0.66  0.92  1.50  2.17
  Butteraugli, worst spot   0.11  0.21  0.53  1.11  1.72  2.35  3.79  5.59
  SSIMULACRA 2              98.2  97.2  94.4  90.0  85.3  80.5  70.4  60.3
  ColorVideoVDP, JOD       10.00 10.00 10.00  9.99  9.97  9.94  9.86  9.73

For other weights or photographs: python -m hvsjnd_jax.calibrate. These are models of vision. What
people saw is measured by python -m hvsjnd_jax.study; --jnd 1 with the calibration.json that it
writes is the lmbda at which they found the flicker in three of four trials.

The map is computed from 16 bits where an image has them, and the noise is added to them; pictures
are written in 8 bits. PSNR is that of the clipped and not yet rounded result. --psnr is met to
0.005 dB, by a lmbda for each image; an image that no lmbda takes there, as its map is zero or too
much is clipped, is named and left out.

With --save, out/index.html is a page to look at the pictures: it blinks between an image and its
copy, at exact pixels, and has a slider for several values of --lmbda. All is reported for each of
these; in --json and --jsonl the first one's scores stand where those of a single one would, and
the others' under "others".

The signs of the noise depend on the seed and the image's content alone. An image given twice is
evaluated once. A --save folder inside a --path folder is not searched for images.

With --jsonl FILE, a run that was stopped or killed goes on when the same command is given again:
images that have scores in FILE are skipped, and count in the means; errors are tried again. An
image on which a run was killed, as for want of memory, is tried again after all others; if it kills
a second run, it is left out, and --retry tries it once more. An image's line is written after its
pictures. FILE is refused if it was written with other settings or holds other images. With
--multihost each process writes its lines beside FILE, and at the end FILE is, byte for byte, what a
single process would have written.

Images are computed through windows of one size, chosen for all of them, so that a folder of many
sizes compiles once, and large images take little more memory than a few copies of them. Another
window changes the maps by float32 rounding. Metrics other than PSNR see images whole, and
compile for each size. Compiled code is kept in ~/.cache/hvsjnd_jax; to keep it elsewhere, set
JAX_COMPILATION_CACHE_DIR; to keep none, JAX_ENABLE_COMPILATION_CACHE=false.

Exit status: 0 when every image was evaluated; 1 when one could not be, or was too small for a
metric, whose mean leaves it out; 2 when the command could not start or write its results; 130
when interrupted; 141 when the reader of the output left; 143 after SIGTERM.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from hvsjnd_jax import weights
from hvsjnd_jax.cli.attempts import MOST_KILLED
from hvsjnd_jax.cli.background import Background
from hvsjnd_jax.cli.command import UsageError, report_error, run_command
from hvsjnd_jax.cli.eval_options import parse
from hvsjnd_jax.cli.image_loop import Memory, computing
from hvsjnd_jax.cli.jsonl import (
  Beginning,
  Record,
  RecordWriter,
  Settings,
  begin,
  gather,
  wait_for_others,
)
from hvsjnd_jax.cli.options import apply_max_megapixels, load_model, parse_metrics
from hvsjnd_jax.cli.outputs import check_output, write_json
from hvsjnd_jax.cli.pages import check_page, describe_evaluation, list_copies, write_page
from hvsjnd_jax.cli.photographs import (
  Photographs,
  find_photographs,
  open_dataset,
  plan_window,
  read_sizes,
)
from hvsjnd_jax.cli.saved_images import (
  choose_outputs,
  find_mapped,
  has_page,
  list_names,
  make_stems,
  save_outputs,
)
from hvsjnd_jax.data.images import Picture
from hvsjnd_jax.evaluation import scores
from hvsjnd_jax.evaluation.evaluate import Evaluation, evaluate
from hvsjnd_jax.evaluation.scores import ImageScores
from hvsjnd_jax.evaluation.vision_maps import MAP_BYTES_PER_PIXEL
from hvsjnd_jax.metrics import METRICS
from hvsjnd_jax.model import windows
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.model.windows import Analyzer, Window
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.runtime.compilation_cache import keep_compilations
from hvsjnd_jax.runtime.processes import join_processes
from hvsjnd_jax.study.calibration import find_jnd

# The host's memory for each of the image's pixels, with --save and without the metrics' and the
# window's own; 73 was measured, and 88 for 16 bits.
_BYTES_PER_PIXEL = 90

# What each further lmbda adds, and each map of a vision model: of this image, and of the one
# before, whose pictures are being written.
_BYTES_PER_COPY = 24
_BYTES_PER_MAP = 8

# A window is judged by so many images.
_JUDGED_IMAGES = 100


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  args = parse(argv, doc=__doc__)
  return run_command("eval", lambda: _run(args), json=args.json)


class _Plan(NamedTuple):
  """What a run is about.

  Attributes:
    photographs: The images.
    stems: Where each image's pictures go; none without --save.
    settings: All that the results depend on, but for the images.
    done: The records of images that need not be evaluated again, by path.
    killed: How many runs each image killed, by path, of those that killed one.
  """

  photographs: Photographs
  stems: dict[Path, Path]
  settings: Settings
  done: dict[str, Record]
  killed: dict[str, int]


def _run(args: argparse.Namespace) -> int:
  keep_compilations(partial(report_error, "eval"))
  if args.multihost:
    join_processes()
  apply_max_megapixels(args)
  args.metrics = parse_metrics(args.metrics)
  photographs = _find_photographs(args)
  backbones = scores.load_backbones(args.metrics, vgg16=args.vgg16)
  model = load_model(args)
  if args.jnd is not None:
    one = _find_jnd(args, model)
    args.lmbda = tuple(jnd * one for jnd in args.jnd)
  if args.save is not None:
    args.outputs = choose_outputs(args.outputs, model, args.metrics)
  plan = _make_plan(args, photographs, model)
  records = plan.done | _evaluate_share(args, plan, model, backbones)
  if args.jsonl is not None:
    gathered = gather(args.jsonl, list(map(str, photographs.paths)))
    if gathered is None:  # the first process reports for all
      return _judge(records.values())
    records = gathered
  reported = [records[str(path)] for path in photographs.paths]
  if args.save is not None and has_page(args.outputs):
    write_page(args.save, describe_evaluation(args.save, args.model, plan.settings, reported))
  return _report(args, plan.settings, reported, skipped=photographs.skipped)


def _find_jnd(args: argparse.Namespace, model: JNDModel) -> float:
  """Returns the lmbda that is one JND by the calibration of a study, which knows no other maps."""
  for option, asked, own in (
    ("--resolution", args.resolution, model.resolution),
    ("--attention-layer", args.attention_layer, model.attention_layer),
  ):
    if asked not in (None, own):
      raise UsageError(
        f"{option} {asked}: --calibration is of the model's own maps, which are {own}"
      )
  return find_jnd(args.calibration, sha256=weights.read_manifest(args.model)["sha256"])


def _find_photographs(args: argparse.Namespace) -> Photographs:
  if args.tfds is not None:
    return open_dataset(args.tfds, args.tfds_split)
  return find_photographs(args.path, leave_out=args.save)


def _make_plan(args: argparse.Namespace, photographs: Photographs, model: JNDModel) -> _Plan:
  """Settles where results go and what they depend on, and finds what is done already."""
  paths = photographs.paths
  stems: dict[Path, Path] = {}
  if args.save is not None:
    stems = make_stems(paths, args.save, list_names(args.outputs, _list_others(args)))
    if has_page(args.outputs):
      check_page(args.save, inputs=paths)
  check_output("--json", args.json, inputs=paths)
  check_output("--jsonl", args.jsonl, inputs=paths)

  if args.window is not None:
    _judge_window(args.window, photographs)

  def settle(former: Settings) -> Settings:
    window = args.window or former.get("window") or plan_window(photographs)
    return _describe_settings(args, model, window)

  if args.jsonl is None:
    return _Plan(photographs, stems, *Beginning(settle({}), {}, {}))
  saved = {str(path): str(stems[path]) if stems else None for path in paths}
  beginning = begin(args.jsonl, saved, settle, retry=args.retry)
  if beginning.done and not jax.process_index():
    print(f"{args.jsonl}: {len(beginning.done)} of {len(paths)} images are done already")
  return _Plan(photographs, stems, *beginning)


def _judge_window(window: Window, photographs: Photographs) -> None:
  """Tells where another window would take far less time, by the first images."""
  photographs = photographs._replace(paths=photographs.paths[:_JUDGED_IMAGES])
  waste = windows.judge_window(read_sizes(photographs), window)
  if waste and not jax.process_index():
    named = "--window {}x{}".format(*window)
    report_error("eval", named, f"{waste}, the window chosen without it")


def _describe_settings(
  args: argparse.Namespace, model: JNDModel, window: tuple[int, int]
) -> Settings:
  """Describes all that scores and pictures depend on, but for the images."""
  needs_vgg16 = any(METRICS[name].backbone == "vgg16" for name in args.metrics)
  return {
    "lmbda": args.lmbda[0] if args.lmbda and len(args.lmbda) == 1 else args.lmbda,
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


def _list_others(args: argparse.Namespace) -> tuple[float, ...]:
  """Lists the scales of the noise after the first."""
  return () if args.lmbda is None else args.lmbda[1:]


def _evaluate_share(
  args: argparse.Namespace, plan: _Plan, model: JNDModel, backbones: scores.Backbones
) -> dict[str, Record]:
  """Evaluates this process's share of the images; those that killed a run come last."""
  paths = plan.photographs.paths
  known = plan.done.keys() | plan.killed.keys()
  share = paths[jax.process_index() :: jax.process_count()]
  run = partial(_evaluate_all, args, plan, model, backbones)
  if args.jsonl is None:
    return run(share, None)
  with RecordWriter(args.jsonl, plan.settings) as lines:
    records = run([path for path in share if str(path) not in known], lines)
    if plan.killed:
      wait_for_others()
    if not jax.process_index():
      for path in [path for path in paths if str(path) in plan.killed]:
        records |= _try_again(path, plan.killed[str(path)], partial(run, lines=lines), lines)
  return records


def _try_again(
  path: Path,
  killed: int,
  run: Callable[[list[Path]], dict[str, Record]],
  lines: RecordWriter,
) -> dict[str, Record]:
  """Evaluates an image that killed a run, by itself, or leaves it out if it killed another one."""
  if killed < MOST_KILLED:
    report_error(
      "eval", path, "the last run was killed while this image was computed; trying it again"
    )
    return run([path])
  reason = f"left out: {killed} runs were killed while it was computed; --retry tries it again"
  report_error("eval", path, reason)
  record = {"path": str(path), "error": reason}
  lines.add(record)
  return {str(path): record}


def _evaluate_all(
  args: argparse.Namespace,
  plan: _Plan,
  model: JNDModel,
  backbones: scores.Backbones,
  paths: list[Path],
  lines: RecordWriter | None,
) -> dict[str, Record]:
  """Evaluates images, prints and saves; returns the records."""
  settings = plan.settings
  analyzer = Analyzer(model, settings["window"], settings["resolution"], settings["attention"])
  compute = partial(
    evaluate,
    analyzer,
    lmbda=None if args.lmbda is None else args.lmbda[0],
    psnr_db=args.psnr,
    seed=args.seed,
    metrics=args.metrics,
    backbones=backbones,
    other_lmbdas=_list_others(args),
    mapped=find_mapped(args.outputs or ()),
  )
  photographs = plan.photographs._replace(paths=paths)
  if lines is not None:
    photographs = photographs._replace(read=partial(_note_and_read, lines, photographs))
  records: dict[str, Record] = {}
  with (
    computing("eval", photographs, compute, memory=_plan_memory(args, plan)) as outcomes,
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


def _plan_memory(args: argparse.Namespace, plan: _Plan) -> Memory:
  others, mapped = len(_list_others(args)), len(find_mapped(args.outputs or ()))
  host = _BYTES_PER_PIXEL + others * _BYTES_PER_COPY + (others + 1) * mapped * _BYTES_PER_MAP
  whole = max(scores.bytes_per_pixel(args.metrics), MAP_BYTES_PER_PIXEL if mapped else 0)
  return Memory(host, whole, plan.settings["window"])


def _note_and_read(lines: RecordWriter, photographs: Photographs, path: Path) -> Picture:
  lines.note(path)
  return photographs.read(path)


def _print_scores(
  args: argparse.Namespace, path: Path, pixels: Pixels, evaluated: Evaluation
) -> None:
  height, width, _ = pixels.shape
  tqdm.write(f"Images Path is: {path}")
  for copy in evaluated.copies:
    if args.psnr is not None or len(evaluated.copies) > 1:
      tqdm.write(f"lmbda: {copy.lmbda:.6g}")
    tqdm.write(scores.describe(copy.scores, args.metrics, size=(height, width)))


def _make_record(
  args: argparse.Namespace, path: Path, pixels: Pixels, evaluated: Evaluation
) -> Record:
  height, width, _ = pixels.shape
  first, *others = [
    {"lmbda": copy.lmbda} | scores.select(copy.scores, args.metrics) for copy in evaluated.copies
  ]
  record = {"path": str(path), "height": height, "width": width, **first}
  return record | ({"others": others} if others else {})


def _report(
  args: argparse.Namespace, settings: Settings, records: list[Record], *, skipped: Sequence[Path]
) -> int:
  """Prints the means, writes --json, and returns the exit status."""
  errors = [record for record in records if "error" in record]
  images = [record for record in records if "error" not in record]
  means = _average(args, images)
  found_lmbda = None
  if images:
    print(f"Mean over {len(images)} image{'s' * (len(images) > 1)}:")
    if args.psnr is not None:
      found_lmbda = _summarize_lmbdas(images)
      print("lmbda: {mean:.6g}, median {median:.6g}".format(**found_lmbda))
    for lmbda, mean in zip(args.lmbda or (None,), means, strict=True):
      if len(means) > 1:
        print(f"lmbda: {lmbda:.6g}")
      print(scores.describe(mean, args.metrics))
  if errors:
    files = f"file{'s' * (len(records) > 1)}"
    print(f"eval: {len(errors)} of {len(records)} {files} could not be used", file=sys.stderr)
  if args.json is not None:
    others = [
      {"lmbda": lmbda, **mean}
      for lmbda, mean in zip(_list_others(args), means[1:], strict=bool(means))
    ]
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
      "mean": means[0] if means else {},
      **({"other_means": others} if others else {}),
      "errors": errors,
      "skipped": list(map(str, skipped)),
    }
    write_json(args.json, report)
  return _judge(records)


def _average(args: argparse.Namespace, images: Sequence[Record]) -> list[ImageScores]:
  """Averages the scores of the copies with each lmbda; without images there are no means."""
  copies = zip(*map(list_copies, images), strict=True)
  return [scores.average([scores.select(copy, args.metrics) for copy in same]) for same in copies]


def _summarize_lmbdas(images: Sequence[Record]) -> dict[str, Any]:
  lmbdas = [record["lmbda"] for record in images]
  return {"mean": float(np.mean(lmbdas)), "median": float(np.median(lmbdas))}


def _judge(records: Iterable[Record]) -> int:
  """Returns 1 where an image could not be used, or was too small for a metric; 0 otherwise."""
  return int(
    any(
      "error" in record or any(None in copy.values() for copy in list_copies(record))
      for record in records
    )
  )


if __name__ == "__main__":
  sys.exit(main())

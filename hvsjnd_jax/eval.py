"""Estimate the JND of photographs, inject noise scaled by it, and report the PSNR.

  python -m hvsjnd_jax.eval --lmbda 10
  python -m hvsjnd_jax.eval --path photos --lmbda 10 --save out --json out.json
  python -m hvsjnd_jax.eval --path photos --lmbda 10 --metrics psnr,ms_ssim,fsim
  python -m hvsjnd_jax.eval --path photos --target-psnr 32.57
  python -m hvsjnd_jax.eval --path corpus --lmbda 10 --jsonl corpus.jsonl --multihost

What a lmbda amounts to: with the default weights, on Kodak, means of 8-bit pictures,

  lmbda                        1     2     5    10    15    20
  PSNR, dB                  53.9  47.9  40.2  34.3  30.8  28.4
  Butteraugli, 3-norm       0.10  0.22  0.55  1.15  1.79  2.45
  Butteraugli, worst spot   0.29  0.53  1.31  2.72  4.11  5.53

A distance of 1, which Butteraugli calls just noticeable, is reached at lmbda 4.0 in the worst
spot of the median image, and at 8.8 by the 3-norm, over all of it. For other weights or
photographs: python -m hvsjnd_jax.calibrate.

With --target-psnr each image gets a lmbda of its own, at which the total PSNR, as it is
reported: of the clipped, unrounded result, is the one given, to 0.005 dB. An image that no
lmbda takes there, its map being zero or its values clipped, is named and left out.

The signs of the noise follow from the seed and the image alone, not from the file's name or
its place among the others. An image given twice is evaluated once. A --save folder inside a
--path folder is left out of the walk, so that no run evaluates an earlier one.

With --jsonl FILE a run that was stopped, even killed, goes on when the same command is given
again: images that have a line with figures in FILE are skipped, and count in the means;
errors are tried again. A line is written behind the image's pictures. Other settings, or
fewer images, are refused. With --multihost the processes share the images, each with lines
in a part of FILE of its own; at the end FILE is that of a single process, byte for byte.

Images are computed through windows of one shape, so that a folder of many sizes compiles
once, and memory does not grow with the image beyond some copies of it. The shape is chosen
for the folder; it changes the maps by float32 rounding, and --window holds it. What has been
compiled is kept in ~/.cache/hvsjnd_jax (JAX_COMPILATION_CACHE_DIR: elsewhere;
JAX_ENABLE_COMPILATION_CACHE=false: not at all). Metrics other than psnr see images whole, and
compile for each size. One that is too small for a metric is named, and counts in the means of
the others.

The exit status is 0 when every image was evaluated, 1 when some or all could not be (or one
was too small for a metric), 2 when the command could not start or the results could not be
written, 130 when it was interrupted, and 141 when the reader of its output left.
"""

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

import jax
import numpy as np
from tqdm import tqdm

from hvsjnd_jax import weights
from hvsjnd_jax.cli.command import UsageError, make_parser, run_command
from hvsjnd_jax.cli.jsonl import Record, RecordWriter, Settings, begin, gather
from hvsjnd_jax.cli.options import add_photographs, add_weights, parse_psnr
from hvsjnd_jax.cli.outputs import check_output, write_json
from hvsjnd_jax.cli.photographs import (
  Photographs,
  blame_image,
  check_size,
  find_photographs,
  open_dataset,
  plan_window,
)
from hvsjnd_jax.cli.prefetch import progress
from hvsjnd_jax.cli.saved_images import OUTPUTS, make_stems, parse_outputs, save_outputs
from hvsjnd_jax.data.images import ImageError
from hvsjnd_jax.evaluation import scores
from hvsjnd_jax.metrics import METRICS
from hvsjnd_jax.model import windows
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.noise import draw_signs, inject
from hvsjnd_jax.noise_scale import UnreachableError, find_scale
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.runtime.processes import join_processes

# Of the image, with --save: 73 was measured, a window's own memory left out.
_BYTES_PER_PIXEL = 80

# For the noise: no array of the image's size on the way.
_ROWS_AT_ONCE = 64

_LARGEST_LMBDA = float(np.finfo(np.float32).max)


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit status."""
  args = _parse(argv)
  status = run_command("eval", lambda: _run(args))
  if status > 1 and args.multihost and jax.process_count() > 1:
    # An orderly exit would wait for the others, who wait for this one.
    sys.stderr.flush()
    os._exit(status)
  return status


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("eval", __doc__)
  add_photographs(parser)
  strength = parser.add_mutually_exclusive_group()
  strength.add_argument(
    "--lmbda",
    type=_lmbda,
    metavar="L",
    help="noise scale: y = clip(x + L * sign * JND, 0, 1); the published README runs 10 "
    "(default: 1)",
  )
  strength.add_argument(
    "--target-psnr",
    type=parse_psnr,
    metavar="DB",
    help="instead of one lmbda: for each image the one at which its total PSNR is this",
  )
  add_weights(parser)
  parser.add_argument(
    "--window",
    type=_window,
    metavar="HxW",
    help="sides of the window, multiples of 8 above 112 (default: chosen for the folder)",
  )
  parser.add_argument(
    "--save",
    type=Path,
    metavar="DIR",
    help="write the distorted image, JND map, attention map and a sheet of each image",
  )
  parser.add_argument(
    "--metrics",
    default="psnr",
    metavar="M,M",
    help=f"what to report, of {', '.join(METRICS)} (default: psnr)",
  )
  parser.add_argument(
    "--vgg16",
    type=Path,
    metavar="DIR",
    help="a folder of VGG16's weights, which dists needs and this package does not ship: "
    "python -m convert.from_torch --vgg16 vgg16-397923af.pth --out DIR",
  )
  parser.add_argument(
    "--outputs",
    type=parse_outputs,
    metavar="O,O",
    help=f"with --save: what to write, of {', '.join(OUTPUTS)} (default: all)",
  )
  parser.add_argument(
    "--jsonl",
    type=Path,
    metavar="FILE",
    help="write a line of JSON as soon as an image is done; where FILE holds some already, go on",
  )
  parser.add_argument(
    "--tfds", metavar="NAME|DIR", help="in place of --path: a dataset of TensorFlow Datasets"
  )
  parser.add_argument(
    "--tfds-split", default="train", metavar="S", help="of --tfds, such as test (default: train)"
  )
  parser.add_argument(
    "--multihost",
    action="store_true",
    help="share the images with the other hosts' processes (TPU pod, SLURM, ...); needs --jsonl",
  )
  args = parser.parse_args(argv)
  if args.tfds is not None and args.path is not None:
    parser.error("argument --tfds: not allowed with argument --path")
  if args.multihost and args.jsonl is None:
    parser.error("--multihost needs --jsonl FILE, in a folder that all processes see")
  if args.json is not None and args.json == args.jsonl:
    parser.error("--json and --jsonl need a file each")
  if args.outputs is not None and args.save is None:
    parser.error("--outputs needs --save DIR")
  if args.save is not None:
    args.outputs = args.outputs or OUTPUTS
  if args.lmbda is None and args.target_psnr is None:
    args.lmbda = 1.0
  return args


def _lmbda(text: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 <= value <= _LARGEST_LMBDA:
    raise argparse.ArgumentTypeError(
      f"expected a number from 0 to {_LARGEST_LMBDA:.2g}, got {text}"
    )
  return value


def _window(text: str) -> tuple[int, int]:
  sides = text.split("x")
  if not (len(sides) == 2 and all(side.isdecimal() for side in sides)):
    raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, such as 512x768, got {text}")
  try:
    return windows.check_window((int(sides[0]), int(sides[1])))
  except ValueError as error:
    raise argparse.ArgumentTypeError(str(error)) from None


def _run(args: argparse.Namespace) -> int:
  if args.multihost:
    join_processes()
  try:
    args.metrics = scores.parse_metrics(args.metrics)
  except ValueError as error:
    raise UsageError(f"--metrics: {error}") from None
  if args.tfds is None:
    photographs = Photographs(find_photographs(args.path, leave_out=args.save))
  else:
    photographs = open_dataset(args.tfds, args.tfds_split)
  backbones = scores.load_backbones(args.metrics, vgg16=args.vgg16)
  model = weights.load(args.weights, dtype=args.dtype)
  stems = {} if args.save is None else make_stems(photographs.paths, args.save)
  for option, file in (("--json", args.json), ("--jsonl", args.jsonl)):
    if file is not None:
      check_output(option, file, inputs=photographs.paths)

  paths, read, read_size = photographs

  def settle(former: Settings) -> Settings:
    args.window = args.window or former.get("window") or plan_window(paths, read_size=read_size)
    return _describe_settings(args, model)

  saved = {str(path): str(stems[path]) if stems else None for path in paths}
  if args.jsonl is None:
    settings, records, lines = settle({}), {}, None
  else:
    settings, records = begin(args.jsonl, saved, settle)
    lines = RecordWriter(args.jsonl, settings)
  if records and not jax.process_index():
    print(f"{args.jsonl}: {len(records)} of {len(paths)} images are done already")
  share = paths[jax.process_index() :: jax.process_count()]
  share = [path for path in share if str(path) not in records]
  with (
    lines or contextlib.nullcontext(),
    progress(share, read=read) as images,
    _Background() as background,
  ):
    for path, pixels in images:
      tasks: list[Callable[[], None]] = []
      try:
        if isinstance(pixels, ImageError):
          raise pixels
        check_size(pixels, bytes_per_pixel=_BYTES_PER_PIXEL)
        evaluated = _evaluate(model, pixels, args, backbones)
      except (ImageError, UnreachableError) as error:
        record: Record = {"path": str(path), "error": str(error)}
        tqdm.write(f"eval: {path}: {error}", file=sys.stderr)
      else:
        height, width, _ = pixels.shape
        record = {"path": str(path), "height": height, "width": width, "lmbda": evaluated.lmbda}
        record |= scores.select(evaluated.figures, args.metrics)
        described = scores.describe(evaluated.figures, args.metrics, size=(height, width))
        found = "" if args.target_psnr is None else f"lmbda: {evaluated.lmbda:.6g}\n"
        tqdm.write(f"Images Path is: {path}\n{found}{described}")
        if stems:
          record["saved"] = saved[str(path)]
          tasks.append(partial(_save, stems[path], args.outputs, pixels, evaluated))
      records[str(path)] = record
      if lines is not None:  # behind the pictures: it says that the image is done
        tasks.append(partial(lines.add, record))
      background.run(tasks)

  if args.jsonl is not None:
    gathered = gather(args.jsonl, list(saved))
    if gathered is None:  # the first process speaks for all
      return _judge(records.values())
    records = gathered
  return _report(args, settings, [records[str(path)] for path in paths])


def _describe_settings(args: argparse.Namespace, model: JNDModel) -> Settings:
  """All that figures and pictures depend on, but for the images."""
  needs_vgg16 = any(METRICS[name].backbone == "vgg16" for name in args.metrics)
  return {
    "lmbda": args.lmbda,
    "target_psnr": args.target_psnr,
    "seed": args.seed,
    "metrics": args.metrics,
    "window": args.window,
    "weights": weights.read_manifest(args.weights)["sha256"],
    "resolution": args.resolution or model.resolution,
    "attention": args.attention or model.attention_layer,
    "dtype": args.dtype,
    "vgg16": weights.read_backbone_manifest("vgg16", args.vgg16)["sha256"] if needs_vgg16 else None,
    "outputs": args.outputs,
  }


def _report(args: argparse.Namespace, settings: Settings, records: list[Record]) -> int:
  """Prints the means, writes --json, and returns the exit status."""
  errors = [record for record in records if "error" in record]
  images = [record for record in records if "error" not in record]
  mean = scores.average([scores.select(record, args.metrics) for record in images])
  found_lmbda = None
  if images:
    described = scores.describe(mean, args.metrics)
    if args.target_psnr is not None:
      lmbdas = [record["lmbda"] for record in images]
      found_lmbda = {"mean": float(np.mean(lmbdas)), "median": float(np.median(lmbdas))}
      described = "lmbda: {mean:.6g}, median {median:.6g}\n".format(**found_lmbda) + described
    print(f"Mean over {len(images)} image{'s' * (len(images) > 1)}:\n{described}")
  if errors:
    print(f"eval: {len(errors)} of {len(records)} files could not be used", file=sys.stderr)
  if args.json is not None:
    report = {
      "lmbda": args.lmbda,
      "target_psnr": args.target_psnr,
      "found_lmbda": found_lmbda,
      "seed": args.seed,
      "window": args.window,
      "weights": {
        "name": args.weights,
        "sha256": settings["weights"],
        **{name: settings[name] for name in ("resolution", "attention", "dtype")},
      },
      "images": images,
      "mean": mean,
      "errors": errors,
    }
    write_json(args.json, report)
  return _judge(records)


def _judge(records: Iterable[Record]) -> int:
  """The exit status: 1 where an image could not be used, or was too small for a metric."""
  return int(any("error" in record or None in record.values() for record in records))


class _Background:
  """Tasks in another thread, an image's at a time; an error comes with the next, or at the end."""

  def __init__(self) -> None:
    self._thread = ThreadPoolExecutor(max_workers=1)
    self._task: Future[None] | None = None

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: object, *_: object) -> None:
    with self._thread:
      if kind is None:
        self._wait()

  def run(self, tasks: Sequence[Callable[[], None]]) -> None:
    """Runs tasks in their order, as soon as those before are done."""
    self._wait()
    self._task = self._thread.submit(_call, tasks)

  def _wait(self) -> None:
    if self._task is not None:
      self._task.result()


def _call(tasks: Iterable[Callable[[], None]]) -> None:
  for task in tasks:
    task()


class _Evaluated(NamedTuple):
  """What the method says of one image, on the host."""

  distorted: np.ndarray
  jnd: np.ndarray
  attention: np.ndarray
  lmbda: float
  figures: scores.Figures


def _evaluate(
  model: JNDModel, pixels: Pixels, args: argparse.Namespace, backbones: scores.Networks
) -> _Evaluated:
  with blame_image(pixels):
    maps = windows.analyze(
      model,
      pixels[None],
      window=args.window,
      resolution=args.resolution,
      attention_layer=args.attention,
    )
    jnd, attention = maps.jnd, maps.attention[0, ..., 0]
    del maps  # the others are of the image's size, twice over
    signs = draw_signs(pixels, seed=args.seed)
    image, distorted = (np.empty(pixels.shape, np.float32) for _ in range(2))
    for rows in _split_rows(pixels):
      image[rows] = pixels[rows].astype(np.float32) / 255

    def distort(lmbda: float) -> None:
      for rows in _split_rows(pixels):
        distorted[rows] = inject(image[None, rows], jnd[:, rows], signs[rows], lmbda=lmbda)[0]

    def measure(lmbda: float) -> float:
      distort(lmbda)
      return float(scores.measure_errors(distorted, image).mean())

    lmbda = args.lmbda
    if args.target_psnr is not None:
      lmbda = find_scale(measure, jnd[0], psnr_db=args.target_psnr, largest=_LARGEST_LMBDA)
    distort(lmbda)
    return _Evaluated(
      distorted,
      jnd[0],
      attention,
      lmbda,
      scores.measure(distorted, image, args.metrics, backbones=backbones),
    )


def _split_rows(pixels: Pixels) -> Iterator[slice]:
  for start in range(0, len(pixels), _ROWS_AT_ONCE):
    yield slice(start, start + _ROWS_AT_ONCE)


def _save(stem: Path, names: Sequence[str], pixels: Pixels, evaluated: _Evaluated) -> None:
  save_outputs(
    stem,
    names,
    pixels,
    distorted=evaluated.distorted,
    jnd=evaluated.jnd,
    attention=evaluated.attention,
    note=f"lmbda {evaluated.lmbda:g}: {evaluated.figures['psnr']:.2f} dB",
  )


if __name__ == "__main__":
  sys.exit(main())

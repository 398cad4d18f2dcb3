"""Estimate the JND of photographs, inject noise scaled by it, and report the PSNR.

  python -m hvsjnd_jax.eval --lmbda 10
  python -m hvsjnd_jax.eval --path photos --lmbda 10 --save out --json out.json
  python -m hvsjnd_jax.eval --path photos --lmbda 10 --metrics psnr,ms_ssim,fsim
  python -m hvsjnd_jax.eval --path photos --target-psnr 32.57

With --target-psnr each image gets a lmbda of its own, at which the total PSNR, as it is
reported: of the clipped, unrounded result, is the one given, to 0.005 dB. An image that no
lmbda takes there, its map being zero or its values clipped, is named and left out.

The signs of the noise follow from the seed and the image alone, not from the file's name or
its place among the others. An image given twice is evaluated once. A --save folder inside a
--path folder is left out of the walk, so that no run evaluates an earlier one.

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
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from tqdm import tqdm

from hvsjnd_jax import figures, pictures, weights, windows
from hvsjnd_jax.console import (
  UsageError,
  add_photographs,
  add_weights,
  blame_image,
  check_output,
  check_size,
  find_photographs,
  make_folder,
  make_parser,
  parse_psnr,
  plan_window,
  progress,
  run_command,
  write_json,
  writing,
)
from hvsjnd_jax.estimator import JNDModel, inject
from hvsjnd_jax.images import ImageError, Pixels, place, to_uint8, write_npy, write_png
from hvsjnd_jax.metrics import METRICS
from hvsjnd_jax.noise import UnreachableError, draw_signs, find_scale

# Of the image, with --save: 73 was measured, a window's own memory left out.
_BYTES_PER_PIXEL = 80
# For the noise: no array of the image's size on the way.
_ROWS_AT_ONCE = 64
_LARGEST_LMBDA = float(np.finfo(np.float32).max)
_OUTPUTS = ("distorted.png", "jnd.png", "jnd.npy", "attention.png", "sheet.png")


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit status."""
  args = _parse(argv)
  return run_command("eval", lambda: _run(args))


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
  args = parser.parse_args(argv)
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
  try:
    args.metrics = figures.parse_metrics(args.metrics)
  except ValueError as error:
    raise UsageError(f"--metrics: {error}") from None
  files = find_photographs(args.path, leave_out=args.save)
  backbones = figures.load_backbones(args.metrics, vgg16=args.vgg16)
  model = weights.load(args.weights, dtype=args.dtype)
  stems = {} if args.save is None else _make_stems(files, args.save)
  if args.json is not None:
    check_output("--json", args.json)
  weights_used = _describe_weights(args, model)
  args.window = args.window or plan_window(files)
  records: list[figures.Figures] = []
  paths: list[str] = []
  lmbdas: list[float] = []
  errors: list[dict[str, str]] = []
  with progress(files) as photographs, _Background() as background:
    for file, pixels in photographs:
      try:
        if isinstance(pixels, ImageError):
          raise pixels
        check_size(pixels, bytes_per_pixel=_BYTES_PER_PIXEL)
        evaluated = _evaluate(model, pixels, args, backbones)
      except (ImageError, UnreachableError) as error:
        errors.append({"path": str(file), "error": str(error)})
        tqdm.write(f"eval: {file}: {error}", file=sys.stderr)
        continue
      described = figures.describe(evaluated.figures, args.metrics, size=pixels.shape[:2])
      found = "" if args.target_psnr is None else f"lmbda: {evaluated.lmbda:.6g}\n"
      tqdm.write(f"Images Path is: {file}\n{found}{described}")
      records.append(figures.select(evaluated.figures, args.metrics))
      paths.append(str(file))
      lmbdas.append(evaluated.lmbda)
      if stems:
        background.run(_save_pictures, stems[file], pixels, evaluated)

  mean = figures.average(records)
  found_lmbda = None
  if records:
    described = figures.describe(mean, args.metrics)
    if args.target_psnr is not None:
      found_lmbda = {"mean": float(np.mean(lmbdas)), "median": float(np.median(lmbdas))}
      described = "lmbda: {mean:.6g}, median {median:.6g}\n".format(**found_lmbda) + described
    print(f"Mean over {len(records)} image{'s' * (len(records) > 1)}:\n{described}")
  if errors:
    print(f"eval: {len(errors)} of {len(files)} files could not be used", file=sys.stderr)
  if args.json is not None:
    report = {
      "lmbda": args.lmbda,
      "target_psnr": args.target_psnr,
      "found_lmbda": found_lmbda,
      "seed": args.seed,
      "window": args.window,
      "weights": weights_used,
      "images": [
        {"path": p, "lmbda": lmbda, **r} for p, lmbda, r in zip(paths, lmbdas, records, strict=True)
      ],
      "mean": mean,
      "errors": errors,
    }
    write_json(args.json, report)
  too_small = any(None in record.values() for record in records)
  return 1 if errors or too_small else 0


class _Background:
  """One task at a time in another thread; its error is raised with the next, or at the end."""

  def __init__(self) -> None:
    self._thread = ThreadPoolExecutor(max_workers=1)
    self._task: Future[None] | None = None

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: object, *_: object) -> None:
    with self._thread:
      if kind is None:
        self._wait()

  def run(self, function: Callable[..., None], *arguments: Any, **options: Any) -> None:
    self._wait()
    self._task = self._thread.submit(function, *arguments, **options)

  def _wait(self) -> None:
    if self._task is not None:
      self._task.result()


def _make_stems(files: list[Path], folder: Path) -> dict[Path, Path]:
  """Where each image's pictures go, less their suffixes: the inputs' own tree and names.

  Which names depends on the set of files, not on their order: where two files differ in
  the extension only, all names keep theirs.
  """
  make_folder(folder)
  places = {file: place(file) for file in files}
  root = os.path.commonpath([path.parent for path in places.values()])
  stems = {file: folder / path.relative_to(root).with_suffix("") for file, path in places.items()}
  if len(set(stems.values())) < len(files):
    stems = {file: folder / path.relative_to(root) for file, path in places.items()}
  inputs = set(places.values())
  for stem in stems.values():
    for output in (_output(stem, name) for name in _OUTPUTS):
      if place(output) in inputs:
        raise UsageError(f"{output} is an image to evaluate; choose another folder for --save")
  return stems


def _output(stem: Path, name: str) -> Path:
  return stem.with_name(f"{stem.name}_{name}")


class _Evaluated(NamedTuple):
  """What the method says of one image, on the host."""

  distorted: np.ndarray
  jnd: np.ndarray
  attention: np.ndarray
  lmbda: float
  figures: figures.Figures


def _evaluate(
  model: JNDModel, pixels: Pixels, args: argparse.Namespace, backbones: figures.Networks
) -> _Evaluated:
  with blame_image(pixels):
    maps = windows.analyze(
      model.hvs_sd,
      model.generator,
      pixels[None],
      window=args.window,
      resolution=args.resolution or model.resolution,
      attention=args.attention or model.attention,
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
      return float(figures.measure_errors(distorted, image).mean())

    lmbda = args.lmbda
    if args.target_psnr is not None:
      lmbda = find_scale(measure, jnd[0], psnr_db=args.target_psnr, largest=_LARGEST_LMBDA)
    distort(lmbda)
    return _Evaluated(
      distorted,
      jnd[0],
      attention,
      lmbda,
      figures.measure(distorted, image, args.metrics, backbones=backbones),
    )


def _split_rows(pixels: Pixels) -> Iterator[slice]:
  for start in range(0, len(pixels), _ROWS_AT_ONCE):
    yield slice(start, start + _ROWS_AT_ONCE)


def _describe_weights(args: argparse.Namespace, model: JNDModel) -> dict[str, str]:
  manifest = weights.read_manifest(args.weights)
  return {
    "name": args.weights,
    "sha256": manifest["sha256"],
    "resolution": args.resolution or model.resolution,
    "attention": args.attention or model.attention,
    "dtype": args.dtype,
  }


def _save_pictures(stem: Path, pixels: Pixels, evaluated: _Evaluated) -> None:
  sheet = pictures.analysis_sheet(
    pixels,
    attention=evaluated.attention,
    jnd=evaluated.jnd,
    distorted=evaluated.distorted,
    note=f"lmbda {evaluated.lmbda:g}: {evaluated.figures['psnr']:.2f} dB",
  )
  jnd, _ = pictures.visible_jnd(evaluated.jnd)
  attention = pictures.jet(evaluated.attention)
  outputs = (to_uint8(evaluated.distorted), jnd, evaluated.jnd, attention, sheet)
  with writing(stem):
    stem.parent.mkdir(parents=True, exist_ok=True)
    for name, output in zip(_OUTPUTS, outputs, strict=True):
      write = write_npy if name.endswith(".npy") else write_png
      write(_output(stem, name), output)


if __name__ == "__main__":
  sys.exit(main())

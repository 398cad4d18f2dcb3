"""Estimate the JND of photographs, inject noise scaled by it, and report the PSNR.

  python -m hvsjnd_jax.eval --lmbda 10
  python -m hvsjnd_jax.eval --path photos --lmbda 10 --save out --json out.json
  python -m hvsjnd_jax.eval --path photos --lmbda 10 --metrics psnr,ms_ssim,fsim

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
import contextlib
import io
import json
import logging
import math
import os
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, Self, get_args

import jax
import numpy as np
from tqdm import tqdm

from hvsjnd_jax import figures, pictures, weights, windows
from hvsjnd_jax.compilation import keep_compilations
from hvsjnd_jax.estimator import MIN_SIDE_PX, JNDModel, inject
from hvsjnd_jax.generator import Resolution
from hvsjnd_jax.images import (
  EXTENSIONS,
  ImageError,
  Pixels,
  find_images,
  place,
  read_image,
  read_size,
  to_uint8,
  write_npy,
  write_png,
)
from hvsjnd_jax.metrics import METRICS
from hvsjnd_jax.priors import AttentionLayer

# CC0 and public-domain photographs that come with scikit-image.
_SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
# Of the image, with --save: 73 was measured, a window's own memory left out.
_BYTES_PER_PIXEL = 80
# For the noise: no array of the image's size on the way.
_ROWS_AT_ONCE = 64
_OUTPUTS = ("distorted.png", "jnd.png", "jnd.npy", "attention.png", "sheet.png")


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit status."""
  args = _parse(argv)
  keep_compilations()
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")  # file names may be any bytes
  # What Pillow has to say of odd metadata changes no pixel.
  logging.getLogger("PIL").setLevel(logging.CRITICAL)
  try:
    with warnings.catch_warnings():
      warnings.filterwarnings("ignore", module="PIL")
      status = _run(args)
    print(end="", flush=True)
    return status
  except (weights.WeightsError, _UsageError) as error:
    print(f"eval: {error}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("eval: interrupted", file=sys.stderr)
    return 130
  except OSError as error:  # of standard output: a reader that left, a full disk
    # Python flushes it once more at exit, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
      return 141  # 128 + SIGPIPE, as `cat` would end
    print(f"eval: {error}", file=sys.stderr)
    return 2


class _UsageError(Exception):
  """Something that the user asked for cannot be done."""


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  description, _, notes = (__doc__ or "").partition("\n\n")
  parser = argparse.ArgumentParser(
    prog="python -m hvsjnd_jax.eval",
    description=description,
    epilog=notes.partition("\n\n")[2],
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--path",
    type=Path,
    nargs="+",
    action="extend",
    metavar="FILE|DIR",
    help="images, and folders to walk (a --save folder inside is left out); without it, four "
    "photographs from scikit-image",
  )
  parser.add_argument(
    "--lmbda",
    type=_lmbda,
    default=1.0,
    metavar="L",
    help="noise scale: y = clip(x + L * sign * JND, 0, 1); the published README runs 10 "
    "(default: 1)",
  )
  parser.add_argument(
    "--weights", type=Path, metavar="DIR", help="a folder of weights (default: the shipped ones)"
  )
  parser.add_argument(
    "--seed", type=_seed, default=0, metavar="S", help="of the noise's signs (default: 0)"
  )
  parser.add_argument(
    "--resolution", choices=get_args(Resolution), help="default: the weights' own"
  )
  parser.add_argument(
    "--attention", choices=get_args(AttentionLayer), help="default: the weights' own"
  )
  parser.add_argument(
    "--dtype",
    choices=("float32", "bfloat16"),
    default="float32",
    help="what the networks compute in (default: float32)",
  )
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
  parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
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
  return parser.parse_args(argv)


def _lmbda(text: str) -> float:
  largest = float(np.finfo(np.float32).max)
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 <= value <= largest:
    raise argparse.ArgumentTypeError(f"expected a number from 0 to {largest:.2g}, got {text}")
  return value


def _seed(text: str) -> int:
  largest = 2**32 - 1
  if not (text.isdecimal() and int(text) <= largest):
    raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {largest}, got {text}")
  return int(text)


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
    raise _UsageError(f"--metrics: {error}") from None
  files = _find(args)
  backbones = figures.load_backbones(args.metrics, vgg16=args.vgg16)
  model = weights.load(args.weights, dtype=args.dtype)
  stems = {} if args.save is None else _make_stems(files, args.save)
  if args.json is not None:
    _make_folder(args.json.parent)
    if args.json.is_dir():
      raise _UsageError(f"--json {args.json}: a folder; expected the name of a file")
  weights_used = _describe_weights(args, model)
  args.window = args.window or _plan_window(files)
  records: list[figures.Figures] = []
  paths: list[str] = []
  errors: list[dict[str, str]] = []
  with (
    _stderr_of_python_alone(),
    tqdm(_read_ahead(files), total=len(files), unit="image", disable=None) as bar,  # not in a pipe
    _Background() as background,
  ):
    for file, pixels in bar:
      try:
        if isinstance(pixels, ImageError):
          raise pixels
        _check_size(pixels)
        evaluated = _evaluate(model, pixels, args, backbones)
      except ImageError as error:
        errors.append({"path": str(file), "error": str(error)})
        tqdm.write(f"eval: {file}: {error}", file=sys.stderr)
        continue
      described = figures.describe(evaluated.figures, args.metrics, size=pixels.shape[:2])
      tqdm.write(f"Images Path is: {file}\n{described}")
      records.append(figures.select(evaluated.figures, args.metrics))
      paths.append(str(file))
      if stems:
        background.run(_save_pictures, stems[file], pixels, evaluated, lmbda=args.lmbda)

  mean = figures.average(records)
  if records:
    described = figures.describe(mean, args.metrics)
    print(f"Mean over {len(records)} image{'s' * (len(records) > 1)}:\n{described}")
  if errors:
    print(f"eval: {len(errors)} of {len(files)} files could not be used", file=sys.stderr)
  if args.json is not None:
    report = {
      "lmbda": args.lmbda,
      "seed": args.seed,
      "window": args.window,
      "weights": weights_used,
      "images": [{"path": p, **r} for p, r in zip(paths, records, strict=True)],
      "mean": mean,
      "errors": errors,
    }
    _write_text(args.json, json.dumps(report, indent=2) + "\n")
  too_small = any(None in record.values() for record in records)
  return 1 if errors or too_small else 0


def _plan_window(files: list[Path]) -> windows.Window:
  sizes = [size for file in files if (size := read_size(file)) is not None]
  return windows.plan_window(sizes or [(MIN_SIDE_PX, MIN_SIDE_PX)])


def _read_ahead(files: list[Path]) -> Iterator[tuple[Path, Pixels | ImageError]]:
  """Each file and what it holds; the next is being read when one is given out."""
  with ThreadPoolExecutor(max_workers=1) as thread:
    upcoming = thread.submit(_read, files[0])
    for file, following in zip(files, [*files[1:], None], strict=True):
      pixels = upcoming.result()
      if following is not None:
        upcoming = thread.submit(_read, following)
      yield file, pixels


def _read(file: Path) -> Pixels | ImageError:
  try:
    with _silent_libraries():
      return read_image(file)
  except ImageError as error:
    return error


@contextlib.contextmanager
def _silent_libraries() -> Iterator[None]:
  """Discards what C libraries write: libtiff comments on every damaged strip."""
  stderr = os.dup(2)
  try:
    with open(os.devnull, "w") as nowhere:
      os.dup2(nowhere.fileno(), 2)
    yield
  finally:
    os.dup2(stderr, 2)
    os.close(stderr)


@contextlib.contextmanager
def _stderr_of_python_alone() -> Iterator[None]:
  """Lets Python's own words reach stderr while another thread silences the libraries'."""
  if sys.stderr is not sys.__stderr__:  # somebody's own already
    yield
    return
  with os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace") as sys.stderr:
    try:
      yield
    finally:
      sys.stderr = sys.__stderr__


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


def _find(args: argparse.Namespace) -> list[Path]:
  paths = args.path or _locate_samples()
  try:
    files, skipped = find_images(paths, leave_out=args.save)
  except FileNotFoundError as error:
    raise _UsageError(str(error)) from None
  if skipped:
    print(f"Files skipped, having no image's extension: {skipped}")
  if not files:
    where = ", ".join(map(str, paths))
    raise _UsageError(f"no image under {where}: looked for {' '.join(sorted(EXTENSIONS))}")
  return files


def _locate_samples() -> list[Path]:
  folder = Path(str(resources.files("skimage") / "data"))
  return [folder / name for name in _SAMPLES]


def _check_size(pixels: Pixels) -> None:
  """Refuses what the estimator cannot take, or what would make the system end the run."""
  height, width = pixels.shape[:2]
  if min(height, width) < MIN_SIDE_PX:
    raise ImageError(f"{width}x{height} pixels; at least {MIN_SIDE_PX}x{MIN_SIDE_PX} are needed")
  need = height * width * _BYTES_PER_PIXEL
  memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  if jax.default_backend() == "cpu" and need > memory:
    raise ImageError(
      f"{width}x{height} pixels need about {need / 1e9:.0f} GB of memory, and this machine "
      f"has {memory / 1e9:.0f} GB; reduce the image"
    )


def _make_stems(files: list[Path], folder: Path) -> dict[Path, Path]:
  """Where each image's pictures go, less their suffixes: the inputs' own tree and names.

  Which names depends on the set of files, not on their order: where two files differ in
  the extension only, all names keep theirs.
  """
  _make_folder(folder)
  places = {file: place(file) for file in files}
  root = os.path.commonpath([path.parent for path in places.values()])
  stems = {file: folder / path.relative_to(root).with_suffix("") for file, path in places.items()}
  if len(set(stems.values())) < len(files):
    stems = {file: folder / path.relative_to(root) for file, path in places.items()}
  inputs = set(places.values())
  for stem in stems.values():
    for output in (_output(stem, name) for name in _OUTPUTS):
      if place(output) in inputs:
        raise _UsageError(f"{output} is an image to evaluate; choose another folder for --save")
  return stems


def _output(stem: Path, name: str) -> Path:
  return stem.with_name(f"{stem.name}_{name}")


class _Evaluated(NamedTuple):
  """What the method says of one image, on the host."""

  distorted: np.ndarray
  jnd: np.ndarray
  attention: np.ndarray
  figures: figures.Figures


def _evaluate(
  model: JNDModel, pixels: Pixels, args: argparse.Namespace, backbones: figures.Networks
) -> _Evaluated:
  height, width = pixels.shape[:2]
  try:
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
    # The signs follow from seed and content: not from the file's name or its place.
    rng = np.random.default_rng((args.seed, zlib.crc32(pixels.tobytes())))
    signs = rng.choice(np.asarray((-1, 1), np.float32), (height, width))
    image, distorted = (np.empty(pixels.shape, np.float32) for _ in range(2))
    for start in range(0, height, _ROWS_AT_ONCE):
      rows = slice(start, start + _ROWS_AT_ONCE)
      image[rows] = pixels[rows].astype(np.float32) / 255
      noisy = inject(image[None, rows], jnd[:, rows], signs[rows], lmbda=args.lmbda)
      distorted[rows] = noisy[0]
    return _Evaluated(
      distorted,
      jnd[0],
      attention,
      figures.measure(distorted, image, args.metrics, backbones=backbones),
    )
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    reason = str(error).partition("\n")[0]
    raise ImageError(f"{width}x{height} pixels cannot be computed here: {reason}") from None


def _describe_weights(args: argparse.Namespace, model: JNDModel) -> dict[str, str]:
  manifest = weights.read_manifest(args.weights)
  return {
    "name": "default" if args.weights is None else str(args.weights),
    "sha256": manifest["sha256"],
    "resolution": args.resolution or model.resolution,
    "attention": args.attention or model.attention,
    "dtype": args.dtype,
  }


def _save_pictures(stem: Path, pixels: Pixels, evaluated: _Evaluated, *, lmbda: float) -> None:
  sheet = pictures.analysis_sheet(
    pixels,
    attention=evaluated.attention,
    jnd=evaluated.jnd,
    distorted=evaluated.distorted,
    note=f"lmbda {lmbda:g}: {evaluated.figures['psnr']:.2f} dB",
  )
  jnd, _ = pictures.visible_jnd(evaluated.jnd)
  attention = pictures.jet(evaluated.attention)
  outputs = (to_uint8(evaluated.distorted), jnd, evaluated.jnd, attention, sheet)
  try:
    stem.parent.mkdir(parents=True, exist_ok=True)
    for name, output in zip(_OUTPUTS, outputs, strict=True):
      write = write_npy if name.endswith(".npy") else write_png
      write(_output(stem, name), output)
  except OSError as error:
    raise _UsageError(f"{stem}: cannot be written: {error.strerror or error}") from None


def _make_folder(folder: Path) -> None:
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise _UsageError(f"{folder}: no folder, and cannot be made one: {error.strerror}") from None


def _write_text(file: Path, text: str) -> None:
  try:
    file.write_text(text)
  except OSError as error:
    raise _UsageError(f"{file}: cannot be written: {error.strerror}") from None


if __name__ == "__main__":
  sys.exit(main())

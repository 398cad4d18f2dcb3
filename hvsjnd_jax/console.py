"""What the commands share: options, files, words, and how they end.

Results go to stdout; errors, each a line, and the progress bar to stderr.
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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
from tqdm import tqdm

from hvsjnd_jax import windows
from hvsjnd_jax.compilation import keep_compilations
from hvsjnd_jax.estimator import MIN_SIDE_PX
from hvsjnd_jax.files import whole_file
from hvsjnd_jax.generator import Resolution
from hvsjnd_jax.images import (
  EXTENSIONS,
  ImageError,
  Pixels,
  find_images,
  place,
  read_image,
  read_size,
)
from hvsjnd_jax.models import is_model, list_models
from hvsjnd_jax.priors import AttentionLayer
from hvsjnd_jax.sharding import JoinError
from hvsjnd_jax.weights import SHIPPED, WeightsError

# Gives the pixels, or raises ImageError.
Read = Callable[[Path], Pixels]
# Gives height and width without decoding; None if they cannot be read.
ReadSize = Callable[[Path], tuple[int, int] | None]

# CC0 and public-domain photographs that come with scikit-image.
_SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


class UsageError(Exception):
  """Something that the user asked for cannot be done."""


def run_command(name: str, run: Callable[[], int]) -> int:
  """Runs what a command does; whatever ends it early is one line.

  Args:
    name: Of the command, before its errors.
    run: What it does; returns the exit status.

  Returns:
    The exit status: what `run` gave, 2 when it could not go on, 130 when it was interrupted,
    141 when the reader of its output left.
  """
  keep_compilations()
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")  # file names may be any bytes
  # What Pillow has to say of odd metadata changes no pixel.
  logging.getLogger("PIL").setLevel(logging.CRITICAL)
  try:
    with warnings.catch_warnings():
      warnings.filterwarnings("ignore", module="PIL")
      status = run()
    print(end="", flush=True)
    return status
  except (JoinError, UsageError, WeightsError) as error:
    print(f"{name}: {error}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print(f"{name}: interrupted", file=sys.stderr)
    return 130
  except OSError as error:  # of standard output: a reader that left, a full disk
    # Python flushes it once more at exit, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
      return 141  # 128 + SIGPIPE, as `cat` would end
    print(f"{name}: {error}", file=sys.stderr)
    return 2


def make_parser(name: str, doc: str | None) -> argparse.ArgumentParser:
  """A command's parser, without options yet.

  Args:
    name: Of the command.
    doc: Its module's docstring: the first paragraph describes it, the second holds examples,
      which `--help` leaves out, and the others follow the options.
  """
  description, _, notes = (doc or "").partition("\n\n")
  return argparse.ArgumentParser(
    prog=f"python -m hvsjnd_jax.{name}",
    description=description,
    epilog=notes.partition("\n\n")[2],
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )


def add_photographs(parser: argparse.ArgumentParser) -> None:
  """The options of every command that reads photographs."""
  parser.add_argument(
    "--path",
    type=Path,
    nargs="+",
    action="extend",
    metavar="FILE|DIR",
    help="images, and folders to walk; without it, four photographs from scikit-image",
  )
  parser.add_argument(
    "--seed", type=_seed, default=0, metavar="S", help="of the noise's signs (default: 0)"
  )
  parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")


def add_weights(parser: argparse.ArgumentParser) -> None:
  """The options of a command that runs one model."""
  parser.add_argument(
    "--weights",
    default="default",
    metavar="DIR",
    help=f"a folder of weights, or shipped ones: {' or '.join(SHIPPED)} (default: default)",
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


def _seed(text: str) -> int:
  largest = 2**32 - 1
  if not (text.isdecimal() and int(text) <= largest):
    raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {largest}, got {text}")
  return int(text)


def parse_psnr(text: str) -> float:
  """A PSNR in dB, the type of an option.

  Raises:
    ArgumentTypeError: If it is no number between 0 and 100.
  """
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 < value < 100:
    raise argparse.ArgumentTypeError(f"expected a number of dB between 0 and 100, got {text}")
  return value


def check_models(option: str, names: Sequence[str]) -> None:
  """Refuses a name that no JND model has.

  Raises:
    UsageError: If there is one.
  """
  for name in names:
    if not is_model(name):
      known = ", ".join(list_models())
      raise UsageError(f"{option}: unknown model {name!r}; known: {known}, folders of weights")


class Photographs(NamedTuple):
  """Images by path, or by what stands for one in a dataset, and how they are read."""

  paths: list[Path]
  read: Read = read_image
  read_size: ReadSize = read_size


def open_dataset(name: str, split: str) -> Photographs:
  """The images of a TensorFlow dataset, as NAME/SPLIT/000000 and so on.

  Raises:
    UsageError: If there is no such dataset or split, or it holds no RGB images.
  """
  from hvsjnd_jax.data import DataError, PhotoDataset  # TFDS and Grain take seconds

  logging.getLogger("absl").setLevel(logging.ERROR)  # it would recommend OpenCV
  try:
    photos = PhotoDataset(name, split)
  except DataError as error:
    raise UsageError(str(error)) from None

  return Photographs(
    [Path(name, split, f"{i:06d}") for i in range(len(photos))],
    lambda path: photos.read(int(path.name)),
    lambda path: photos.read_size(int(path.name)),
  )


def find_photographs(paths: list[Path] | None, *, leave_out: Path | None = None) -> list[Path]:
  """The images under `--path`; without it those of scikit-image. Says what was passed over.

  Raises:
    UsageError: If a path does not exist, or there is no image.
  """
  paths = paths or _locate_samples()
  try:
    files, skipped = find_images(paths, leave_out=leave_out)
  except FileNotFoundError as error:
    raise UsageError(str(error)) from None
  if skipped:
    print(f"Files skipped, having no image's extension: {skipped}")
  if not files:
    where = ", ".join(map(str, paths))
    raise UsageError(f"no image under {where}: looked for {' '.join(sorted(EXTENSIONS))}")
  return files


def _locate_samples() -> list[Path]:
  folder = Path(str(resources.files("skimage") / "data"))
  return [folder / name for name in _SAMPLES]


def plan_window(files: list[Path], *, read_size: ReadSize = read_size) -> windows.Window:
  """The window for all these images, by the sizes that their heads give."""
  sizes = [size for file in files if (size := read_size(file)) is not None]
  return windows.plan_window(sizes or [(MIN_SIDE_PX, MIN_SIDE_PX)])


@contextlib.contextmanager
def progress(
  files: list[Path], *, read: Read = read_image
) -> Iterator[Iterator[tuple[Path, Pixels | ImageError]]]:
  """Each file and what it holds, under a progress bar; the next is read on the way."""
  images = _read_ahead(files, read)
  with (
    _stderr_of_python_alone(),
    tqdm(images, total=len(files), unit="image", disable=None) as bar,  # not in a pipe
  ):
    yield iter(bar)


def _read_ahead(files: list[Path], read: Read) -> Iterator[tuple[Path, Pixels | ImageError]]:
  """Each file and what it holds; the next is being read when one is given out."""
  if not files:
    return
  with ThreadPoolExecutor(max_workers=1) as thread:
    upcoming = thread.submit(_try, read, files[0])
    for file, following in zip(files, [*files[1:], None], strict=True):
      pixels = upcoming.result()
      if following is not None:
        upcoming = thread.submit(_try, read, following)
      yield file, pixels


def _try(read: Read, file: Path) -> Pixels | ImageError:
  try:
    with _silent_libraries():
      return read(file)
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


def check_size(pixels: Pixels, *, bytes_per_pixel: int) -> None:
  """Refuses what the estimator cannot take, or what would make the system end the run.

  Args:
    pixels: The image.
    bytes_per_pixel: Memory that the command needs for it.

  Raises:
    ImageError: If the image is too small, or needs more memory than there is.
  """
  height, width = pixels.shape[:2]
  if min(height, width) < MIN_SIDE_PX:
    raise ImageError(f"{width}x{height} pixels; at least {MIN_SIDE_PX}x{MIN_SIDE_PX} are needed")
  need = height * width * bytes_per_pixel
  memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  if jax.default_backend() == "cpu" and need > memory:
    raise ImageError(
      f"{width}x{height} pixels need about {need / 1e9:.0f} GB of memory, and this machine "
      f"has {memory / 1e9:.0f} GB; reduce the image"
    )


@contextlib.contextmanager
def blame_image(pixels: Pixels) -> Iterator[None]:
  """Turns the end of a device's or the host's memory into an `ImageError`."""
  try:
    yield
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    height, width = pixels.shape[:2]
    reason = str(error).partition("\n")[0]
    raise ImageError(f"{width}x{height} pixels cannot be computed here: {reason}") from None


def make_folder(folder: Path) -> None:
  """Makes a folder for results, unless there is one.

  Raises:
    UsageError: If it cannot be made, or is read-only.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UsageError(f"{folder}: no folder, and cannot be made one: {error.strerror}") from None
  if not os.access(folder, os.W_OK):
    raise UsageError(f"{folder}: a folder that cannot be written to")


def check_output(option: str, file: Path, *, inputs: Sequence[Path] = ()) -> None:
  """Refuses, before anything is computed, a file that could not or must not be written after it.

  Raises:
    UsageError: If it is a folder, lies in one that cannot be made or is read-only, or is one
      of the inputs.
  """
  if file.exists() and place(file) in map(place, inputs):
    raise UsageError(f"{option} {file}: one of the images; choose another file")
  if file.is_dir():
    raise UsageError(f"{option} {file}: a folder; expected the name of a file")
  if file.is_file() or not file.exists():  # /dev/stdout needs no folder
    make_folder(file.parent)


def write_json(file: Path, report: dict[str, Any]) -> None:
  """Writes a command's report: the whole file or none of it.

  Raises:
    UsageError: If it cannot be written.
  """
  with writing(file), whole_file(file) as partial:
    partial.write_text(json.dumps(report, indent=2) + "\n")


@contextlib.contextmanager
def writing(file: Path) -> Iterator[None]:
  """Turns an error of the disk into a `UsageError` that names the file."""
  try:
    yield
  except OSError as error:
    raise UsageError(f"{file}: cannot be written: {error.strerror or error}") from None

"""Finds a command's photographs, and plans the window that they are computed through."""

import glob
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from hvsjnd_jax.cli.command import UsageError
from hvsjnd_jax.data.images import (
  EXTENSIONS,
  ImageError,
  Picture,
  find_images,
  place,
  read_picture,
  read_size,
)
from hvsjnd_jax.data.paths import is_remote, parse_path
from hvsjnd_jax.data.video import EXTENSIONS as VIDEO_EXTENSIONS
from hvsjnd_jax.data.video import Video
from hvsjnd_jax.model import windows
from hvsjnd_jax.model.jnd_model import MIN_SIDE_PX

# Returns the picture, or raises ImageError.
Read = Callable[[Path], Picture]

# Returns height and width without decoding; None if they cannot be read.
ReadSize = Callable[[Path], tuple[int, int] | None]

# CC0 and public-domain photographs that come with scikit-image.
_SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


# So many of the files that were passed over are named on the terminal.
_NAMED_FILES = 3


class Photographs(NamedTuple):
  """Images by path, or by what stands for one in a dataset, and how they are read.

  Attributes:
    paths: The images.
    read: Reads one of them.
    read_size: Reads the size of one.
    skipped: Files beside them that have no image's extension.
  """

  paths: list[Path]
  read: Read = read_picture
  read_size: ReadSize = read_size
  skipped: Sequence[Path] = ()


def find_photographs(paths: list[Path] | None, *, leave_out: Path | None = None) -> Photographs:
  """Finds the images under `--path`, by default those of scikit-image.

  Prints how many files were passed over, and the first ones.

  Args:
    paths: Images, videos and folders; patterns of these, as a shell would expand them; and "-",
      which stands for a list of them on stdin.
    leave_out: A folder that is not searched.

  Raises:
    UsageError: If a path does not exist or is the folder left out, or if there is no image.
  """
  named = list(_expand(paths)) if paths else _locate_samples()
  videos = {path: None for path in named if _is_video(path)}
  files, skipped = find_files([path for path in named if path not in videos], leave_out=leave_out)
  if not files and not videos:
    raise describe_no_image(named)
  opened = {path: _open_video(path) for path in videos}
  return _add_frames(Photographs(files, skipped=skipped), opened)


def find_files(
  paths: list[Path], *, leave_out: Path | None = None
) -> tuple[list[Path], list[Path]]:
  """Finds the image files among paths and under folders, and those that are passed over.

  Prints how many these are, and the first ones.

  Raises:
    UsageError: If a path does not exist, or is the folder that is to be left out.
  """
  if leave_out is not None and place(leave_out) in map(place, paths):
    raise UsageError(f"{leave_out}: holds the images; choose another folder for what is written")
  try:
    files, skipped = find_images(paths, leave_out=leave_out)
  except FileNotFoundError as error:
    raise UsageError(str(error)) from None
  tell_skipped(skipped)
  return files, skipped


def tell_skipped(files: Sequence[Path]) -> None:
  """Prints how many files were passed over, and names the first ones."""
  if not files:
    return
  named = ", ".join(map(str, files[:_NAMED_FILES]))
  more = f", and {len(files) - _NAMED_FILES} more" if len(files) > _NAMED_FILES else ""
  print(f"Files skipped, having no image's extension: {len(files)} ({named}{more})")


def describe_no_image(paths: list[Path]) -> UsageError:
  """Makes the error of a search that found nothing."""
  where = ", ".join(map(str, paths))
  return UsageError(f"no image under {where}: looked for {' '.join(sorted(EXTENSIONS))}")


def _expand(paths: list[Path]) -> Iterator[Path]:
  """Replaces "-" by the paths on stdin, and patterns by what they match, unless that is a name."""
  for path in paths:
    if path == Path("-"):
      yield from _read_list()
    elif glob.has_magic(str(path)) and not is_remote(path) and not os.path.lexists(path):
      matches = sorted(glob.glob(str(path), recursive=True))
      if not matches:
        raise UsageError(f"--path {path}: nothing matches")
      yield from map(Path, matches)
    else:
      yield path


def _read_list() -> list[Path]:
  """Reads the paths on stdin: one a line, or ending in NUL as `find -print0` writes them."""
  data = b"" if sys.stdin is None else sys.stdin.buffer.read()
  lines = data.split(b"\0") if b"\0" in data else data.splitlines()
  paths = [parse_path(os.fsdecode(line)) for line in lines if line]
  if not paths:
    raise UsageError("--path -: expected paths on standard input, one a line, got none")
  return paths


def _is_video(path: Path) -> bool:
  return path.suffix.lower() in VIDEO_EXTENSIONS and os.path.isfile(path)


def _open_video(path: Path) -> Video | ImageError:
  try:
    return Video(path)
  except ImageError as error:
    return error


def _add_frames(photographs: Photographs, opened: Mapping[Path, Video | ImageError]) -> Photographs:
  """Adds the videos' frames, called VIDEO/000000 and so on, and the videos that have none."""
  if not opened:
    return photographs
  videos = {path: video for path, video in opened.items() if isinstance(video, Video)}
  errors = {path: error for path, error in opened.items() if isinstance(error, ImageError)}
  frames = [path / f"{i:06d}" for path, video in videos.items() for i in range(len(video))]

  def read(path: Path) -> Picture:
    if path in errors:
      raise errors[path]
    video = videos.get(path.parent)
    return photographs.read(path) if video is None else video.read(int(path.name))

  def read_size(path: Path) -> tuple[int, int] | None:
    if path in errors:
      return None
    video = videos.get(path.parent)
    return photographs.read_size(path) if video is None else video.size

  paths = [*photographs.paths, *frames, *errors]
  return Photographs(paths, read, read_size, photographs.skipped)


def _locate_samples() -> list[Path]:
  folder = Path(str(resources.files("skimage") / "data"))
  return [folder / name for name in _SAMPLES]


def open_dataset(name: str, split: str) -> Photographs:
  """Opens a TensorFlow dataset, whose images are called NAME/SPLIT/000000 and so on.

  Raises:
    DataError: If there is no such dataset or split, or it holds no RGB images.
  """
  from hvsjnd_jax.data.sources import PhotoDataset  # TFDS and Grain take seconds

  logging.getLogger("absl").setLevel(logging.ERROR)  # it would recommend OpenCV
  photos = PhotoDataset(name, split)
  return Photographs(
    [parse_path(name) / split / f"{i:06d}" for i in range(len(photos))],
    lambda path: photos.read(int(path.name)),
    lambda path: photos.read_size(int(path.name)),
  )


def plan_window(photographs: Photographs) -> windows.Window:
  """Plans one window for all these images, by the sizes that their headers give."""
  return windows.plan_window(read_sizes(photographs))


def read_sizes(photographs: Photographs) -> list[tuple[int, int]]:
  """Reads the sizes that the images' headers give; if none can be read, that of a smallest one."""
  sizes = [size for path in photographs.paths if (size := photographs.read_size(path)) is not None]
  return sizes or [(MIN_SIDE_PX, MIN_SIDE_PX)]

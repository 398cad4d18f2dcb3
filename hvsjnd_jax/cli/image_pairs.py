"""Finds pairs of images, distorted and reference: two files, or two folders matched by name."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hvsjnd_jax.cli.command import UsageError
from hvsjnd_jax.cli.photographs import describe_no_image, find_files
from hvsjnd_jax.data.images import ImageError, Picture, read_picture
from hvsjnd_jax.ops.types import DeepPixels


class Pairs(NamedTuple):
  """Pairs of images, by their distorted files.

  Attributes:
    references: The reference of each.
    names: What each pair is called: the file's path within its folder, without its extension.
    unmatched: Files that are in no pair, and why.
    skipped: Files beside them that have no image's extension.
  """

  references: dict[Path, Path]
  names: dict[Path, Path]
  unmatched: dict[Path, str]
  skipped: Sequence[Path] = ()

  def read(self, distorted: Path) -> Picture:
    """Reads a distorted image and its reference, whose pixels are stacked, [2, H, W, 3].

    If one of them has 16 bits, the other is given as many.

    Raises:
      ImageError: If either cannot be read, or they differ in size.
    """
    ours = read_picture(distorted)
    reference = self.references[distorted]
    try:
      theirs = read_picture(reference)
    except ImageError as error:
      reason = f"its reference {reference}: {error}"
      raise ImageError(reason, package=error.package) from None
    if ours.pixels.shape != theirs.pixels.shape:
      sizes = ["{1}x{0}".format(*picture.pixels.shape) for picture in (ours, theirs)]
      raise ImageError(f"{sizes[0]} pixels, but its reference {reference} has {sizes[1]}")
    named = (f"its reference {reference}: {remark}" for remark in theirs.remarks)
    pixels, deep = np.stack([ours.pixels, theirs.pixels]), None
    if ours.deep is not None or theirs.deep is not None:
      deep = np.stack([_deepen(ours), _deepen(theirs)])
    return Picture(pixels, remarks=(*ours.remarks, *named), deep=deep)


def _deepen(picture: Picture) -> DeepPixels:
  return picture.pixels * np.uint16(257) if picture.deep is None else picture.deep


def find_pairs(distorted: Path, reference: Path, *, leave_out: Path | None = None) -> Pairs:
  """Pairs two files, or the images of two folders whose names agree but for their extensions.

  Args:
    distorted: A file or a folder.
    reference: The same.
    leave_out: A folder that is not searched.

  Raises:
    UsageError: If either does not exist or holds no image, if one is a file and the other a
      folder, or if no names agree.
  """
  found = [_find_side(path, leave_out) for path in (distorted, reference)]
  sides, skipped = [files for files, _ in found], [file for _, files in found for file in files]
  if distorted.is_dir() != reference.is_dir():
    raise UsageError(f"{distorted} and {reference}: expected two files or two folders")
  if not distorted.is_dir():
    return Pairs({distorted: reference}, {distorted: Path(distorted.stem)}, {}, skipped)
  ours, theirs = (
    _group_by_name(folder, files)
    for folder, files in zip((distorted, reference), sides, strict=True)
  )
  unmatched = dict(_list_unmatched(ours, reference, theirs))
  unmatched |= dict(_list_unmatched(theirs, distorted, ours))
  names = {
    files[0]: name for name, files in ours.items() if len(files) == 1 == len(theirs.get(name, ()))
  }
  if not names:
    raise UsageError(f"{distorted} and {reference}: no image has the same name in both folders")
  references = {file: theirs[name][0] for file, name in names.items()}
  return Pairs(references, names, unmatched, skipped)


def _find_side(path: Path, leave_out: Path | None) -> tuple[list[Path], list[Path]]:
  files, skipped = find_files([path], leave_out=leave_out)
  if not files:
    raise describe_no_image([path])
  return files, skipped


def _group_by_name(folder: Path, files: list[Path]) -> dict[Path, list[Path]]:
  grouped = defaultdict(list)
  for file in files:
    grouped[file.relative_to(folder).with_suffix("")].append(file)
  return grouped


def _list_unmatched(
  grouped: Mapping[Path, list[Path]], other: Path, others: Mapping[Path, list[Path]]
) -> Iterator[tuple[Path, str]]:
  """Lists the files of one folder that cannot be paired with one of the other."""
  for name, files in grouped.items():
    for file in files:
      if len(files) > 1:
        yield file, f"one of {len(files)} images called {name} in its folder; keep one"
      elif name not in others:
        yield file, f"no image called {name} in {other}"
      elif len(others[name]) > 1:
        yield file, f"{len(others[name])} images called {name} in {other}; keep one"

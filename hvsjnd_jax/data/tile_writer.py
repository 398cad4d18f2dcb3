"""Writes photographs as a folder of tiles, for training that would else wait for them."""

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import (  # pyright: ignore[reportMissingImports]
  ArrayRecordWriter,
)
from PIL import Image
from tqdm import tqdm

from hvsjnd_jax.data.atomic import move_folder, scratch_folder
from hvsjnd_jax.data.images import ImageError, Picture, read_picture
from hvsjnd_jax.data.tfds_writer import Built
from hvsjnd_jax.data.tiles import TileFile, TileManifest, pack_tile, write_manifest
from hvsjnd_jax.ops.types import Pixels

# Of a tile's side to that of the largest crop: the more, the freer is the crop's place, and the
# more has to be read.
_ROOM = 1.25

_FILE_BYTES = 2**30

# Each record on its own, as random access needs, and as it is, because photographs hardly shrink.
_WRITER_OPTIONS = "group_size:1,uncompressed"


class TileShape(NamedTuple):
  """How photographs are cut into tiles.

  Attributes:
    tiles_of_each: The number of tiles of each photograph.
    crop_px: Side of the largest crop that a tile must have room for.
    min_scale: The smallest scale.
    max_scale: The largest one.
  """

  tiles_of_each: int
  crop_px: int
  min_scale: float
  max_scale: float


def build_tiles(paths: Sequence[Path], shape: TileShape, *, root: Path, out: Path) -> Built:
  """Writes photographs as a folder of tiles, whole or not at all.

  Args:
    paths: The photographs.
    shape: How they are cut.
    root: A folder above all of them.
    out: The folder to write, which must not exist.

  Returns:
    What is to be said of the photographs. If none could be read, no folder is written.
  """
  built = Built([], [])
  with scratch_folder(out) as scratch:
    folder = scratch / "tiles"
    folder.mkdir()
    writer = _Writer(folder)
    written = 0
    for path, tiles in zip(paths, _cut_ahead(paths, shape), strict=True):
      if isinstance(tiles, ImageError):
        built.errors.append((path, tiles))
        continue
      built.remarks.extend((path, remark) for remark in tiles.remarks)
      writer.write([pack_tile(tile, str(path.relative_to(root))) for tile in tiles.tiles])
      written += 1
    files, sha256 = writer.close()
    write_manifest(folder, TileManifest(written, *shape, sha256, files))
    if written:
      move_folder(folder, out)
  return built


class _Tiles(NamedTuple):
  tiles: list[Pixels]
  remarks: tuple[str, ...]


def _cut_ahead(paths: Sequence[Path], shape: TileShape) -> Iterator[_Tiles | ImageError]:
  """Yields the tiles of each photograph, while other threads cut those that follow."""
  threads = os.cpu_count() or 1
  upcoming: deque[Future[_Tiles | ImageError]] = deque()
  with ThreadPoolExecutor(threads) as pool:
    # None shows no bar in a pipe.
    for index, path in enumerate(tqdm(paths, unit="image", disable=None)):
      upcoming.append(pool.submit(_read_tiles, path, index, shape))
      if len(upcoming) > threads:
        yield upcoming.popleft().result()
    while upcoming:
      yield upcoming.popleft().result()


def _read_tiles(path: Path, index: int, shape: TileShape) -> _Tiles | ImageError:
  try:
    picture = read_picture(path)
  except ImageError as error:
    return error.detach()
  return _cut_tiles(picture, shape, np.random.default_rng(index))


def _cut_tiles(picture: Picture, shape: TileShape, rng: np.random.Generator) -> _Tiles:
  """Cuts tiles at random places and scales, one from each of as many parts of their range."""
  image = Image.fromarray(picture.pixels)
  parts = (np.arange(shape.tiles_of_each) + rng.random(shape.tiles_of_each)) / shape.tiles_of_each
  scales = shape.min_scale + (shape.max_scale - shape.min_scale) * parts
  return _Tiles([_cut_tile(image, scale, shape.crop_px, rng) for scale in scales], picture.remarks)


def _cut_tile(image: Image.Image, scale: float, crop_px: int, rng: np.random.Generator) -> Pixels:
  """Cuts a tile as `crops.RandomCrop` cuts a crop, but larger where the photograph has room."""
  scale = max(scale, crop_px / min(image.size))  # a photograph too small is enlarged just enough
  sides = [min(round(crop_px * _ROOM), max(crop_px, int(side * scale))) for side in image.size]
  windows = [min(px / scale, side) for px, side in zip(sides, image.size, strict=True)]
  left, top = (
    rng.uniform(0, side - window) for side, window in zip(image.size, windows, strict=True)
  )
  if scale == 1:  # whole pixels need no resampling
    left, top = round(left), round(top)
  box = (left, top, left + windows[0], top + windows[1])
  return np.asarray(image.resize((sides[0], sides[1]), Image.Resampling.BICUBIC, box))


class _Writer:
  """Writes records into files of about a gigabyte."""

  def __init__(self, folder: Path):
    self._folder = folder
    self._files: list[TileFile] = []
    self._hash = hashlib.sha256()
    self._open: Any = None
    self._count, self._bytes = 0, 0

  def write(self, records: Sequence[bytes]) -> None:
    """Writes the records of one photograph, all into the same file."""
    if self._open is None:
      self._open = ArrayRecordWriter(str(self._path()), _WRITER_OPTIONS)
      self._count, self._bytes = 0, 0
    for record in records:
      self._open.write(record)
      self._hash.update(record)
    self._count += len(records)
    self._bytes += sum(map(len, records))
    if self._bytes >= _FILE_BYTES:
      self._finish_file()

  def close(self) -> tuple[tuple[TileFile, ...], str]:
    """Ends the last file; returns all of them, and the SHA-256 of their records."""
    if self._open is not None:
      self._finish_file()
    return tuple(self._files), self._hash.hexdigest()

  def _path(self) -> Path:
    return self._folder / f"tiles-{len(self._files):05d}.array_record"

  def _finish_file(self) -> None:
    path = self._path()
    self._open.close()
    self._open = None
    self._files.append(TileFile(path.name, self._count, path.stat().st_size))

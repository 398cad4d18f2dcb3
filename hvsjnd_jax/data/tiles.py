"""A folder of tiles: pieces of photographs that are stored decoded and scaled.

To read a crop from one is to copy its bytes. A folder holds array_record files, and tiles.json,
which says what they hold. `tile_writer` writes it.
"""

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import grain
import numpy as np

from hvsjnd_jax.data.config import DataConfig
from hvsjnd_jax.data.photo_source import DataError
from hvsjnd_jax.ops.types import Pixels

_MANIFEST = "tiles.json"

_FORMAT = 1

# A record holds height and width, the pixels, and the photograph's name.
_SIZE = struct.Struct("<II")


@dataclasses.dataclass(frozen=True, slots=True)
class TileFile:
  """One array_record file of a folder.

  Attributes:
    name: Its name.
    tiles: How many tiles it holds.
    bytes: Its size.
  """

  name: str
  tiles: int
  bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class TileManifest:
  """What a folder of tiles holds.

  Attributes:
    photographs: The number of photographs.
    tiles_of_each: The number of tiles that each of them is written as.
    crop_px: Side of the largest crop that every tile has room for.
    min_scale: The smallest scale of tiles.
    max_scale: The largest one.
    sha256: That of all records, one after the other.
    files: The files, in order.
  """

  photographs: int
  tiles_of_each: int
  crop_px: int
  min_scale: float
  max_scale: float
  sha256: str
  files: tuple[TileFile, ...]

  def check(self, config: DataConfig, *, crop_px: int) -> None:
    """Refuses crops that the tiles were not written for.

    Raises:
      DataError: If the tiles are too small, or have other scales.
    """
    if crop_px > self.crop_px:
      raise DataError(
        f"{config.images} holds tiles for crops of up to {self.crop_px} pixels, and crop_px is "
        f"{crop_px}: build it with --crop-px {crop_px}"
      )
    if (config.min_scale, config.max_scale) != (self.min_scale, self.max_scale):
      raise DataError(
        f"{config.images} holds tiles of scales from {self.min_scale:g} to {self.max_scale:g}: "
        f"give --config.data.min_scale={self.min_scale:g} and "
        f"--config.data.max_scale={self.max_scale:g}, or build it for others"
      )


def pack_tile(pixels: Pixels, name: str) -> bytes:
  """Packs a tile and its photograph's name as a record."""
  height, width, _ = pixels.shape
  return _SIZE.pack(height, width) + pixels.tobytes() + name.encode(errors="surrogateescape")


def _unpack_tile(record: bytes) -> tuple[Pixels, str]:
  height, width = _SIZE.unpack_from(record)
  end = _SIZE.size + height * width * 3
  pixels = np.frombuffer(record, np.uint8, height * width * 3, _SIZE.size)
  return pixels.reshape(height, width, 3), record[end:].decode(errors="surrogateescape")


def write_manifest(folder: Path, manifest: TileManifest) -> None:
  """Writes what a folder of tiles holds."""
  content = {"format": _FORMAT, **dataclasses.asdict(manifest)}
  (folder / _MANIFEST).write_text(json.dumps(content, indent=2) + "\n")


def holds_tiles(folder: Path) -> bool:
  """Tells a folder of tiles from one of photographs."""
  return (folder / _MANIFEST).is_file()


def read_manifest(folder: Path) -> TileManifest:
  """Reads what a folder of tiles holds.

  Raises:
    DataError: If that cannot be read, or is of another version.
  """
  file = folder / _MANIFEST
  try:
    content: dict[str, Any] = json.loads(file.read_text())
    if content.pop("format") != _FORMAT:
      raise DataError(f"{folder}: tiles of another version of hvsjnd_jax; build them again")
    files = tuple(TileFile(**entry) for entry in content.pop("files"))
    return TileManifest(**content, files=files)
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise DataError(f"{file} cannot be read: {error}; copy it again, or build it again") from None


class TileFolder:
  """The tiles in a folder, by index: those of the first photograph, then those of the second.

  Args:
    folder: The folder that `python -m hvsjnd_jax.data build --tiles` wrote.

  Raises:
    DataError: If a file is missing or cut short; on indexing, if a tile cannot be read.
  """

  def __init__(self, folder: Path):
    self._folder, self._manifest = folder, read_manifest(folder)
    for file in self._manifest.files:
      _check_size(folder / file.name, file.bytes)
    # With the numbers of their records, no file is opened before it is read from.
    self._records: Any = grain.sources.ArrayRecordDataSource(
      [f"{folder / file.name}[0:{file.tiles}]" for file in self._manifest.files]
    )

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Pixels:
    return self._read(index)[0]

  def name(self, index: int) -> str:
    return f"{self._read(index)[1]}, tile {index % self._manifest.tiles_of_each}"

  def fingerprint(self) -> str:
    manifest = self._manifest
    return (
      f"{manifest.photographs} photographs in {len(self)} tiles, SHA-256 {manifest.sha256[:16]}"
    )

  def _read(self, index: int) -> tuple[Pixels, str]:
    try:
      return _unpack_tile(self._records[index])
    except Exception as error:  # a damaged file raises many kinds of errors
      reason = str(error).strip().partition("\n")[0]
      raise DataError(
        f"{self._folder}: tile {index} cannot be read: {reason}; copy the folder again, or build "
        "it again"
      ) from None


def _check_size(file: Path, wanted: int) -> None:
  try:
    found = file.stat().st_size
  except OSError as error:
    raise DataError(f"{file}: {error.strerror}; copy it again, or build it again") from None
  if found != wanted:
    raise DataError(f"{file}: {found} of {wanted} bytes; copy it again, or build it again")

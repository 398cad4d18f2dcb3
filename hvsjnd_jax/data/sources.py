"""Sources of training photographs: folders, TensorFlow datasets, and pictures drawn at random.

A TensorFlow dataset is read through array_record, without TensorFlow itself. In an object store,
photographs are read from there, and datasets and tiles are copied to this machine first.
"""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageDraw

from hvsjnd_jax.data.config import DataConfig
from hvsjnd_jax.data.formats import open_image
from hvsjnd_jax.data.images import ImageError, Picture, decode_picture, find_images, read_image
from hvsjnd_jax.data.local_copies import copy_here
from hvsjnd_jax.data.paths import PathError, parse_path
from hvsjnd_jax.data.photo_source import DataError, PhotoSource
from hvsjnd_jax.data.tiles import TileFolder, holds_tiles, read_manifest
from hvsjnd_jax.ops.types import Pixels


class PhotoFolder:
  """The photographs under a folder, by index.

  Args:
    folder: The folder, which is walked recursively.

  Raises:
    DataError: If there are no photographs; on indexing, if one cannot be read.
  """

  def __init__(self, folder: Path):
    try:
      self.paths, self.skipped = find_images([folder])
    except FileNotFoundError as error:
      raise DataError(str(error)) from None
    if not self.paths:
      raise DataError(f"no image under {folder}")
    self._folder = folder

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> Pixels:
    path = self.paths[index]
    try:
      return read_image(path)
    except ImageError as error:
      remedy = "mend it" if error.package is None else f"pip install {error.package}"
      raise DataError(f"{path}: {error}; remove it, or {remedy}") from None

  def name(self, index: int) -> str:
    return str(self.paths[index])

  def fingerprint(self) -> str:
    names = "\n".join(str(path.relative_to(self._folder)) for path in self.paths)
    return f"{len(self)} files, names {hashlib.sha256(os.fsencode(names)).hexdigest()[:16]}"


class PhotoDataset:
  """The feature "image" of a TensorFlow dataset, by index.

  Args:
    name: The dataset's name, or the folder that it was prepared in.
    split: The split, such as "train" or "train[:90%]".

  Raises:
    DataError: If there is no such dataset or split, or if it has no RGB images; on indexing, if
      one cannot be read.
  """

  def __init__(self, name: str, split: str):
    try:
      folder = copy_here(parse_path(name))
      open_builder = tfds.builder_from_directory if folder.is_dir() else tfds.builder
      builder: Any = open_builder(str(folder))
      encoded = {"image": tfds.decode.SkipDecoding()}
      self._source = builder.as_data_source(split, decoders=encoded)
      self._name = f"{name}, {split}"
      self._version = f"{builder.info.full_name}, {split}"
    except (DataError, PathError):
      raise
    except Exception as error:  # TFDS raises many kinds of errors, with pages of explanation
      reason = str(error).strip().partition("\n")[0]
      raise DataError(f"dataset {name!r}, split {split!r}: {reason}") from None
    features: Any = builder.info.features
    if "image" not in features or features["image"].shape[-1:] != (3,):
      raise DataError(f"dataset {name!r}: expected RGB images under 'image', got {features}")

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Pixels:
    try:
      return self.read(index).pixels
    except ImageError as error:
      raise DataError(f"{self.name(index)}: {error}") from None

  def read(self, index: int) -> Picture:
    """Reads an image; raises ImageError if that fails."""
    try:
      encoded = self._read_encoded(index)
    except Exception as error:  # a damaged record raises many kinds of errors
      reason = str(error).strip().partition("\n")[0]
      raise ImageError(f"cannot be read: {reason}") from None
    return decode_picture(encoded)

  def _read_encoded(self, index: int) -> bytes:
    example: Any = self._source[index]
    return example["image"]

  def read_size(self, index: int) -> tuple[int, int] | None:
    """Reads height and width from the encoded image's header; None if it cannot be read."""
    try:
      with open_image(io.BytesIO(self._read_encoded(index))) as opened:
        return opened.height, opened.width
    except Exception:  # `read` will give the reason
      return None

  def name(self, index: int) -> str:
    return f"{self._name}, image {index}"

  def fingerprint(self) -> str:
    return f"{len(self)} images of {self._version}"


class SyntheticPhotos:
  """Pictures of random discs and grain, by index.

  They have edges, flat areas and texture, which is enough to try the trainer without
  photographs.

  Args:
    count: The number of pictures.
  """

  _SIDE_PX = 256

  def __init__(self, count: int):
    self._count = count

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, index: int) -> Pixels:
    rng = np.random.default_rng(index)
    picture = Image.new("RGB", (self._SIDE_PX, self._SIDE_PX), tuple(rng.integers(0, 256, 3)))
    draw = ImageDraw.Draw(picture)
    for radius in np.geomspace(100, 3, 60):
      centre = rng.uniform(0, self._SIDE_PX, 2)
      box = (*(centre - radius), *(centre + radius))
      draw.ellipse(box, fill=tuple(rng.integers(0, 256, 3)))
    deviation = rng.uniform(0, 20)
    grainy = np.asarray(picture) + rng.normal(0, deviation, (self._SIDE_PX, self._SIDE_PX, 3))
    return np.clip(grainy, 0, 255).astype(np.uint8)

  def name(self, index: int) -> str:
    return f"synthetic image {index}"

  def fingerprint(self) -> str:
    return f"{len(self)} synthetic images"


def open_photos(config: DataConfig) -> PhotoSource:
  """Opens the source that the config names.

  Raises:
    DataError: If it has no photographs.
  """
  if config.tfds:
    return PhotoDataset(config.tfds, config.tfds_split)
  if config.synthetic:
    return SyntheticPhotos(config.synthetic)
  folder = parse_path(config.images)
  if holds_tiles(folder):
    return TileFolder(copy_here(folder))
  return PhotoFolder(folder)


def check_crops(config: DataConfig, *, crop_px: int) -> None:
  """Checks that the source can give crops of a side; for tiles alone that is in question.

  Raises:
    DataError: If it cannot.
  """
  if config.images and holds_tiles(folder := parse_path(config.images)):
    read_manifest(folder).check(config, crop_px=crop_px)

"""Training data: photographs, cut into an endless stream of random crops.

Photographs come from a folder of images, or from a dataset of TensorFlow Datasets, read
through array_record: TensorFlow itself is not needed. Batches are uint8 [B, crop, crop, 3],
RGB: a quarter of the bytes of float32.

  python -m hvsjnd_jax.data build --images PHOTOS --out DIR

turns a folder into such a dataset, which trains as --config.data.tfds=DIR.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from hvsjnd_jax.config import DataConfig
from hvsjnd_jax.dataset import build_dataset
from hvsjnd_jax.images import ImageError, Pixels, find_images, read_image


class DataError(Exception):
  """Photographs that cannot be found or read; the message says which and why."""


class PhotoFolder:
  """The photographs under a folder, by index, as a random-access source for Grain.

  Args:
    folder: Walked recursively.

  Raises:
    DataError: If there is none; when one is asked for, if it cannot be read.
  """

  def __init__(self, folder: Path):
    try:
      self.paths, _ = find_images([folder])
    except FileNotFoundError as error:
      raise DataError(str(error)) from None
    if not self.paths:
      raise DataError(f"no image under {folder}")

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> Pixels:
    path = self.paths[index]
    try:
      return read_image(path)
    except ImageError as error:
      raise DataError(f"{path}: {error}; remove it, or mend it") from None


class PhotoDataset:
  """The feature "image" of a TensorFlow dataset, as a random-access source for Grain.

  Args:
    name: The dataset's name, or the folder that it was prepared in.
    split: Such as "train" or "train[:90%]".

  Raises:
    DataError: If there is no such dataset or split, or it holds no RGB images.
  """

  def __init__(self, name: str, split: str):
    try:
      folder = Path(name)
      open_builder = tfds.builder_from_directory if folder.is_dir() else tfds.builder
      builder: Any = open_builder(name)
      self._source = builder.as_data_source(split)
    except Exception as error:  # TFDS raises many kinds, and explains at length
      reason = str(error).strip().partition("\n")[0]
      raise DataError(f"dataset {name!r}, split {split!r}: {reason}") from None
    features: Any = builder.info.features
    if "image" not in features or features["image"].shape[-1:] != (3,):
      raise DataError(f"dataset {name!r}: expected RGB images under 'image', got {features}")

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Pixels:
    example: Any = self._source[index]
    return example["image"]


class RandomCrop(grain.transforms.RandomMap):
  """A crop at a random scale and place, flipped at random both ways.

  Args:
    config: Crop size and range of scales. A photograph too small for a scale is
      enlarged just enough.
  """

  def __init__(self, config: DataConfig):
    self._config = config

  # Grain's base method is annotated as returning None.
  def random_map(  # pyright: ignore[reportIncompatibleMethodOverride]
    self, element: Pixels, rng: np.random.Generator
  ) -> Pixels:
    size = self._config.crop_px
    height, width = element.shape[:2]
    scale = rng.uniform(self._config.min_scale, self._config.max_scale)
    window = min(size / scale, height, width)
    left, top = rng.uniform(0, width - window), rng.uniform(0, height - window)
    if window == size:  # whole pixels need no resampling
      left, top = round(left), round(top)
    box = (left, top, left + window, top + window)
    crop = Image.fromarray(element).resize((size, size), Image.Resampling.BICUBIC, box)
    flips = tuple(slice(None, None, step) for step in rng.choice([1, -1], 2))
    return np.ascontiguousarray(np.asarray(crop)[flips])


def crop_stream(
  config: DataConfig, *, batch_size: int, seed: int, first_step: int
) -> Iterator[np.ndarray]:
  """The endless stream of batches, from `first_step` on.

  Which crop stands where follows from the seed and the step alone, so a resumed run
  sees what the uninterrupted one would have seen.

  Raises:
    DataError: If there are no photographs; from the stream, if one cannot be read.
  """
  source = (
    PhotoDataset(config.tfds, config.tfds_split)
    if config.tfds
    else PhotoFolder(Path(config.images))
  )
  dataset = (
    grain.MapDataset.source(source)
    .seed(seed)
    .shuffle()
    .repeat(None, reseed_each_epoch=True)
    .random_map(RandomCrop(config))
    .batch(batch_size, drop_remainder=True)
  )
  options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=4 * batch_size)
  stream = iter(dataset.to_iter_dataset(options))
  # Grain's own form of the state; counts batches.
  stream.set_state({"next_index": first_step})
  return stream


def main(argv: Sequence[str] | None = None) -> int:
  """The command: 0 when every file was taken, 1 when some were not, 2 when none was."""
  parser = argparse.ArgumentParser(
    prog="python -m hvsjnd_jax.data",
    description="Turn a folder of photographs into a TensorFlow dataset (array_record).",
  )
  parser.add_argument("action", choices=("build",))
  parser.add_argument(
    "--images", type=Path, required=True, metavar="DIR", help="the photographs; walked"
  )
  parser.add_argument(
    "--out", type=Path, required=True, metavar="DIR", help="what --config.data.tfds takes"
  )
  args = parser.parse_args(argv)
  try:
    if args.out.exists():
      raise DataError(f"{args.out}: exists already; choose another")
    paths = PhotoFolder(args.images).paths
    errors = build_dataset(paths, root=args.images, out=args.out)
    for path, reason in errors:
      print(f"data: {path}: {reason}", file=sys.stderr)
    if len(errors) == len(paths):
      raise DataError(f"no image under {args.images} can be read")
  except (DataError, OSError) as error:
    print(f"data: {error}", file=sys.stderr)
    return 2
  print(f"{args.out}: {len(paths) - len(errors)} photographs written")
  return 1 if errors else 0


if __name__ == "__main__":
  sys.exit(main())

"""Training data: photographs, cut into an endless stream of random crops.

Photographs come from a folder of images, or from a dataset of TensorFlow Datasets, read
through array_record: TensorFlow itself is not needed. Crops are uint8 [crop, crop, 3], RGB:
a quarter of the bytes of float32.

  python -m hvsjnd_jax.data build --images PHOTOS --out DIR

turns a folder into such a dataset, which trains as --config.data.tfds=DIR.
"""

import argparse
import hashlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import grain
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt8, UInt32
from PIL import Image, ImageDraw

from hvsjnd_jax.config import DataConfig
from hvsjnd_jax.dataset import build_dataset
from hvsjnd_jax.images import ImageError, Pixels, find_images, read_image


class DataError(Exception):
  """Photographs that cannot be found or read; the message says which and why."""


class Crops(NamedTuple):
  """A batch of crops, and where each comes from; one crop without the axis b."""

  pixels: UInt8[np.ndarray, "b crop crop 3"]
  noise_seeds: UInt32[np.ndarray, " b"]  # of the noise that the training step draws
  photos: Int[np.ndarray, " b"]  # index in the source


class PhotoSource(Protocol):
  """Photographs by index, for Grain to draw from."""

  def __len__(self) -> int: ...
  def __getitem__(self, index: int) -> Pixels: ...
  def name(self, index: int) -> str:
    """What a reader would look for to find the photograph."""
    ...

  def fingerprint(self) -> str:
    """Equal for the same photographs in the same order, wherever they lie."""
    ...


class PhotoFolder:
  """The photographs under a folder, by index.

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
    self._folder = folder

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> Pixels:
    path = self.paths[index]
    try:
      return read_image(path)
    except ImageError as error:
      raise DataError(f"{path}: {error}; remove it, or mend it") from None

  def name(self, index: int) -> str:
    return str(self.paths[index])

  def fingerprint(self) -> str:
    names = "\n".join(str(path.relative_to(self._folder)) for path in self.paths)
    return f"{len(self)} files, names {hashlib.sha256(names.encode()).hexdigest()[:16]}"


class PhotoDataset:
  """The feature "image" of a TensorFlow dataset, by index.

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
      encoded = {"image": tfds.decode.SkipDecoding()}
      self._encoded = builder.as_data_source(split, decoders=encoded)
      self._name = f"{name}, {split}"
      self._version = f"{builder.info.full_name}, {split}"
    except Exception as error:  # TFDS raises many kinds, and explains at length
      reason = str(error).strip().partition("\n")[0]
      raise DataError(f"dataset {name!r}, split {split!r}: {reason}") from None
    features: Any = builder.info.features
    if "image" not in features or features["image"].shape[-1:] != (3,):
      raise DataError(f"dataset {name!r}: expected RGB images under 'image', got {features}")

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Pixels:
    try:
      return self.read(index)
    except ImageError as error:
      raise DataError(f"{self.name(index)}: {error}") from None

  def read(self, index: int) -> Pixels:
    """An image; raises ImageError where it cannot be read."""
    try:
      example: Any = self._source[index]
    except Exception as error:  # a damaged record raises many kinds
      reason = str(error).strip().partition("\n")[0]
      raise ImageError(f"cannot be read: {reason}") from None
    return example["image"]

  def read_size(self, index: int) -> tuple[int, int] | None:
    """Height and width, by the head of the encoded image; None if it cannot be read."""
    try:
      example: Any = self._encoded[index]
      with Image.open(io.BytesIO(example["image"])) as opened:
        return opened.height, opened.width
    except Exception:  # reading the image will say which
      return None

  def name(self, index: int) -> str:
    return f"{self._name}, image {index}"

  def fingerprint(self) -> str:
    return f"{len(self)} images of {self._version}"


class SyntheticPhotos:
  """Pictures drawn at random, by index: discs of all sizes, and grain.

  They look like nothing, but have edges, flat parts and texture: enough to try the
  trainer out where there are no photographs.

  Args:
    count: How many.
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
  """The source that the config names.

  Raises:
    DataError: If it holds no photographs.
  """
  if config.tfds:
    return PhotoDataset(config.tfds, config.tfds_split)
  if config.synthetic:
    return SyntheticPhotos(config.synthetic)
  return PhotoFolder(Path(config.images))


class RandomCrop(grain.transforms.RandomMap):
  """A crop at a random scale and place, flipped at random both ways.

  Everything is drawn from the record's own generator, the seed of the crop's noise too:
  so it does not matter which process reads the record, or where in a batch it stands.

  Args:
    config: Range of scales. A photograph too small for a scale is enlarged just enough.
    crop_px: Side of the crop.
  """

  def __init__(self, config: DataConfig, *, crop_px: int):
    self._config = config
    self._crop_px = crop_px

  # Grain's base method is annotated as returning None.
  def random_map(  # pyright: ignore[reportIncompatibleMethodOverride]
    self, element: tuple[int, Pixels], rng: np.random.Generator
  ) -> Crops:
    photo, pixels = element
    size = self._crop_px
    height, width = pixels.shape[:2]
    scale = rng.uniform(self._config.min_scale, self._config.max_scale)
    window = min(size / scale, height, width)
    left, top = rng.uniform(0, width - window), rng.uniform(0, height - window)
    if window == size:  # whole pixels need no resampling
      left, top = round(left), round(top)
    box = (left, top, left + window, top + window)
    crop = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC, box)
    flips = tuple(slice(None, None, step) for step in rng.choice([1, -1], 2))
    return Crops(
      np.ascontiguousarray(np.asarray(crop)[flips]),
      rng.integers(2**32, size=(), dtype=np.uint32),
      np.asarray(photo, np.int32),
    )


def crop_stream(
  photos: PhotoSource,
  config: DataConfig,
  *,
  crop_px: int,
  batch_size: int,
  seed: int,
  first_step: int = 0,
  process: int = 0,
  processes: int = 1,
) -> Iterator[Crops]:
  """The endless stream of batches, from `first_step` on.

  Which crops make up a step's batch follows from the seed and the step alone, so a resumed
  run sees what the uninterrupted one would have seen, and so do other numbers of processes.

  Args:
    photos: What `open_photos` gave.
    config: How crops are cut.
    crop_px: Side of the crops.
    batch_size: Crops of a batch over all processes, which `processes` must divide.
    seed: Of everything random.
    first_step: Steps to leave out.
    process: Which of the processes this is.
    processes: Among how many a batch is dealt out.

  Raises:
    DataError: From the stream, if a photograph cannot be read.
  """
  own_size = batch_size // processes
  # Dealt out only now: what is drawn for a record depends on its place in the whole stream.
  dataset = _cut_crops(photos, config, crop_px=crop_px, seed=seed)[process::processes]
  dataset = dataset.batch(own_size, drop_remainder=True)
  options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=4 * own_size)
  stream = iter(dataset.to_iter_dataset(options))
  # Grain's own form of the state; counts batches.
  stream.set_state({"next_index": first_step})
  return stream


def first_crop(photos: PhotoSource, config: DataConfig, *, crop_px: int, seed: int) -> Crops:
  """The crop that a stream of these settings begins with."""
  return _cut_crops(photos, config, crop_px=crop_px, seed=seed)[0]


def _cut_crops(photos: PhotoSource, config: DataConfig, *, crop_px: int, seed: int) -> Any:
  """Endless crops, by index, as Grain's MapDataset."""
  return (
    grain.MapDataset.source(photos)
    .map_with_index(lambda index, pixels: (index % len(photos), pixels))  # it counts epochs on
    .seed(seed)
    .shuffle()
    .repeat(None, reseed_each_epoch=True)
    .random_map(RandomCrop(config, crop_px=crop_px))
  )


def main(argv: Sequence[str] | None = None) -> int:
  """The command: 0 when all files were taken, 1 when some, 2 when none, 130 when interrupted."""
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
  except KeyboardInterrupt:
    print("data: interrupted", file=sys.stderr)
    return 130
  print(f"{args.out}: {len(paths) - len(errors)} photographs written")
  return 1 if errors else 0


if __name__ == "__main__":
  sys.exit(main())

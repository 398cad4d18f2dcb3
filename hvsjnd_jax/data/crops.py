"""Cuts random crops from photographs, as an endless stream of batches."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import grain
import numpy as np
from jaxtyping import Int, UInt8, UInt32
from PIL import Image

from hvsjnd_jax.data.config import DataConfig
from hvsjnd_jax.data.sources import PhotoSource
from hvsjnd_jax.ops.types import Pixels


class Crops(NamedTuple):
  """A batch of crops, and where each comes from. A single crop has no axis b."""

  pixels: UInt8[np.ndarray, "b crop crop 3"]
  noise_seeds: UInt32[np.ndarray, " b"]  # of the noise that the training step draws
  photos: Int[np.ndarray, " b"]  # index in the source


class RandomCrop(grain.transforms.RandomMap):
  """Cuts a crop at a random scale and place, and flips it at random both ways.

  Everything, including the seed of the crop's noise, is drawn from the record's own generator,
  so that it does not matter which process reads the record, or where in a batch it stands.

  Args:
    config: The range of scales. A photograph too small for a scale is enlarged just enough.
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
  """Returns the endless stream of batches, from `first_step` on.

  The crops of a batch follow from the seed and the step alone, so that a resumed run sees the
  crops that the uninterrupted one would have seen, on any number of processes.

  Args:
    photos: The photographs, from `open_photos`.
    config: How crops are cut.
    crop_px: Side of the crops.
    batch_size: Crops in a batch over all processes, whose number must divide it.
    seed: Seed of everything random.
    first_step: Number of batches to skip.
    process: Index of this process.
    processes: Number of processes that share a batch.

  Raises:
    DataError: From the stream, if a photograph cannot be read.
  """
  local_size = batch_size // processes
  # The stream is split among the processes only after the crops are drawn, because what is
  # drawn for a record depends on its place in the whole stream.
  dataset = _cut_crops(photos, config, crop_px=crop_px, seed=seed)[process::processes]
  dataset = dataset.batch(local_size, drop_remainder=True)
  options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=4 * local_size)
  stream = iter(dataset.to_iter_dataset(options))
  # This is Grain's own form of the state, which counts batches.
  stream.set_state({"next_index": first_step})
  return stream


def first_crop(photos: PhotoSource, config: DataConfig, *, crop_px: int, seed: int) -> Crops:
  """Returns the crop that a stream of these settings begins with."""
  return _cut_crops(photos, config, crop_px=crop_px, seed=seed)[0]


def _cut_crops(photos: PhotoSource, config: DataConfig, *, crop_px: int, seed: int) -> Any:
  """Returns the endless crops, by index, as Grain's MapDataset."""
  return (
    grain.MapDataset.source(photos)
    .map_with_index(
      lambda index, pixels: (index % len(photos), pixels)
    )  # indices go on over epochs
    .seed(seed)
    .shuffle()
    .repeat(None, reseed_each_epoch=True)
    .random_map(RandomCrop(config, crop_px=crop_px))
  )

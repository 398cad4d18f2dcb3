"""Random crops of photographs, as an endless stream of batches."""

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
  """A batch of crops, and where each comes from; one crop without the axis b."""

  pixels: UInt8[np.ndarray, "b crop crop 3"]
  noise_seeds: UInt32[np.ndarray, " b"]  # of the noise that the training step draws
  photos: Int[np.ndarray, " b"]  # index in the source


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

"""Cuts random crops from photographs, as an endless stream of batches."""

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Generator
from multiprocessing import resource_tracker
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags
from jaxtyping import Int, UInt8, UInt32
from PIL import Image

from hvsjnd_jax.data.config import DataConfig
from hvsjnd_jax.data.formats import get_limit, limit_pixels
from hvsjnd_jax.data.photo_source import DataError, PhotoSource
from hvsjnd_jax.data.tiles import TileFolder
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
      crop = pixels[top : top + size, left : left + size]
    else:
      box = (left, top, left + window, top + window)
      crop = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC, box)
    down, across = rng.choice([1, -1], 2)
    return Crops(
      _copy(np.asarray(crop)[::down, ::across]),
      rng.integers(2**32, size=(), dtype=np.uint32),
      np.asarray(photo, np.int32),
    )


def _copy(pixels: Pixels) -> Pixels:
  """Copies pixels to where they lie together."""
  if pixels.strides[1] > 0:
    return np.array(pixels)
  copy = np.empty_like(pixels)
  for channel in range(3):  # NumPy takes five times as long to copy a mirrored image at once
    copy[..., channel] = pixels[..., channel]
  return copy


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
) -> Generator[Crops]:
  """Yields the endless stream of batches, from `first_step` on.

  The crops of a batch follow from the seed and the step alone, so that a resumed run sees the
  crops that the uninterrupted one would have seen, on any number of processes, with any number of
  threads and workers. Close the stream after use, which ends the workers.

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
    DataError: If a photograph cannot be read, or a worker has ended.
  """
  local_size = batch_size // processes
  # The stream is split among the processes only after the crops are drawn, because what is
  # drawn for a record depends on its place in the whole stream.
  dataset = _cut_crops(photos, config, crop_px=crop_px, seed=seed)[process::processes]
  dataset = dataset.batch(local_size, drop_remainder=True)[first_step:]
  ahead = 2 * config.threads  # batches
  options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=ahead)
  workers = grain.MultiprocessingOptions(config.workers, per_worker_buffer_size=2)
  if config.workers:
    _prepare_for_workers()
  prepare = functools.partial(_prepare_worker, get_limit())
  stream: Any = iter(dataset.to_iter_dataset(options).mp_prefetch(workers, prepare))
  with contextlib.closing(stream):
    try:
      yield from stream
    except RuntimeError as error:
      if not config.workers:
        raise
      raise DataError(
        f"a process of data.workers has ended, perhaps for want of memory ({error}); the same "
        "command goes on, and may have fewer of them"
      ) from None


def first_crop(photos: PhotoSource, config: DataConfig, *, crop_px: int, seed: int) -> Crops:
  """Returns the crop that a stream of these settings begins with."""
  return _cut_crops(photos, config, crop_px=crop_px, seed=seed)[0]


def _cut_crops(photos: PhotoSource, config: DataConfig, *, crop_px: int, seed: int) -> Any:
  """Returns the endless crops, by index, as Grain's MapDataset."""
  if isinstance(photos, TileFolder):  # each tile has its scale already
    config = dataclasses.replace(config, min_scale=1.0, max_scale=1.0)
  return (
    grain.MapDataset.source(photos)
    .map_with_index(functools.partial(_number, len(photos)))
    .seed(seed)
    .shuffle()
    .repeat(None, reseed_each_epoch=True)
    .random_map(RandomCrop(config, crop_px=crop_px))
  )


def _number(photos: int, index: int, pixels: Pixels) -> tuple[int, Pixels]:
  return index % photos, pixels  # indices go on over epochs


def _prepare_for_workers() -> None:
  """Sets what Grain expects of a process, or leaves to it, before it starts workers."""
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  # Of batches that are on their way when a stream is closed, Grain forgets the shared memory.
  # Python's tracker frees it, with a warning that nobody can do anything about.
  before = os.environ.get("PYTHONWARNINGS")
  os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"
  try:
    resource_tracker.ensure_running()
  finally:
    os.environ.pop("PYTHONWARNINGS")
    if before is not None:
      os.environ["PYTHONWARNINGS"] = before


def _prepare_worker(most_pixels: int | None, index: int, workers: int) -> None:
  """Sets a worker up for photographs as its training process is, and lets it end with that one.

  A terminal or a scheduler sends its signals to workers as well, and the training process still
  needs crops while it saves.
  """
  del index, workers
  if most_pixels is not None:
    limit_pixels(most_pixels)
  warnings.filterwarnings("ignore", module="PIL")  # as the commands do
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  parent = multiprocessing.parent_process()
  assert parent is not None
  parent.join()
  os._exit(1)  # Grain's loop would wait for a reader forever

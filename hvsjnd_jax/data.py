"""Training data: a folder of photographs, cut into an endless stream of random crops.

Batches are uint8 [B, crop, crop, 3], RGB: a quarter of the bytes of float32.
"""

from collections.abc import Iterator
from pathlib import Path

import grain
import numpy as np
from PIL import Image

from hvsjnd_jax.config import DataConfig
from hvsjnd_jax.images import ImageError, find_images, read_image


class PhotoFolder:
  """The photographs under a folder, by index, as a random-access source for Grain."""

  def __init__(self, folder: Path):
    self._paths, _ = find_images([folder])
    if not self._paths:
      raise FileNotFoundError(f"no image under {folder}")

  def __len__(self) -> int:
    return len(self._paths)

  def __getitem__(self, index: int) -> np.ndarray:
    path = self._paths[index]
    try:
      return read_image(path)
    except ImageError as error:
      raise ImageError(f"{path}: {error}") from None


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
    self, element: np.ndarray, rng: np.random.Generator
  ) -> np.ndarray:
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
    FileNotFoundError: If there is no photograph.
    ImageError: From the stream, naming the file, where one cannot be read.
  """
  dataset = (
    grain.MapDataset.source(PhotoFolder(Path(config.images)))
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

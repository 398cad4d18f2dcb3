"""The stream of training crops."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax.config import DataConfig
from hvsjnd_jax.data import PhotoFolder, RandomCrop, crop_stream

CROP_PX = 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
  """Five photographs, each of one level of gray, and of other sizes."""
  for i in range(5):
    Image.new("RGB", (20 + 9 * i, 60 - 8 * i), (40 * i,) * 3).save(tmp_path / f"{i}.png")
  return tmp_path


def take(folder: Path, count: int, **settings: int) -> list[np.ndarray]:
  config = DataConfig(images=str(folder), crop_px=CROP_PX)
  stream = crop_stream(config, batch_size=2, **{"seed": 0, "first_step": 0} | settings)
  return list(itertools.islice(stream, count))


def test_batches_are_uint8_crops(folder: Path):
  for batch in take(folder, 3):
    assert batch.shape == (2, CROP_PX, CROP_PX, 3)
    assert batch.dtype == np.uint8


def test_stream_follows_from_the_seed(folder: Path):
  first, again, other = take(folder, 5), take(folder, 5), take(folder, 5, seed=1)
  np.testing.assert_array_equal(first, again)
  assert not np.array_equal(first, other)


def test_stream_goes_on_from_any_step(folder: Path):
  # Past the first epoch, which is two batches and a half.
  np.testing.assert_array_equal(take(folder, 7)[4:], take(folder, 3, first_step=4))


def test_every_photograph_comes_once_an_epoch(folder: Path):
  batches = np.concatenate(take(folder, 5))
  for epoch in batches[:5], batches[5:]:
    assert sorted(epoch[:, 0, 0, 0].tolist()) == [0, 40, 80, 120, 160]


def test_empty_folder_is_an_error(tmp_path: Path):
  with pytest.raises(FileNotFoundError, match="no image under"):
    PhotoFolder(tmp_path)


@pytest.mark.parametrize("scale", [0.25, 0.6, 1.0, 3.0])
def test_crop_keeps_the_scale_asked_for(scale: float):
  # Columns brighten by 2 a pixel: the slope of the crop tells its scale.
  ramp = np.broadcast_to((2 * np.arange(96, dtype=np.uint8))[None, :, None], (80, 96, 3))
  crop = RandomCrop(DataConfig(crop_px=CROP_PX, min_scale=scale, max_scale=scale))
  cut = crop.random_map(np.ascontiguousarray(ramp), np.random.default_rng(3))
  slope = np.abs(np.diff(cut[8, 2:-2, 0].astype(float)).mean())
  assert slope == pytest.approx(2 / scale, rel=0.1)


def test_small_photograph_is_enlarged():
  tiny = np.random.default_rng(0).integers(0, 256, (8, 11, 3), dtype=np.uint8)
  cut = RandomCrop(DataConfig(crop_px=CROP_PX)).random_map(tiny, np.random.default_rng(0))
  assert cut.shape == (CROP_PX, CROP_PX, 3)


def test_crop_at_full_scale_copies_pixels_and_flips_both_ways():
  image = np.random.default_rng(0).integers(0, 256, (CROP_PX, CROP_PX, 3), dtype=np.uint8)
  crop = RandomCrop(DataConfig(crop_px=CROP_PX, min_scale=1.0, max_scale=1.0))
  turned = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
  seen = set()
  for seed in range(40):
    cut = crop.random_map(image, np.random.default_rng(seed))
    seen.add(next(i for i, flip in enumerate(turned) if np.array_equal(cut, flip)))
  assert seen == {0, 1, 2, 3}

"""The stream of training crops."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax.config import DataConfig
from hvsjnd_jax.data import (
  DataError,
  PhotoDataset,
  PhotoFolder,
  RandomCrop,
  crop_stream,
  main,
)

CROP_PX = 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
  """Five photographs, each of one level of gray, and of other sizes."""
  tmp_path = tmp_path / "photos"
  tmp_path.mkdir()
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
  with pytest.raises(DataError, match="no image under"):
    PhotoFolder(tmp_path)


def build(*arguments: object) -> int:
  return main(["build", *map(str, arguments)])


def test_dataset_holds_the_folder_s_photographs(
  folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  (folder / "sub").mkdir()
  Image.new("L", (30, 30), 7).save(folder / "sub/gray.png")
  (folder / "bad.png").write_text("no picture")
  out = tmp_path / "dataset"
  assert build("--images", folder, "--out", out) == 1
  stdout, stderr = capsys.readouterr()
  assert stdout == f"{out}: 6 photographs written\n"
  assert stderr == f"data: {folder}/bad.png: not an image that Pillow can read\n"

  (folder / "bad.png").unlink()
  dataset, photos = PhotoDataset(str(out), "train"), PhotoFolder(folder)
  stored = sorted(dataset[i].tobytes() for i in range(len(dataset)))
  assert stored == sorted(photos[i].tobytes() for i in range(len(photos)))
  assert len(PhotoDataset(str(out), "train[:2]")) == 2


def test_dataset_gives_a_stream_that_goes_on_from_any_step(folder: Path, tmp_path: Path):
  assert build("--images", folder, "--out", tmp_path / "dataset") == 0
  config = DataConfig(tfds=str(tmp_path / "dataset"), crop_px=CROP_PX)

  def take(count: int, first_step: int) -> list[np.ndarray]:
    stream = crop_stream(config, batch_size=2, seed=0, first_step=first_step)
    return list(itertools.islice(stream, count))

  np.testing.assert_array_equal(take(7, 0)[4:], take(3, 4))


@pytest.mark.parametrize(
  ("name", "split", "message"),
  [
    ("no_such_dataset", "train", "dataset 'no_such_dataset', split 'train': "),
    ("{folder}", "train", "split 'train': .*"),
    ("{out}", "test", "split 'test': .*test"),
  ],
)
def test_dataset_that_is_not_there_is_named(
  folder: Path, tmp_path: Path, name: str, split: str, message: str
):
  out = tmp_path / "dataset"
  build("--images", folder, "--out", out)
  with pytest.raises(DataError, match=message):
    PhotoDataset(name.format(folder=folder, out=out), split)


def test_build_refuses(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
  (tmp_path / "empty").mkdir()
  for images, out, reason in (
    (folder, "empty", "empty: exists already"),
    (tmp_path / "empty", "new", "no image under"),
    (tmp_path / "nowhere", "new", "no such file or folder"),
    (folder, "no/such/parent", "No such file or directory"),
  ):
    assert build("--images", images, "--out", tmp_path / out) == 2
    assert reason in capsys.readouterr().err
  assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "photos"]


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

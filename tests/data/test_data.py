"""The stream of training crops."""

import itertools
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax.data import formats
from hvsjnd_jax.data.__main__ import main
from hvsjnd_jax.data.color_profiles import SRGB_CURVE, build_profile
from hvsjnd_jax.data.config import DataConfig
from hvsjnd_jax.data.crops import Crops, RandomCrop, crop_stream, first_crop
from hvsjnd_jax.data.images import read_image
from hvsjnd_jax.data.photo_source import DataError, PhotoSource
from hvsjnd_jax.data.sources import PhotoDataset, PhotoFolder, SyntheticPhotos, open_photos
from tests.support.colors import P3

CROP_PX = 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
  """Five photographs, each of one level of gray, and of other sizes."""
  tmp_path = tmp_path / "photos"
  tmp_path.mkdir()
  for i in range(5):
    Image.new("RGB", (20 + 9 * i, 60 - 8 * i), (40 * i,) * 3).save(tmp_path / f"{i}.png")
  return tmp_path


def take(photos: PhotoSource, steps: int, **settings: int) -> list[Crops]:
  given = {"crop_px": CROP_PX, "batch_size": 2, "seed": 0} | settings
  return list(itertools.islice(crop_stream(photos, DataConfig(), **given), steps))


def assert_equal(batches: list[Crops], others: list[Crops]) -> None:
  for batch, other in zip(batches, others, strict=True):
    for part, other_part in zip(batch, other, strict=True):
      np.testing.assert_array_equal(part, other_part)


def test_batches_are_uint8_crops(folder: Path):
  for batch in take(PhotoFolder(folder), 3):
    assert batch.pixels.shape == (2, CROP_PX, CROP_PX, 3)
    assert batch.noise_seeds.shape == batch.photos.shape == (2,)
    assert [part.dtype for part in batch] == [np.uint8, np.uint32, np.int32]


def test_stream_follows_from_the_seed(folder: Path):
  photos = PhotoFolder(folder)
  first = take(photos, 5)
  assert_equal(first, take(photos, 5))
  (other, *_) = take(photos, 5, seed=1)
  for part, other_part in zip(first[0], other, strict=True):
    assert not np.array_equal(part, other_part)


def test_stream_goes_on_from_any_step(folder: Path):
  photos = PhotoFolder(folder)
  # Past the first epoch, which is two batches and a half.
  assert_equal(take(photos, 7)[4:], take(photos, 3, first_step=4))


def test_every_photograph_comes_once_an_epoch(folder: Path):
  batches = take(PhotoFolder(folder), 5)
  levels = np.concatenate([batch.pixels[:, 0, 0, 0] for batch in batches])
  indices = np.concatenate([batch.photos for batch in batches])
  np.testing.assert_array_equal(levels, 40 * indices)
  for epoch in indices[:5], indices[5:]:
    assert sorted(epoch) == [0, 1, 2, 3, 4]


def test_every_crop_has_noise_of_its_own(folder: Path):
  # Of all epochs, whose crops differ in their noise too.
  seeds = np.concatenate([batch.noise_seeds for batch in take(PhotoFolder(folder), 50)])
  assert len(set(seeds)) == 100


def contents(batch: Crops) -> list[tuple[bytes, int, int]]:
  """The crops of a batch, whatever their order."""
  return sorted(
    (pixels.tobytes(), int(noise), int(photo)) for pixels, noise, photo in zip(*batch, strict=True)
  )


@pytest.mark.parametrize("first_step", [0, 3])
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_batch_of_one(processes: int, first_step: int):
  photos = SyntheticPhotos(5)  # two batches are more than an epoch
  settings = {"batch_size": 4, "first_step": first_step}
  alone = take(photos, 4, **settings)
  shares = [
    take(photos, 4, process=process, processes=processes, **settings)
    for process in range(processes)
  ]
  for step, batch in enumerate(alone):
    parts = [share[step] for share in shares]
    assert {len(part.pixels) for part in parts} == {4 // processes}
    together = Crops(*map(np.concatenate, zip(*parts, strict=True)))
    assert contents(together) == contents(batch)


def test_first_crop_is_the_stream_s(folder: Path):
  photos = PhotoFolder(folder)
  (batch,) = take(photos, 1, batch_size=1, seed=5)
  crop = first_crop(photos, DataConfig(), crop_px=CROP_PX, seed=5)
  for part, want in zip(crop, batch, strict=True):
    np.testing.assert_array_equal(part, want[0])


def test_synthetic_photographs_follow_from_their_index():
  photos = SyntheticPhotos(3)
  assert len(photos) == 3
  drawn = [photos[i] for i in range(3)]
  for picture in drawn:
    assert picture.dtype == np.uint8
    assert picture.shape == (256, 256, 3)
  np.testing.assert_array_equal(SyntheticPhotos(7)[2], drawn[2])
  assert not np.array_equal(drawn[0], drawn[1])


def test_sources_name_their_photographs(folder: Path, tmp_path: Path):
  out = tmp_path / "dataset"
  assert build("--images", folder, "--out", out) == 0
  for config, name in (
    (DataConfig(images=str(folder)), f"{folder}/3.png"),
    (DataConfig(tfds=str(out), tfds_split="train[1:]"), f"{out}, train[1:], image 3"),
    (DataConfig(synthetic=5), "synthetic image 3"),
  ):
    assert open_photos(config).name(3) == name


def test_names_need_not_be_utf8(folder: Path, tmp_path: Path):
  before = PhotoFolder(folder).fingerprint()
  (folder / "3.png").rename(folder / os.fsdecode(b"\xff.png"))
  assert PhotoFolder(folder).fingerprint() != before
  assert build("--images", folder, "--out", tmp_path / "out") == 0


def test_photograph_that_cannot_be_read_is_named(folder: Path):
  (folder / "bad.png").write_text("no picture")
  with pytest.raises(DataError, match=r"photos/bad\.png: not an image .*; remove it, or mend it"):
    take(PhotoFolder(folder), 3)


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


def test_dataset_holds_srgb(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
  green = Image.new("RGB", (30, 30), (0, 255, 0))
  green.save(folder / "p3.png", icc_profile=build_profile(SRGB_CURVE, P3))
  assert build("--images", folder, "--out", tmp_path / "dataset") == 0
  assert capsys.readouterr().err == (
    f"data: {folder}/p3.png: sRGB lacks the colours of 900 of 900 pixels, clipped\n"
  )
  dataset, photos = PhotoDataset(str(tmp_path / "dataset"), "train"), PhotoFolder(folder)
  stored = sorted(dataset[i].tobytes() for i in range(len(dataset)))
  assert stored == sorted(photos[i].tobytes() for i in range(len(photos)))
  assert capsys.readouterr().err == "", "training repeats no remark"


def test_dataset_of_others_is_read_as_files_are(
  folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  """Other writers keep profiles and EXIF, as this one does not."""
  original = next(iter(sorted(folder.iterdir())))
  exif = Image.Exif()
  exif[0x0112] = 6
  turned = tmp_path / "turned.png"
  with Image.open(original) as image:
    image.save(turned, exif=exif, icc_profile=build_profile((1.0,), P3))
  assert build("--images", folder, "--out", tmp_path / "dataset") == 0
  dataset = PhotoDataset(str(tmp_path / "dataset"), "train")
  monkeypatch.setattr(dataset, "_read_encoded", lambda index: turned.read_bytes())
  np.testing.assert_array_equal(dataset[0], read_image(turned))


def test_limit_of_megapixels(
  folder: Path,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capfd: pytest.CaptureFixture[str],
):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 50 // 2)  # and restored afterwards
  Image.new("RGB", (40, 50)).save(folder / "big.png")  # at the limit
  assert build("--images", folder, "--out", tmp_path / "at") == 0
  assert capfd.readouterr().err == "", "Pillow warns above half of its limit"
  monkeypatch.setattr(formats, "_most_pixels", None)
  limit = ("--max-megapixels", 0.0019)
  assert build("--images", folder, "--out", tmp_path / "above", *limit) == 1
  assert re.fullmatch(
    r"data: .*big.png: too large to be safe: .*2000 pixels.*; --max-megapixels raises the limit\n",
    capfd.readouterr().err,
  )
  assert build("--images", folder, "--out", tmp_path / "below", "--max-megapixels", 0.0021) == 0


def test_dataset_gives_a_stream_that_goes_on_from_any_step(folder: Path, tmp_path: Path):
  assert build("--images", folder, "--out", tmp_path / "dataset") == 0
  photos = PhotoDataset(str(tmp_path / "dataset"), "train")
  assert_equal(take(photos, 7)[4:], take(photos, 3, first_step=4))


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


def crop(pixels: np.ndarray, seed: int, **scales: float) -> Crops:
  cut = RandomCrop(DataConfig(**scales), crop_px=CROP_PX)  # pyright: ignore[reportArgumentType]
  return cut.random_map((9, pixels), np.random.default_rng(seed))


@pytest.mark.parametrize("scale", [0.25, 0.6, 1.0, 3.0])
def test_crop_keeps_the_scale_asked_for(scale: float):
  # Columns brighten by 2 a pixel: the slope of the crop tells its scale.
  ramp = np.broadcast_to((2 * np.arange(96, dtype=np.uint8))[None, :, None], (80, 96, 3))
  cut = crop(np.ascontiguousarray(ramp), 3, min_scale=scale, max_scale=scale)
  slope = np.abs(np.diff(cut.pixels[8, 2:-2, 0].astype(float)).mean())
  assert slope == pytest.approx(2 / scale, rel=0.1)


def test_small_photograph_is_enlarged():
  tiny = np.random.default_rng(0).integers(0, 256, (8, 11, 3), dtype=np.uint8)
  assert crop(tiny, 0).pixels.shape == (CROP_PX, CROP_PX, 3)


def test_crop_at_full_scale_copies_pixels_and_flips_both_ways():
  image = np.random.default_rng(0).integers(0, 256, (CROP_PX, CROP_PX, 3), dtype=np.uint8)
  turned = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
  seen = set()
  for seed in range(40):
    cut = crop(image, seed, min_scale=1.0, max_scale=1.0)
    assert cut.photos == 9
    seen.add(next(i for i, flip in enumerate(turned) if np.array_equal(cut.pixels, flip)))
  assert seen == {0, 1, 2, 3}

"""Folders of tiles: what they hold, and the stream of crops from them."""

import itertools
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax.data import formats
from hvsjnd_jax.data.__main__ import main
from hvsjnd_jax.data.config import DataConfig
from hvsjnd_jax.data.crops import Crops, crop_stream
from hvsjnd_jax.data.photo_source import DataError
from hvsjnd_jax.data.sources import check_crops, open_photos
from hvsjnd_jax.data.tiles import TileFolder

CROP_PX = 32
TILE_PX = 40


def build(images: Path, out: Path, *arguments: object) -> int:
  given = ("--images", images, "--out", out, "--crop-px", CROP_PX, *arguments)
  return main(["build", *map(str, given)])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """Five photographs of coarse noise."""
  folder = tmp_path_factory.mktemp("photographs")
  rng = np.random.default_rng(0)
  for i in range(5):
    coarse = Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8))
    coarse.resize((90 + i, 80), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
  return folder


@pytest.fixture(scope="module")
def tiles(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
  folder = tmp_path_factory.mktemp("out") / "tiles"
  assert build(photographs, folder, "--tiles", 3) == 0
  return folder


def take(folder: Path, steps: int, *, workers: int = 0, threads: int = 2, **where: int):
  config = DataConfig(images=str(folder), workers=workers, threads=threads)
  stream = crop_stream(open_photos(config), config, crop_px=16, batch_size=4, seed=3, **where)
  batches: list[Crops] = [Crops(*map(np.array, batch)) for batch in itertools.islice(stream, steps)]
  stream.close()
  return batches


def assert_equal(batches: list[Crops], others: list[Crops]) -> None:
  for batch, other in zip(batches, others, strict=True):
    for part, other_part in zip(batch, other, strict=True):
      np.testing.assert_array_equal(part, other_part)


def find_place(tile: np.ndarray, photograph: np.ndarray) -> tuple[int, int]:
  """Where a tile at full scale was cut."""
  windows = np.lib.stride_tricks.sliding_window_view(photograph, tile.shape)[:, :, 0]
  (place,) = np.argwhere((windows == tile).all(axis=(2, 3, 4)))
  return tuple(place)


def test_tiles_at_full_scale_are_pieces_of_the_photographs(photographs: Path, tmp_path: Path):
  scales = ("--min-scale", 1, "--max-scale", 1)
  assert build(photographs, tmp_path / "tiles", "--tiles", 4, *scales) == 0
  found = TileFolder(tmp_path / "tiles")
  places = []
  for index in range(len(found)):
    with Image.open(photographs / f"{index // 4}.png") as image:
      places.append(find_place(found[index], np.asarray(image)))
    assert found[index].shape == (TILE_PX, TILE_PX, 3)
    assert found.name(index) == f"{index // 4}.png, tile {index % 4}"
  assert len(found) == 20
  assert len(set(places)) > 15, "at random places"


def test_scales_are_spread_over_their_range(tmp_path: Path):
  # Columns brighten by 1 a pixel: the slope of a tile tells its scale.
  ramp = np.broadcast_to(np.arange(250, dtype=np.uint8)[None, :, None], (200, 250, 3))
  (tmp_path / "photographs").mkdir()
  Image.fromarray(np.ascontiguousarray(ramp)).save(tmp_path / "photographs/ramp.png")
  scales = ("--min-scale", 0.5, "--max-scale", 1)
  assert build(tmp_path / "photographs", tmp_path / "tiles", "--tiles", 10, *scales) == 0
  found = TileFolder(tmp_path / "tiles")
  slopes = np.asarray([np.diff(found[i][20, 2:-2, 0].astype(float)).mean() for i in range(10)])
  parts = 0.5 + 0.05 * np.arange(11)
  rounding = 1 / TILE_PX  # of the first and the last level
  assert (1 / slopes > parts[:-1] * (1 - rounding)).all()
  assert (1 / slopes < parts[1:] * (1 + rounding)).all()


def test_small_photographs_still_hold_a_crop(tmp_path: Path):
  (tmp_path / "photographs").mkdir()
  for i, size in enumerate(((12, 30), (33, 90), (90, 36))):
    Image.new("RGB", size, (50 * i,) * 3).save(tmp_path / f"photographs/{i}.png")
  assert build(tmp_path / "photographs", tmp_path / "tiles", "--tiles", 2) == 0
  found = TileFolder(tmp_path / "tiles")
  for index in range(6):
    assert CROP_PX <= min(found[index].shape[:2]) <= max(found[index].shape[:2]) <= TILE_PX
    assert (found[index] == 50 * (index // 2)).all()


def test_every_tile_comes_once_an_epoch(tiles: Path):
  indices = np.concatenate([batch.photos for batch in take(tiles, 15)])
  for epoch in indices.reshape(4, 15):
    assert sorted(epoch) == list(range(15))


def test_crops_are_pieces_of_their_tiles(tiles: Path):
  found = TileFolder(tiles)
  for batch in take(tiles, 5):
    for crop, index in zip(batch.pixels, batch.photos, strict=True):
      turned = (crop, crop[::-1], crop[:, ::-1], crop[::-1, ::-1])
      windows = np.lib.stride_tricks.sliding_window_view(found[index], crop.shape)
      assert any((windows == turn).all(axis=(3, 4, 5)).any() for turn in turned)


@pytest.mark.parametrize(("workers", "threads"), [(0, 1), (0, 3), (2, 2)])
def test_stream_goes_on_from_any_step_with_any_workers(tiles: Path, workers: int, threads: int):
  # In the middle of the second epoch, whose 15 crops are 4 batches less one crop.
  want = take(tiles, 12)[5:]
  assert_equal(take(tiles, 7, workers=workers, threads=threads, first_step=5), want)


def test_processes_share_the_batch_of_one(tiles: Path):
  want = take(tiles, 6)
  shares = [take(tiles, 6, process=i, processes=2) for i in range(2)]
  for step, batch in enumerate(want):
    for part, *halves in zip(batch, *(share[step] for share in shares), strict=True):
      together = np.empty_like(part)
      together[0::2], together[1::2] = halves
      np.testing.assert_array_equal(together, part)


def test_fingerprint_is_of_what_tiles_hold(tiles: Path, photographs: Path, tmp_path: Path):
  shutil.copytree(tiles, tmp_path / "copy")
  fingerprint = TileFolder(tiles).fingerprint()
  assert TileFolder(tmp_path / "copy").fingerprint() == fingerprint
  assert fingerprint.startswith("5 photographs in 15 tiles, SHA-256 ")
  assert build(photographs, tmp_path / "again", "--tiles", 3) == 0
  assert TileFolder(tmp_path / "again").fingerprint() == fingerprint
  others = tmp_path / "photographs"
  shutil.copytree(photographs, others)
  Image.new("RGB", (90, 80)).save(others / "0.png")
  assert build(others, tmp_path / "others", "--tiles", 3) == 0
  assert TileFolder(tmp_path / "others").fingerprint() != fingerprint


def edit_manifest(folder: Path, **changes: object) -> None:
  file = folder / "tiles.json"
  file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def cut_short(folder: Path) -> None:
  file = folder / "tiles-00000.array_record"
  file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(folder: Path) -> None:
  file = folder / "tiles-00000.array_record"
  data = bytearray(file.read_bytes())
  data[len(data) // 4] ^= 1
  file.write_bytes(data)


@pytest.mark.parametrize(
  ("damage", "reason"),
  [
    (cut_short, r"tiles-00000\.array_record: \d+ of \d+ bytes; copy it again, or build it again"),
    (flip_a_bit, r"tile \d+ cannot be read: .*; copy the folder again, or build it again"),
    (
      lambda folder: (folder / "tiles-00000.array_record").unlink(),
      r"tiles-00000\.array_record: No such file or directory; copy it again, or build it again",
    ),
    (
      lambda folder: (folder / "tiles.json").write_text("{"),
      r"tiles\.json cannot be read: .*; copy it again, or build it again",
    ),
    (
      lambda folder: edit_manifest(folder, format=2),
      "tiles of another version of hvsjnd_jax; build them again",
    ),
    (lambda folder: edit_manifest(folder, unknown=2), r"tiles\.json cannot be read: .*unknown"),
  ],
)
def test_damage_is_told_in_one_line(
  tiles: Path, tmp_path: Path, damage: Callable[[Path], None], reason: str
):
  shutil.copytree(tiles, tmp_path / "copy")
  damage(tmp_path / "copy")
  with pytest.raises(DataError, match=f"copy.*{reason}") as error:
    take(tmp_path / "copy", 5)
  assert "\n" not in str(error.value)


def test_workers_heed_no_signal_but_the_last(tiles: Path):
  config = DataConfig(images=str(tiles), workers=1)
  stream = crop_stream(open_photos(config), config, crop_px=16, batch_size=4, seed=3)
  next(stream)
  (worker,) = multiprocessing.active_children()
  for number in (signal.SIGINT, signal.SIGTERM):
    os.kill(worker.pid or 0, number)
  want = take(tiles, 12)[1:]
  assert_equal([Crops(*map(np.array, next(stream))) for _ in want], want)
  os.kill(worker.pid or 0, signal.SIGKILL)
  with pytest.raises(DataError, match=r"has ended, perhaps for want of memory .*exit code -9"):
    for _ in stream:
      pass
  assert multiprocessing.active_children() == []


def test_workers_tell_in_one_line_what_they_refuse(
  photographs: Path, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setattr(formats, "_most_pixels", 90 * 80)  # as --max-megapixels sets it
  with pytest.raises(DataError, match=r"\d\.png: too large to be safe: .*") as error:
    take(photographs, 5, workers=1)
  assert "\n" not in str(error.value)


def test_crops_that_tiles_do_not_hold_are_refused(tiles: Path, photographs: Path):
  config = DataConfig(images=str(tiles))
  check_crops(config, crop_px=CROP_PX)
  with pytest.raises(DataError, match="up to 32 pixels, and crop_px is 40: build it with --crop"):
    check_crops(config, crop_px=40)
  config.max_scale = 0.9
  with pytest.raises(DataError, match=r"scales from 0.6 to 1: give --config.data.min_scale=0.6"):
    check_crops(config, crop_px=CROP_PX)
  check_crops(DataConfig(images=str(photographs)), crop_px=1000)


def test_build_tells_what_it_wrote(
  photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  images = tmp_path / "photographs"
  shutil.copytree(photographs, images)
  (images / "bad.png").write_text("no picture")
  assert build(images, tmp_path / "tiles", "--tiles") == 1
  stdout, stderr = capsys.readouterr()
  assert stdout == f"{tmp_path}/tiles: 5 photographs written as 8 tiles each\n"
  assert stderr == f"data: {images}/bad.png: not an image that Pillow can read\n"
  for i in range(5):
    (images / f"{i}.png").unlink()
  assert build(images, tmp_path / "none", "--tiles") == 2
  assert "can be read" in capsys.readouterr().err
  assert sorted(path.name for path in tmp_path.iterdir()) == ["photographs", "tiles"]


@pytest.mark.parametrize(
  ("arguments", "reason"),
  [
    ((), "--crop-px is of use with --tiles alone"),
    (("--tiles", "0"), "expected a whole number from 1 to"),
    (("--tiles", "--min-scale", "2"), "expected 0 < --min-scale <= --max-scale, got 2 and 1"),
  ],
)
def test_build_refuses(
  photographs: Path,
  tmp_path: Path,
  arguments: tuple[str, ...],
  reason: str,
  capsys: pytest.CaptureFixture[str],
):
  with pytest.raises(SystemExit):
    build(photographs, tmp_path / "tiles", *arguments)
  assert reason in capsys.readouterr().err

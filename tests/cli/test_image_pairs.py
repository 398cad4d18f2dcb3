"""Pairs of distorted images and references: how they are found, read, and refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax.cli.command import UsageError
from hvsjnd_jax.cli.image_pairs import find_pairs
from hvsjnd_jax.data.images import ImageError


def draw(file: Path, *, level: int = 0, size: tuple[int, int] = (6, 4)) -> Path:
  file.parent.mkdir(parents=True, exist_ok=True)
  Image.new("RGB", size, (level, level, level)).save(file)
  return file


def test_folders_match_by_name(tmp_path: Path):
  coded, photos = tmp_path / "coded", tmp_path / "photos"
  for name in ("b.png", "sub/a.jpg", "c.v1.png"):
    draw(coded / name, level=9)
  for name in ("b.png", "sub/a.png", "c.v1.bmp"):
    draw(photos / name)
  (coded / "notes.txt").write_text("no image")
  pairs = find_pairs(coded, photos)
  assert {str(name): pairs.references[file] for file, name in pairs.names.items()} == {
    "b": photos / "b.png",
    "c.v1": photos / "c.v1.bmp",
    "sub/a": photos / "sub/a.png",
  }
  assert not pairs.unmatched
  distorted, reference = pairs.read(coded / "b.png").pixels
  assert (distorted == 9).all()
  assert (reference == 0).all()
  assert reference.shape == (4, 6, 3)


def test_files_need_no_common_name(tmp_path: Path):
  a, b = draw(tmp_path / "a.png"), draw(tmp_path / "b.png")
  pairs = find_pairs(a, b)
  assert pairs == ({a: b}, {a: Path("a")}, {}, [])
  assert pairs.read(a).pixels.dtype == np.uint8


def test_images_without_a_partner_are_named(tmp_path: Path):
  coded, photos = tmp_path / "coded", tmp_path / "photos"
  for name in ("both.png", "ours.png", "twice.png", "twice.jpg", "sub/both.png"):
    draw(coded / name)
  for name in ("both.png", "theirs.png", "twice.png"):
    draw(photos / name)
  pairs = find_pairs(coded, photos)
  assert list(pairs.references) == [coded / "both.png"]
  assert pairs.unmatched == {
    coded / "ours.png": f"no image called ours in {photos}",
    coded / "sub/both.png": f"no image called sub/both in {photos}",
    coded / "twice.jpg": "one of 2 images called twice in its folder; keep one",
    coded / "twice.png": "one of 2 images called twice in its folder; keep one",
    photos / "theirs.png": f"no image called theirs in {coded}",
    photos / "twice.png": f"2 images called twice in {coded}; keep one",
  }


def test_useless_arguments_are_refused(tmp_path: Path):
  file, other = draw(tmp_path / "one/a.png"), draw(tmp_path / "two/b.png")
  (tmp_path / "empty").mkdir()
  for distorted, reference, reason in (
    (file, other.parent, "expected two files or two folders"),
    (file.parent, other.parent, "no image has the same name in both folders"),
    (file, tmp_path / "none.png", "no such file or folder: .*none.png"),
    (tmp_path / "empty", other.parent, "no image under .*empty"),
  ):
    with pytest.raises(UsageError, match=reason):
      find_pairs(distorted, reference)


def test_faults_of_the_reference_name_it(tmp_path: Path):
  file, damaged = draw(tmp_path / "a.png"), tmp_path / "damaged.png"
  damaged.write_bytes(b"none")
  larger = draw(tmp_path / "larger.png", size=(7, 4))
  with pytest.raises(ImageError, match=f"^its reference {damaged}: not an image"):
    find_pairs(file, damaged).read(file)
  with pytest.raises(ImageError, match=f"^6x4 pixels, but its reference {larger} has 7x4$"):
    find_pairs(file, larger).read(file)
  with pytest.raises(ImageError, match=r"^not an image"):
    find_pairs(damaged, file).read(damaged)


def test_remarks_say_which_image_they_are_of(tmp_path: Path):
  for name in ("a.png", "b.png"):
    Image.new("RGB", (6, 4)).save(tmp_path / name, icc_profile=b"broken" * 99)
  first, second = (
    find_pairs(tmp_path / "a.png", tmp_path / "b.png").read(tmp_path / "a.png").remarks
  )
  assert first.startswith("its colour profile is ignored")
  assert second == f"its reference {tmp_path}/b.png: {first}"

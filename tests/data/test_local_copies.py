"""Tiles and datasets in an object store: written there, and read from copies on a disk."""

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from hvsjnd_jax.data import local_copies
from hvsjnd_jax.data.__main__ import main
from hvsjnd_jax.data.config import DataConfig
from hvsjnd_jax.data.images import write_png
from hvsjnd_jax.data.local_copies import copy_here
from hvsjnd_jax.data.paths import describe_objects, fetch, list_objects
from hvsjnd_jax.data.photo_source import DataError, PhotoSource
from hvsjnd_jax.data.sources import check_crops, open_photos

PHOTOS = 3


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  """The folder of copies."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  return tmp_path / "cache/hvsjnd_jax/copies"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
  folder = tmp_path / "photos"
  folder.mkdir()
  rng = np.random.default_rng(0)
  for i in range(PHOTOS):
    write_png(folder / f"{i}.png", rng.integers(0, 256, (40, 50, 3), np.uint8))
  return folder


class Fetches(NamedTuple):
  """Counts the objects that are fetched, and fails at one of them."""

  names: list[str]
  fail_at: int = 1000

  def __call__(self, path: Path, file: Path) -> None:
    if len(self.names) == self.fail_at:
      raise ConnectionResetError("the network is down")
    self.names.append(path.name)
    fetch(path, file)


def build(photos: Path, out: Path, *arguments: str) -> None:
  assert main(["build", "--images", str(photos), "--out", str(out), *arguments]) == 0


def assert_same(source: PhotoSource, other: PhotoSource) -> None:
  assert source.fingerprint() == other.fingerprint()
  for i in range(len(other)):
    np.testing.assert_array_equal(source[i], other[i])


@pytest.mark.parametrize("kind", ["images", "tfds"])
def test_what_is_built_in_the_store_is_what_is_built_on_a_disk(
  remote: Path,
  photos: Path,
  tmp_path: Path,
  kind: str,
  cache: Path,
  monkeypatch: pytest.MonkeyPatch,
):
  options = ("--tiles", "2", "--crop-px", "24") if kind == "images" else ()
  for place in (tmp_path, remote):
    build(photos, place / "built", *options)
  there, here = DataConfig(), DataConfig()
  for config, place in ((there, remote), (here, tmp_path)):
    setattr(config, kind, str(place / "built"))
  fetches = Fetches([])
  monkeypatch.setattr(local_copies, "fetch", fetches)
  check_crops(there, crop_px=24)
  assert not fetches.names, "the manifest alone is read where it lies"
  assert_same(open_photos(there), open_photos(here))
  assert len(fetches.names) == len(list_objects(remote / "built"))
  assert_same(open_photos(there), open_photos(here))
  assert len(fetches.names) == len(list_objects(remote / "built")), "fetched once"
  (copy,) = (folder for folder in cache.iterdir() if folder.is_dir())
  assert copy.name.startswith("built-")


def test_the_store_is_not_written_over(
  remote: Path, photos: Path, capsys: pytest.CaptureFixture[str]
):
  build(photos, remote / "tiles", "--tiles", "1", "--crop-px", "24")
  before = describe_objects(remote / "tiles")
  assert main(["build", "--images", str(photos), "--out", str(remote / "tiles")]) == 2
  assert f"{remote}/tiles: exists already; choose another" in capsys.readouterr().err
  assert describe_objects(remote / "tiles") == before


def test_a_copy_that_broke_off_goes_on(remote: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
  for name in "abc":
    (remote / "folder" / name).write_text(name * 10)
  monkeypatch.setattr(local_copies, "fetch", Fetches([], fail_at=2))
  with pytest.raises(DataError, match=r"cannot be copied to .*: the network is down; XDG_CACHE"):
    copy_here(remote)
  again = Fetches([])
  monkeypatch.setattr(local_copies, "fetch", again)
  copy = copy_here(remote)
  assert again.names == ["c"]
  assert copy.parent == cache
  assert {name: (copy / "folder" / name).read_text() for name in "abc"} == {
    name: name * 10 for name in "abc"
  }
  assert not [folder for folder in cache.iterdir() if folder.is_dir() and folder != copy]


def test_a_folder_that_has_changed_is_copied_anew(remote: Path):
  (remote / "a").write_text("old")
  old = copy_here(remote)
  (remote / "a").write_text("new")
  new = copy_here(remote)
  assert ((old / "a").read_text(), (new / "a").read_text()) == ("old", "new")


def test_what_cannot_be_copied_is_told(
  remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  assert copy_here(tmp_path) == tmp_path
  for config in (DataConfig(tfds=str(remote)), DataConfig(images=str(remote))):
    with pytest.raises(DataError, match=f"no such file or folder: {remote}"):
      open_photos(config)
  (remote / "a").write_bytes(bytes(3 * 10**9 // 10**4))
  usage = shutil.disk_usage(tmp_path)._replace(free=10**4)
  monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
  with pytest.raises(DataError, match=r"needs 0.0 GB in .*, which has 0.0: XDG_CACHE_HOME"):
    copy_here(remote)
  monkeypatch.undo()
  (tmp_path / "file").touch()
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  with pytest.raises(DataError, match=r"cannot be copied to .*: Not a directory"):
    copy_here(remote)

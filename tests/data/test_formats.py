"""Formats that Pillow reads with a package that may not be installed."""

import io
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from hvsjnd_jax.data.images import ImageError, find_images, read_image, read_size
from tests.support.colors import PHOTO

# The first bytes of files of each format.
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
JXL = b"\xff\x0a\xfa\x9f\x01\x91"
JXL_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl "


@pytest.mark.parametrize(
  ("head", "extension", "message"),
  [
    (HEIC, "heic", "a HEIC image, which needs pillow-heif"),
    (HEIC, "jpg", "a HEIC image, which needs pillow-heif"),
    (JXL, "jxl", "a JPEG XL image, which needs pillow-jxl-plugin"),
    (JXL_CONTAINER, "jxl", "a JPEG XL image, .*"),
    (b"neither", "heic", "not an image that Pillow can read"),
  ],
  ids=["heic", "named_jpg", "jxl", "container", "neither"],
)
def test_package_is_named(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes, extension: str, message: str
):
  for package in ("pillow_heif", "pillow_jxl"):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
  file = tmp_path / f"x.{extension}"
  file.write_bytes(head.ljust(99, b"\0"))
  assert find_images([tmp_path]) == ([file], 0)
  assert read_size(file) is None
  with pytest.raises(ImageError, match=f"^{message}$"):
    read_image(file)


def test_package_is_used_where_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  class Plugin(ImageFile.ImageFile):
    format = "JXL"

    def _open(self) -> None:
      self._mode, self._size = "RGB", PHOTO.shape[1::-1]
      self.tile = []

    def load(self) -> Any:
      self.im = Image.fromarray(PHOTO).im
      return super().load()

  package = types.ModuleType("pillow_jxl")
  monkeypatch.setitem(sys.modules, "pillow_jxl", package)
  monkeypatch.setitem(Image.OPEN, "JXL", (Plugin, lambda head: head.startswith(JXL)))
  monkeypatch.setattr(Image, "ID", [*Image.ID, "JXL"])
  (tmp_path / "x.jxl").write_bytes(JXL)
  assert read_size(tmp_path / "x.jxl") == PHOTO.shape[:2]
  np.testing.assert_array_equal(read_image(tmp_path / "x.jxl"), PHOTO)


@pytest.mark.parametrize(("package", "extension"), [("pillow_heif", "heic"), ("pillow_jxl", "jxl")])
def test_real_packages(tmp_path: Path, package: str, extension: str):
  """With the extra `formats` alone."""
  module = pytest.importorskip(package)
  if package == "pillow_heif":
    module.register_heif_opener()
  file = io.BytesIO()
  Image.fromarray(PHOTO).save(file, module.__name__.rpartition("_")[2].upper(), quality=100)
  (tmp_path / f"x.{extension}").write_bytes(file.getvalue())
  difference = read_image(tmp_path / f"x.{extension}").astype(int) - PHOTO
  assert np.abs(difference).mean() < 2

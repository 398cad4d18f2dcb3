"""Formats that Pillow reads with a package that may not be installed."""

import io
import struct
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from hvsjnd_jax.data import formats
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
  assert find_images([tmp_path]) == ([file], [])
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


def _encode(image: Image.Image, kind: str) -> bytes:
  file = io.BytesIO()
  image.save(file, kind)
  return file.getvalue()


def _encode_sun() -> bytes:
  """A raw Sun raster of B, G and R."""
  height, width, _ = PHOTO.shape
  header = struct.pack(">8I", 0x59A66A95, width, height, 24, PHOTO.size, 1, 0, 0)
  return header + PHOTO[..., ::-1].tobytes()


def _encode_psd() -> bytes:
  """A Photoshop picture without layers."""
  height, width, channels = PHOTO.shape
  header = b"8BPS" + struct.pack(">H6xHIIHH", 1, channels, height, width, 8, 3)
  return header + bytes(12) + bytes(2) + np.moveaxis(PHOTO, -1, 0).tobytes()


PICTURES = {
  "bmp": lambda: _encode(Image.fromarray(PHOTO), "BMP"),
  "dib": lambda: _encode(Image.fromarray(PHOTO), "DIB"),
  "pcx": lambda: _encode(Image.fromarray(PHOTO), "PCX"),
  "psd": _encode_psd,
  "qoi": lambda: _encode(Image.fromarray(PHOTO), "QOI"),
  "ras": _encode_sun,
  "sgi": lambda: _encode(Image.fromarray(PHOTO), "SGI"),
  "tga": lambda: _encode(Image.fromarray(PHOTO), "TGA"),
}


@pytest.mark.parametrize("extension", PICTURES)
def test_pictures_of_other_formats(tmp_path: Path, extension: str):
  file = tmp_path / f"x.{extension}"
  file.write_bytes(PICTURES[extension]())
  assert find_images([tmp_path]) == ([file], [])
  assert read_size(file) == PHOTO.shape[:2]
  np.testing.assert_array_equal(read_image(file), PHOTO)


def test_photographs_of_two_views(tmp_path: Path):
  """An MPO file: the first view is used."""
  file = tmp_path / "x.mpo"
  views = [Image.fromarray(np.full((16, 24, 3), level, np.uint8)) for level in (100, 200)]
  views[0].save(file, "MPO", save_all=True, append_images=views[1:])
  assert find_images([tmp_path]) == ([file], [])
  np.testing.assert_allclose(read_image(file), 100, atol=1)


def test_every_format_of_pillow_is_decided():
  """A new one fails here until it is among the pictures or named in the comment of `_FORMATS`."""
  Image.init()
  left_out = {
    *("BLP", "BUFR", "CUR", "DCX", "DDS", "EPS", "FITS", "FLI", "FTEX", "GBR", "GRIB", "HDF5"),
    *("ICNS", "ICO", "IM", "IMT", "IPTC", "MCIDAS", "MPEG", "MSP", "PCD", "PIXAR", "SPIDER"),
    *("WMF", "XBM", "XPM", "XVTHUMB"),
    *("HEIF", "JXL"),  # of packages
  }
  assert {*Image.OPEN} - left_out == {*formats._FORMATS}

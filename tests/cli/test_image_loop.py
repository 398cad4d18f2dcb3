"""The loop over photographs: what fails on one image is said, and the rest goes on."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
from PIL import Image

from hvsjnd_jax import eval as command
from hvsjnd_jax.data import __main__ as data
from hvsjnd_jax.data.sources import DataError, PhotoFolder
from hvsjnd_jax.metrics import __main__ as metrics
from hvsjnd_jax.model import windows
from tests.support.evaluating import SIZE, draw, photos, report, run

__all__ = ["photos", "report", "run"]  # fixtures


def test_bad_files_are_named_and_the_rest_goes_on(
  report: Callable[..., dict[str, Any]], photos: Path, capfd: pytest.CaptureFixture[str]
):
  (photos / "empty.png").touch()
  (photos / "text.jpg").write_text("no picture")
  draw(5).save(photos / "short.jpg")
  (photos / "short.jpg").write_bytes((photos / "short.jpg").read_bytes()[:-300])
  (photos / "dangling.png").symlink_to("nowhere.png")
  draw(6).resize((7, 9)).save(photos / "small.png")
  bad = ("dangling.png", "empty.png", "short.jpg", "small.png", "text.jpg")
  result = report("--path", photos, status=1)
  assert len(result["images"]) == 3
  assert [error["path"] for error in result["errors"]] == [str(photos / name) for name in bad]
  lines = capfd.readouterr().err.splitlines()
  assert lines == [
    *(f"eval: {error['path']}: {error['error']}" for error in result["errors"]),
    "eval: 5 of 8 files could not be used",
  ]


def test_images_that_share_batches_end_as_by_themselves(
  report: Callable[..., dict[str, Any]],
  photos: Path,
  monkeypatch: pytest.MonkeyPatch,
  capfd: pytest.CaptureFixture[str],
):
  """As on an accelerator, with files in the middle that cannot be used."""
  (photos / "c.png").touch()
  draw(6).resize((7, 9)).save(photos / "a/d.png")
  alone = report("--path", photos, status=1)
  said = capfd.readouterr()
  monkeypatch.setattr(windows, "count_at_once", lambda window: 2)
  together = report("--path", photos, status=1)
  assert capfd.readouterr().err == said.err
  assert together["errors"] == alone["errors"]
  assert [Path(error["path"]).name for error in alone["errors"]] == ["d.png", "c.png"]
  for got, want in zip(together["images"], alone["images"], strict=True):
    assert got.pop("path") == want.pop("path")
    assert got == pytest.approx(want, rel=1e-3)  # float32, of a batch of another shape


def test_nothing_but_bad_files(report: Callable[..., dict[str, Any]], tmp_path: Path):
  (tmp_path / "x.png").touch()
  result = report("--path", tmp_path / "x.png", status=1)
  assert (result["images"], result["mean"]) == ([], {})


def test_pillow_s_warnings_are_no_clutter(
  run: Callable[..., int],
  photos: Path,
  monkeypatch: pytest.MonkeyPatch,
  capfd: pytest.CaptureFixture[str],
):
  draw(5).save(photos / "exif.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 5)
  # libtiff tells of damage by itself, past Python.
  draw(6).save(photos / "damaged.tif", compression="tiff_lzw")
  data = bytearray((photos / "damaged.tif").read_bytes())
  data[100:110] = bytes(10)
  (photos / "damaged.tif").write_bytes(data)
  # Between the limit and twice it, Pillow warns.
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", SIZE[0] * SIZE[1] - 1)
  assert run("--path", photos) == 1
  stdout, stderr = capfd.readouterr()
  assert re.fullmatch(r"eval: .*damaged.tif: damaged.*\neval: 1 of 5 files .*\n", stderr)
  assert "Mean over 4 images" in stdout


def test_image_too_large_for_the_machine(
  report: Callable[..., dict[str, Any]], photos: Path, monkeypatch: pytest.MonkeyPatch
):
  def fail(*args: object, **options: object) -> None:
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nand a long story")

  monkeypatch.setattr(windows.Analyzer, "start", fail)
  errors = report("--path", photos, status=1)["errors"]
  assert {error["error"] for error in errors} == {
    "24x16 pixels cannot be computed here: RESOURCE_EXHAUSTED: Out of memory"
  }


def test_image_for_more_memory_than_there_is(
  report: Callable[..., dict[str, Any]], photos: Path, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setattr(command, "_BYTES_PER_PIXEL", 10**12)
  errors = report("--path", photos, status=1)["errors"]
  assert len(errors) == 3
  assert re.fullmatch(
    r"24x16 pixels need about 3840\d\d\.\d GB of memory, and .* \d+\.\d GB; reduce the image",
    errors[0]["error"],
  )


def test_window_for_more_memory_than_there_is(report: Callable[..., dict[str, Any]], photos: Path):
  errors = report("--path", photos, "--window", "80000x80000", status=1)["errors"]
  assert len(errors) == 3
  assert re.fullmatch(
    r"images of any size need about 7\d\d\d\.\d GB of memory here, and .* GB; a smaller window.*",
    errors[0]["error"],
  )


def test_image_below_8_pixels(report: Callable[..., dict[str, Any]], photos: Path):
  draw(6).resize((7, 9)).save(photos / "small.png")
  (error,) = report("--path", photos, status=1)["errors"]
  assert error["error"] == "7x9 pixels; at least 8x8 are needed"


def test_image_given_twice_is_evaluated_once(report: Callable[..., dict[str, Any]], photos: Path):
  result = report("--path", photos / "b.png", photos, "--path", photos / "a/../b.png")
  assert [Path(image["path"]).name for image in result["images"]] == ["b.png", "c.png", "d.bmp"]


def test_what_to_install_is_said_once(
  report: Callable[..., dict[str, Any]],
  photos: Path,
  monkeypatch: pytest.MonkeyPatch,
  capfd: pytest.CaptureFixture[str],
):
  for package in ("pillow_heif", "pillow_jxl"):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
  for name in ("1.heic", "2.heic"):
    (photos / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
  (photos / "3.jxl").write_bytes(b"\xff\x0a\xfa\x9f\x01\x91")
  errors = report("--path", photos, status=1)["errors"]
  assert [error["error"] for error in errors] == [
    "a HEIC image, which needs pillow-heif",
    "a HEIC image, which needs pillow-heif",
    "a JPEG XL image, which needs pillow-jxl-plugin",
  ]
  assert capfd.readouterr().err.splitlines() == [
    *(f"eval: {error['path']}: {error['error']}" for error in errors),
    "eval: some formats need packages: pip install pillow-heif pillow-jxl-plugin",
    "eval: 3 of 6 files could not be used",
  ]
  assert data.main(["build", "--images", str(photos), "--out", str(photos / "out")]) == 1
  lines = capfd.readouterr().err.splitlines()
  assert lines[:2] == [f"data: {photos}/{i}.heic: {errors[0]['error']}" for i in (1, 2)]
  assert lines[3:] == [
    "data: some formats need packages: pip install pillow-heif pillow-jxl-plugin"
  ]
  with pytest.raises(DataError, match=r"pillow-heif; remove it, or pip install pillow-heif$"):
    PhotoFolder(photos)[0]


def test_package_that_a_reference_needs(
  photos: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
  monkeypatch.setitem(sys.modules, "pillow_jxl", None)
  (photos / "b.jxl").write_bytes(b"\xff\x0a\xfa\x9f\x01\x91")
  pair = ["--distorted", str(photos / "b.png"), "--reference", str(photos / "b.jxl")]
  assert metrics.main([*pair, "--metrics", "psnr"]) == 1
  assert "packages: pip install pillow-jxl-plugin\n" in capfd.readouterr().err

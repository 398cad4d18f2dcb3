"""Damaged image files by the hundred: each is read or named, and nothing is brought down."""

import io
import itertools
import json
import os
import re
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tifffile
from PIL import Image

from hvsjnd_jax.model.jnd_model import MIN_SIDE_PX
from tests.support.damage import DAMAGES, flip_bits

ROOT = Path(__file__).parents[2]
HEIGHT, WIDTH = 24, 32

# What a file may cost, on a machine that does other work as well.
READ_SECONDS = 10
RUN_SECONDS = 1200
# An image that Pillow still takes has 179 million pixels; 164 million of CMYK took 3.1 GB.
READ_BYTES = 4 * 2**30
RUN_BYTES = 4 * 2**30
# Side of the window that images are evaluated through.
WINDOW = 128


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def _draw_files() -> dict[str, bytes]:
  """A small valid file of every format, in its usual kinds, by name."""
  rng = np.random.RandomState(0)
  # Of few colours, so that compressors have something to do.
  pixels = (rng.randint(0, 4, (HEIGHT, WIDTH, 3)) * 85).astype(np.uint8)
  rgb = Image.fromarray(pixels)
  gray, rgba = rgb.convert("L"), rgb.convert("RGBA")
  exif = Image.Exif()
  exif[0x0112] = 6  # turned by a quarter
  deep = io.BytesIO()
  tifffile.imwrite(deep, pixels.astype(np.uint16) * 257, photometric="rgb", tile=(16, 16))
  return {
    "rgb.png": _encode(rgb, "PNG"),
    "palette.png": _encode(rgb.quantize(16), "PNG", transparency=3),
    "gray16.png": _encode(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "PNG"),
    "rgb.jpg": _encode(rgb, "JPEG", exif=exif),
    "progressive.jpg": _encode(rgb, "JPEG", progressive=True),
    "gray.jpg": _encode(gray, "JPEG"),
    "cmyk.jpg": _encode(rgb.convert("CMYK"), "JPEG"),
    "plain.tif": _encode(rgb, "TIFF"),
    "lzw.tif": _encode(rgb, "TIFF", compression="tiff_lzw"),
    "deflate.tif": _encode(rgba, "TIFF", compression="tiff_adobe_deflate"),
    "jpeg.tif": _encode(rgb, "TIFF", compression="jpeg"),
    "deep.tif": deep.getvalue(),
    "lossy.webp": _encode(rgb, "WEBP"),
    "lossless.webp": _encode(rgba, "WEBP", lossless=True),
    "rgb.bmp": _encode(rgb, "BMP"),
    "moving.gif": _encode(gray, "GIF", save_all=True, append_images=[gray.rotate(90)]),
    "gray.pgm": _encode(gray, "PPM"),
    "rgb.jp2": _encode(rgb, "JPEG2000"),
    "rgb.avif": _encode(rgb, "AVIF"),
  }


FILES = _draw_files()


def _flip_bits_of_head(data: bytes, rng: np.random.Generator) -> bytes:
  return flip_bits(data[:64], rng) + data[64:]


def _swap_heads(data: bytes, rng: np.random.Generator) -> bytes:
  other = list(FILES.values())[rng.integers(len(FILES))]
  length = int(rng.integers(1, 64))
  return other[:length] + data[length:]


def _lie_about_size(data: bytes, rng: np.random.Generator) -> bytes:
  """Another width or height in the file's head: huge, zero, or odd."""
  places = [
    (layout, place)
    for layout, side in itertools.product((">I", "<I", ">H", "<H"), (WIDTH, HEIGHT))
    if (place := data.find(struct.pack(layout, side))) > 0
  ]
  if not places:
    return _flip_bits_of_head(data, rng)
  layout, place = places[rng.integers(len(places))]
  size = struct.calcsize(layout)
  value = int(rng.choice([0, 1, 7, 33, 5000, 13000, 2**15, 2**31 - 1, 2**32 - 1]))
  return data[:place] + struct.pack(layout, value % 256**size) + data[place + size :]


MUTATIONS = (*DAMAGES, _flip_bits_of_head, _swap_heads, _lie_about_size)


def _mend_checksums(data: bytes) -> bytes:
  """A PNG whose chunks' checksums fit again, so that what is in them is looked at."""
  mended = bytearray(data)
  start = 8
  while start + 12 <= len(data):
    end = start + 8 + int.from_bytes(data[start : start + 4])
    mended[end : end + 4] = struct.pack(">I", zlib.crc32(data[start + 4 : end]))
    start = end + 4
  return bytes(mended[: len(data)])


def write_damaged(folder: Path, count: int) -> None:
  """Writes so many files; which, follows from their numbers alone."""
  folder.mkdir()
  for index in range(count):
    rng = np.random.default_rng(index)
    name, data = list(FILES.items())[index % len(FILES)]
    mutation = MUTATIONS[rng.integers(len(MUTATIONS))]
    damaged = mutation(data, rng)
    if name.endswith(".png") and rng.random() < 0.5:
      damaged = _mend_checksums(damaged)
    (folder / f"{index:04d}_{mutation.__name__}_{name}").write_bytes(damaged)


# Reads every file of a folder, and prints a line of JSON for each.
READ = """
import json, sys, time, warnings
from pathlib import Path
from hvsjnd_jax.data.images import ImageError, read_image

warnings.simplefilter("ignore")
for file in sorted(Path(sys.argv[1]).iterdir()):
  start = time.monotonic()
  try:
    pixels = read_image(file)
    assert pixels.dtype == "uint8" and pixels.ndim == 3 and pixels.shape[2] == 3
    size, error = pixels.shape[:2], None
  except ImageError as caught:
    size, error = None, str(caught)
  print(json.dumps([file.name, size, error, time.monotonic() - start]), flush=True)
"""


class Finished(NamedTuple):
  """What became of a process."""

  status: int
  stdout: str
  stderr: str
  peak_bytes: int


def run_python(folder: Path, *arguments: object) -> Finished:
  """Runs Python to its end, or until its time is over."""
  with (folder / "stdout").open("w+") as stdout, (folder / "stderr").open("w+") as stderr:
    process = subprocess.Popen(
      [sys.executable, *map(str, arguments)],
      cwd=ROOT,
      env=os.environ | {"JAX_PLATFORMS": "cpu"},
      stdout=stdout,
      stderr=stderr,
    )
    deadline = threading.Timer(RUN_SECONDS, process.kill)
    deadline.start()
    _, status, usage = os.wait4(process.pid, 0)
    deadline.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)  # nothing is left to wait for
    stdout.seek(0)
    stderr.seek(0)
    peak_bytes = 1024 * usage.ru_maxrss
    return Finished(process.returncode, stdout.read(), stderr.read(), peak_bytes)


def read_all(photos: Path, folder: Path) -> dict[str, tuple[int, int] | str]:
  """The size of each image that can be read, and what is wrong with the others, by name."""
  finished = run_python(folder, "-c", READ, photos)
  assert finished.status == 0, finished.stderr
  assert finished.peak_bytes < READ_BYTES
  found: dict[str, tuple[int, int] | str] = {}
  for line in finished.stdout.splitlines():
    name, size, reason, seconds = json.loads(line)
    assert seconds < READ_SECONDS, name
    found[name] = reason if size is None else tuple(size)
  return found


@pytest.mark.parametrize("count", [400, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_named(tmp_path: Path, count: int):
  photos = tmp_path / "photos"
  write_damaged(photos, count)
  found = read_all(photos, tmp_path)
  assert found.keys() == {file.name for file in photos.iterdir()}
  sizes = {name: size for name, size in found.items() if not isinstance(size, str)}
  reasons = {name: reason for name, reason in found.items() if isinstance(reason, str)}
  assert count / 5 < len(sizes) < count / 2, "mutations that do nothing, or leave nothing"

  for name, size in sizes.items():
    if max(size) > WINDOW:  # as good as any other, and minutes each
      (photos / name).unlink()
  good = {name for name, size in sizes.items() if MIN_SIDE_PX <= min(size) <= max(size) <= WINDOW}
  small = {name for name, size in sizes.items() if min(size) < MIN_SIDE_PX and max(size) <= WINDOW}

  report_file = tmp_path / "report.json"
  options = ("--window", f"{WINDOW}x{WINDOW}", "--json", report_file)
  finished = run_python(tmp_path, "-m", "hvsjnd_jax.eval", "--path", photos, *options)
  assert finished.status == 1, finished.stderr
  assert finished.peak_bytes < RUN_BYTES
  report = json.loads(report_file.read_text())
  assert {Path(image["path"]).name for image in report["images"]} == good
  assert all(np.isfinite(image["psnr"]) for image in report["images"])
  errors = {Path(error["path"]).name: error["error"] for error in report["errors"]}
  assert errors.keys() == reasons.keys() | small
  for name, reason in reasons.items():  # the size in the header comes before what is behind it
    assert errors[name] == reason or re.search("at least 8x8|GB of memory", errors[name])
  wasteful, *lines = finished.stderr.splitlines()  # for headers tell of large images, too
  assert wasteful.startswith(f"eval: --window {WINDOW}x{WINDOW}: computes")
  assert lines == [
    *(f"eval: {error['path']}: {error['error']}" for error in report["errors"]),
    f"eval: {len(errors)} of {len(errors) + len(good)} files could not be used",
  ]

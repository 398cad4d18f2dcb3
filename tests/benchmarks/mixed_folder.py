"""Evaluate thousands of pictures of every kind at once, good and bad, and watch the memory.

  python -m tests.benchmarks.mixed_folder
  python -m tests.benchmarks.mixed_folder --files 500 --folder mixed

A table lists the kinds: what Pillow writes in the formats that are read (and others, for 16 bits of
colour), in every mode, depth, compression, orientation and byte order, with profiles, gamma, alpha
and animation, under names as people give them; and files that are no picture, or a broken one. Each
kind says what becomes of its files: they are evaluated, in the size that the picture has upright;
evaluated with a remark on the profile; named with an error; or passed over for their extension, and
counted. `hvsjnd_jax.eval --jsonl` runs over a folder of them in a process of its own, whose
resident memory is read every two seconds (on Linux).

Exit status: 0 when every file ended as its kind says and memory was flat; 1 when one did not, which
is named, or memory grew.
"""

import argparse
import io
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import skimage.data
import tifffile
from PIL import ExifTags, Image, ImageCms, features
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION

from hvsjnd_jax.cli.command import make_parser, run_command
from hvsjnd_jax.data.color_profiles import SRGB_CURVE, build_profile
from tests.support.colors import ADOBE, P3, SRGB, chunk, encode_deep_png, insert_chunks

_ROOT = Path(__file__).parents[2]

_SAMPLE_SECONDS = 2.0

# Height and width. Few, as a folder of one camera has; all go through one window.
_SIZES = ((16, 96), (96, 96), (48, 64), (33, 17), (64, 40))

_NAMES = (
  "{}", "with spaces {}", "été_日本_{}", "line\nbreak {}", "{} [1]*?", "-{}", "'{}'",
  os.fsdecode(b"not utf-8 \xff {}"), "{}.tar",
)  # fmt: skip

# How far resident memory may grow over the second half of the files: about 1 KiB a record.
_MOST_GROWTH_MIB = 16

# Files evaluated, evaluated with a remark, named with an error, passed over.
Fate = Literal["good", "remarked", "bad", "skipped"]

_ByteOrder = Literal["<", ">"]

Write = Callable[[Image.Image], bytes]


class Kind(NamedTuple):
  """A kind of file.

  Attributes:
    title: What it is, which is part of its files' names.
    extension: That of its files.
    write: Makes a file's bytes of an RGB picture.
    fate: What becomes of its files.
    turned: Whether height and width of the upright picture are the other way round.
  """

  title: str
  extension: str
  write: Write
  fate: Fate = "good"
  turned: bool = False


class _File(NamedTuple):
  """A file that was written, its kind, and the height and width that its picture has upright."""

  path: Path
  kind: Kind
  size: tuple[int, int]


class Outcome(NamedTuple):
  """What became of a folder.

  Attributes:
    counts: The files of each fate, and those that met it.
    disagreements: What went otherwise than the table says, a line each.
    rss_mib: The process's resident memory after a tenth and half of the files, and at the end.
    seconds: How long the process took.
  """

  counts: dict[Fate, tuple[int, int]]
  disagreements: list[str]
  rss_mib: tuple[float, float, float]
  seconds: float


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  parser = make_parser("mixed_folder", __doc__, module="tests.benchmarks.mixed_folder")
  parser.add_argument("--files", type=int, default=10_000, metavar="N", help="how many (10000)")
  parser.add_argument(
    "--folder", type=Path, metavar="DIR", help="where files and records stay (default: nowhere)"
  )
  args = parser.parse_args(argv)
  return run_command("mixed_folder", lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
  with tempfile.TemporaryDirectory() as temporary:
    outcome = measure(args.folder or Path(temporary), args.files)
  for fate, (count, met) in outcome.counts.items():
    print(f"{fate}: {met} of {count}")
  print("RSS after a tenth, half, all: {:.0f}, {:.0f}, {:.0f} MiB".format(*outcome.rss_mib))
  print(f"{outcome.seconds:.0f} s")
  complaints = outcome.disagreements
  _, half, end = outcome.rss_mib
  if end - half > _MOST_GROWTH_MIB:
    complaints.append(f"memory grew from {half:.0f} MiB after half of the files to {end:.0f} MiB")
  for line in complaints:
    print(f"mixed_folder: {line}", file=sys.stderr)
  return int(bool(complaints))


def measure(folder: Path, count: int, *, seconds: float = _SAMPLE_SECONDS) -> Outcome:
  """Fills a folder, evaluates it in a process, and compares what came with the table.

  Args:
    folder: Where the files, the records and what the process prints are written.
    count: How many files.
    seconds: How often its memory is read.
  """
  files = write_files(folder / "files", count)
  records_file = folder / "records.jsonl"
  command = [sys.executable, "-m", "hvsjnd_jax.eval", "--path", str(folder / "files")]
  command += ["--model", "fast", "--lmbda", "10", "--jsonl", str(records_file)]
  start = time.monotonic()
  with (
    (folder / "stdout").open("wb") as stdout,
    (folder / "stderr").open("wb") as stderr,
    subprocess.Popen(command, cwd=_ROOT, stdout=stdout, stderr=stderr) as process,
  ):
    samples = list(_sample_memory(process, records_file, seconds))
  elapsed = time.monotonic() - start
  records = {}
  if records_file.exists():
    lines = map(json.loads, records_file.read_text().splitlines())
    records = {record["path"]: record for record in lines if "path" in record}
  printed = (folder / "stderr").read_bytes()
  verdicts = [(file, _judge(file, records.get(str(file.path)), printed)) for file in files]
  disagreements = [f"{str(file.path)!r}: {verdict}" for file, verdict in verdicts if verdict]
  counts: dict[Fate, tuple[int, int]] = {}
  for fate in ("good", "remarked", "bad", "skipped"):
    fates = [not verdict for file, verdict in verdicts if file.kind.fate == fate]
    counts[fate] = len(fates), sum(fates)
  disagreements += _judge_run(process.returncode, counts, (folder / "stdout").read_bytes())
  rss_mib = (
    next((mib for done, mib in samples if done >= 0.1 * len(records)), math.nan),
    next((mib for done, mib in samples if done >= 0.5 * len(records)), math.nan),
    samples[-1][1] if samples else math.nan,
  )
  return Outcome(counts, disagreements, rss_mib, elapsed)


def _sample_memory(
  process: subprocess.Popen[bytes], records_file: Path, seconds: float
) -> Iterator[tuple[int, float]]:
  """Yields the number of records and the resident memory in MiB, until the process ends."""
  while True:
    try:
      process.wait(seconds)
      return
    except subprocess.TimeoutExpired:
      status = Path(f"/proc/{process.pid}/status").read_text()
    if "VmRSS" not in status:  # it is ending
      continue
    kib = int(status.partition("VmRSS:")[2].split()[0])
    done = records_file.read_bytes().count(b"\n") if records_file.exists() else 0
    yield done, kib / 1024


def _judge(file: _File, record: dict[str, Any] | None, printed: bytes) -> str:
  """Says in what a file's end differs from what its kind says; "" where it does not."""
  fate = file.kind.fate
  if record is None:
    return "" if fate == "skipped" else "neither evaluated nor named"
  if fate == "skipped":
    return "not passed over"
  # Python writes what is not valid in stderr's encoding so.
  named = f"eval: {file.path}: ".encode(errors="backslashreplace")
  if "error" in record:
    if fate != "bad":
      return f"named: {record['error']}"
    return "" if named in printed else "named in the records alone"
  if fate == "bad":
    return "evaluated"
  if (record["height"], record["width"]) != file.size or not math.isfinite(record["psnr"]):
    return f"evaluated as {record['height']}x{record['width']}, PSNR {record['psnr']}"
  remarked = named + b"its colour profile is ignored" in printed
  if remarked != (fate == "remarked"):
    return "its profile is " + ("ignored" if remarked else "not said to be broken")
  return ""


def _judge_run(status: int, counts: dict[Fate, tuple[int, int]], printed: bytes) -> Iterator[str]:
  wanted = int(counts["bad"][0] > 0)
  if status != wanted:
    yield f"exit status {status}, expected {wanted}"
  skipped = counts["skipped"][0]
  if skipped and f"having no image's extension: {skipped} (".encode() not in printed:
    yield f"{skipped} files have no image's extension, and another number is told"


def write_files(folder: Path, count: int) -> list[_File]:
  """Writes so many files, of each kind as many as of any other; all follows from their number."""
  folder.mkdir(parents=True)
  kinds = list_kinds()
  photo = Image.fromarray(skimage.data.chelsea())
  files = []
  for i in range(count):
    kind = kinds[i % len(kinds)]
    rng = np.random.default_rng(i)
    height, width = _SIZES[rng.integers(len(_SIZES))]
    left, top = (int(rng.integers(limit)) for limit in (photo.width - width, photo.height - height))
    picture = photo.crop((left, top, left + width, top + height))
    name = _NAMES[rng.integers(len(_NAMES))].format(f"{i:05d} {kind.title}")
    path = folder / f"{i // 1000}" / f"{name}{kind.extension}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(kind.write(picture))
    files.append(_File(path, kind, (width, height) if kind.turned else (height, width)))
  return files


def list_kinds() -> list[Kind]:
  """Lists every kind."""
  kinds = [*_list_png(), *_list_jpeg(), *_list_tiff(), *_list_others(), *_list_bad()]
  titles = Counter(kind.title for kind in kinds)
  assert max(titles.values()) == 1, titles.most_common(1)
  return kinds


def _save(format_name: str, mode: str = "RGB", **options: Any) -> Write:
  """Makes a writer by Pillow."""

  def write(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    _convert(picture, mode).save(file, format_name, **options)
    return file.getvalue()

  return write


def _convert(picture: Image.Image, mode: str) -> Image.Image:
  """Converts a picture; 16 and 32 bits are filled, and alpha goes from clear to opaque."""
  gray = np.asarray(picture.convert("L"))
  if mode.startswith("I;16"):
    return Image.fromarray((gray * np.uint16(257)).astype(">u2" if mode == "I;16B" else "<u2"))
  if mode == "I":
    return Image.fromarray(gray * np.int32(2**16 + 1))
  if mode == "F":
    return Image.fromarray(gray / np.float32(255))
  if mode == "P":
    return picture.quantize(64)
  if mode == "LAB":
    lab = ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(
      picture, ImageCms.createProfile("sRGB"), lab, outputMode="LAB"
    )
    assert converted is not None
    return converted
  if mode in ("LA", "RGBA", "PA"):
    picture = picture.convert({"LA": "L", "RGBA": "RGB", "PA": "P"}[mode]).convert(mode)
    opacity = np.linspace(0, 255, picture.width).astype(np.uint8)
    picture.putalpha(Image.fromarray(np.tile(opacity, (picture.height, 1))))
    return picture
  return picture.convert(mode)


def _animate(format_name: str, mode: str = "RGB", **options: Any) -> Write:
  """Makes a writer of three frames, the first of which is the picture."""

  def write(picture: Image.Image) -> bytes:
    frames = [_convert(picture.rotate(angle), mode) for angle in (90, 180)]
    save = _save(format_name, mode, save_all=True, append_images=frames, duration=40, **options)
    return save(picture)

  return write


def _add_chunks(write: Write, *chunks: bytes) -> Write:
  return lambda picture: insert_chunks(write(picture), *chunks)


def _save_deep_png(mode: Literal["RGB", "RGBA"]) -> Write:
  """Makes a writer of 16-bit colour, which Pillow does not write."""
  return lambda picture: encode_deep_png(np.asarray(_convert(picture, mode)) * np.uint16(257))


def _save_tifffile(
  dtype: str, *, colors: int, byteorder: _ByteOrder = "<", **options: Any
) -> Write:
  """Makes a writer of deep samples by tifffile."""

  def write(picture: Image.Image) -> bytes:
    samples = np.asarray(picture)[..., :colors].squeeze() * np.dtype(dtype).type(257)
    file = io.BytesIO()
    tifffile.imwrite(
      file, samples, byteorder=byteorder, photometric="rgb" if colors == 3 else "minisblack",
      **options,
    )  # fmt: skip
    return file.getvalue()

  return write


def _orient(orientation: int) -> bytes:
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = orientation
  exif[ExifTags.Base.Make] = "camera"
  return exif.tobytes()


_PROFILES = {
  "sRGB": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
  "sRGB of our own": build_profile(SRGB_CURVE, SRGB),
  "Display P3": build_profile(SRGB_CURVE, P3),
  "Adobe RGB": build_profile((563 / 256,), ADOBE),
}
_GRAY_PROFILE = build_profile((1.8,), None)
_BROKEN_PROFILE = _PROFILES["Display P3"][:200] + bytes(100)

_ORIENTATIONS = range(1, 9)
_TURNED = (5, 6, 7, 8)

_SRGB_CHRM = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def _list_png() -> Iterator[Kind]:
  for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
    yield Kind(f"PNG {mode}", ".png", _save("PNG", mode))
  for level in (0, 9):
    yield Kind(f"PNG of level {level}", ".PNG", _save("PNG", compress_level=level))
  for bits in (1, 2, 4):
    yield Kind(f"PNG of {bits} bits", ".png", _save("PNG", "P", bits=bits))
  yield Kind("PNG of 16-bit RGB", ".png", _save_deep_png("RGB"))
  yield Kind("PNG of 16-bit RGBA", ".png", _save_deep_png("RGBA"))
  yield Kind("PNG with a clear gray", ".png", _save("PNG", "L", transparency=100))
  yield Kind("PNG with a clear color", ".png", _save("PNG", transparency=(0, 0, 0)))
  yield Kind("PNG with a clear index", ".png", _save("PNG", "P", transparency=3))
  yield Kind("PNG with a clear 16-bit gray", ".png", _save("PNG", "I;16", transparency=25700))
  for name, profile in _PROFILES.items():
    yield Kind(f"PNG in {name}", ".png", _save("PNG", icc_profile=profile))
  yield Kind("PNG RGBA in P3", ".png", _save("PNG", "RGBA", icc_profile=_PROFILES["Display P3"]))
  yield Kind("PNG P in P3", ".png", _save("PNG", "P", icc_profile=_PROFILES["Display P3"]))
  yield Kind("PNG L in gray", ".png", _save("PNG", "L", icc_profile=_GRAY_PROFILE))
  yield Kind("PNG I;16 in gray", ".png", _save("PNG", "I;16", icc_profile=_GRAY_PROFILE))
  for gamma in (45455, 100000, 55556):
    numbers = chunk(b"gAMA", struct.pack(">I", gamma))
    yield Kind(f"PNG gAMA {gamma}", ".png", _add_chunks(_save("PNG"), numbers))
  primaries = chunk(b"cHRM", struct.pack(">8I", *_SRGB_CHRM))
  yield Kind("PNG cHRM", ".png", _add_chunks(_save("PNG"), primaries))
  points = chunk(b"cICP", bytes((12, 13, 0, 1)))
  yield Kind("PNG cICP of P3", ".png", _add_chunks(_save("PNG"), points))
  for o in _ORIENTATIONS:
    yield Kind(f"PNG turned {o}", ".png", _save("PNG", exif=_orient(o)), turned=o in _TURNED)
  for mode in ("L", "RGB", "RGBA"):
    yield Kind(f"APNG {mode}", ".apng", _animate("PNG", mode))
  yield Kind("APNG with a default image", ".png", _animate("PNG", default_image=True))


def _list_jpeg() -> Iterator[Kind]:
  for mode in ("1", "L", "RGB", "CMYK", "YCbCr"):
    yield Kind(f"JPEG {mode}", ".jpg", _save("JPEG", mode))
    yield Kind(f"progressive JPEG {mode}", ".jpeg", _save("JPEG", mode, progressive=True))
  for quality in (1, 30, 95, 100):
    yield Kind(f"JPEG of quality {quality}", ".JPG", _save("JPEG", quality=quality))
  for sampling in ("4:4:4", "4:2:2", "4:2:0"):
    title = f"JPEG {sampling.replace(':', '')}"
    yield Kind(title, ".jpe", _save("JPEG", subsampling=sampling))
  yield Kind("JPEG with restarts", ".jfif", _save("JPEG", restart_marker_blocks=2))
  yield Kind("JPEG of RGB samples", ".jpg", _save("JPEG", keep_rgb=True))
  for o in _ORIENTATIONS:
    yield Kind(f"JPEG turned {o}", ".jpg", _save("JPEG", exif=_orient(o)), turned=o in _TURNED)
  yield Kind("JPEG with broken EXIF", ".jpg", _save("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"))
  for name, profile in _PROFILES.items():
    yield Kind(f"JPEG in {name}", ".jpg", _save("JPEG", icc_profile=profile))
  yield Kind("JPEG L in gray", ".jpg", _save("JPEG", "L", icc_profile=_GRAY_PROFILE))
  yield Kind("JPEG with a comment", ".jpg", _save("JPEG", comment=b"a comment " * 100))
  yield Kind("JPEG with a tail", ".jpg", lambda picture: _save("JPEG")(picture) + bytes(100))
  yield Kind("MPO of a telephone", ".jpg", _animate("MPO"))


def _list_tiff() -> Iterator[Kind]:
  for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I;16",
               "I;16B"):  # fmt: skip
    yield Kind(f"TIFF {mode}", ".tif", _save("TIFF", mode))
  for name in ("packbits", "tiff_lzw", "tiff_adobe_deflate", "lzma", "zstd", "jpeg"):
    yield Kind(f"TIFF of {name}", ".tiff", _save("TIFF", compression=name))
  for name in ("packbits", "tiff_lzw", "tiff_adobe_deflate"):
    for mode in ("L", "RGBA", "CMYK", "I;16"):
      yield Kind(f"TIFF {mode} of {name}", ".tif", _save("TIFF", mode, compression=name))
  for name in ("group3", "group4", "tiff_ccitt"):
    yield Kind(f"TIFF of {name}", ".tif", _save("TIFF", "1", compression=name))
  for mode in ("1", "L"):
    white = {PHOTOMETRIC_INTERPRETATION: 0}
    yield Kind(f"TIFF {mode}, white is zero", ".tif", _save("TIFF", mode, tiffinfo=white))
  yield Kind("BigTIFF", ".tif", _save("TIFF", big_tiff=True))
  yield Kind("TIFF of pages", ".tif", _animate("TIFF"))
  for name, profile in _PROFILES.items():
    yield Kind(f"TIFF in {name}", ".tif", _save("TIFF", icc_profile=profile))
  for o in _ORIENTATIONS:
    orientation = {ExifTags.Base.Orientation: o}
    turned = _save("TIFF", tiffinfo=orientation)
    yield Kind(f"TIFF turned {o}", ".tif", turned, turned=o in _TURNED)
  orders: tuple[tuple[_ByteOrder, str], ...] = (("<", "little"), (">", "big"))
  for order, title in orders:
    for colors in (1, 3):
      write = _save_tifffile("uint16", colors=colors, byteorder=order)
      yield Kind(f"TIFF of 16 bits, {colors} colors, {title} end first", ".tif", write)
    tiles = _save_tifffile("uint16", colors=3, byteorder=order, tile=(16, 16))
    yield Kind(f"TIFF of 16-bit tiles, {title} end first", ".tif", tiles)


def _list_others() -> Iterator[Kind]:
  for mode in ("L", "RGB", "RGBA"):
    yield Kind(f"WebP {mode}", ".webp", _save("WEBP", mode))
    yield Kind(f"lossless WebP {mode}", ".webp", _save("WEBP", mode, lossless=True))
    yield Kind(f"moving WebP {mode}", ".webp", _animate("WEBP", mode))
  for mode in ("1", "L", "P", "RGB"):
    yield Kind(f"GIF {mode}", ".gif", _save("GIF", mode))
  yield Kind("GIF with alpha", ".gif", _save("GIF", "RGBA"))
  yield Kind("interlaced GIF", ".gif", _save("GIF", "P", interlace=True))
  yield Kind("moving GIF", ".gif", _animate("GIF"))
  for mode in ("1", "L", "P", "RGB", "RGBA"):
    yield Kind(f"BMP {mode}", ".bmp", _save("BMP", mode))
    yield Kind(f"BMP {mode} of 300 dpi", ".BMP", _save("BMP", mode, dpi=(300, 300)))
  for mode, extension in (("1", ".pbm"), ("L", ".pgm"), ("RGB", ".ppm"), ("I;16", ".pgm"),
                          ("RGB", ".pnm")):  # fmt: skip
    yield Kind(f"PPM {mode} as {extension[1:]}", extension, _save("PPM", mode))
  for mode in ("L", "LA", "RGB", "RGBA", "I;16"):
    yield Kind(f"JPEG 2000 {mode}", ".jp2", _save("JPEG2000", mode))
  yield Kind("lossy JPEG 2000", ".jp2", _save("JPEG2000", irreversible=True, quality_layers=[20]))
  yield Kind("bare JPEG 2000", ".j2k", _save("JPEG2000", no_jp2=True))
  yield Kind("tiled JPEG 2000", ".jp2", _save("JPEG2000", tile_size=(32, 32)))
  yield from _list_avif()
  for name, profile in _PROFILES.items():
    yield Kind(f"WebP in {name}", ".webp", _save("WEBP", icc_profile=profile))
  for o in _ORIENTATIONS:
    yield Kind(f"WebP turned {o}", ".webp", _save("WEBP", exif=_orient(o)), turned=o in _TURNED)
  # Under another format's extension, as browsers save them.
  yield Kind("WebP called JPEG", ".jpg", _save("WEBP"))
  yield Kind("PNG called GIF", ".gif", _save("PNG"))
  yield Kind("JPEG called TIFF", ".tif", _save("JPEG"))
  for title, extension in (("DIB", ".dib"), ("MPO", ".mpo"), ("PCX", ".pcx"), ("QOI", ".qoi"),
                           ("SGI", ".sgi"), ("TGA", ".tga")):  # fmt: skip
    yield Kind(title, extension, _save(title))
  for title, extension, mode in (("ICO", ".ico", "RGBA"), ("DDS", ".dds", "RGB"),
                                 ("PDF", ".pdf", "RGB")):  # fmt: skip
    yield Kind(title, extension, _save(title, mode), "skipped")
  yield Kind("text", ".txt", lambda _: b"no picture", "skipped")
  yield Kind("no extension", "", _save("PNG"), "skipped")


def _list_avif() -> Iterator[Kind]:
  if not features.check("avif"):
    return
  for mode in ("L", "RGB", "RGBA"):
    yield Kind(f"AVIF {mode}", ".avif", _save("AVIF", mode, speed=10))
  yield Kind("moving AVIF", ".avif", _animate("AVIF", speed=10))
  for name, profile in _PROFILES.items():
    yield Kind(f"AVIF in {name}", ".avif", _save("AVIF", icc_profile=profile, speed=10))
  for o in _ORIENTATIONS:
    turned = _save("AVIF", exif=_orient(o), speed=10)
    yield Kind(f"AVIF turned {o}", ".avif", turned, turned=o in _TURNED)


# Of these, half a file is no picture.
_WHOLE: tuple[tuple[str, str, Write], ...] = (
  ("PNG", ".png", _save("PNG")),
  ("JPEG", ".jpg", _save("JPEG")),
  ("progressive JPEG", ".jpg", _save("JPEG", progressive=True)),
  ("TIFF", ".tif", _save("TIFF")),
  ("TIFF of tiff_lzw", ".tif", _save("TIFF", compression="tiff_lzw")),
  ("WebP", ".webp", _save("WEBP")),
  ("lossless WebP", ".webp", _save("WEBP", lossless=True)),
  ("GIF", ".gif", _save("GIF")),
  ("BMP", ".bmp", _save("BMP")),
  ("PPM", ".ppm", _save("PPM")),
  ("JPEG 2000", ".jp2", _save("JPEG2000")),
  *((("AVIF", ".avif", _save("AVIF", speed=10)),) if features.check("avif") else ()),
)


def _list_bad() -> Iterator[Kind]:
  for title, extension in (("PNG", ".png"), ("JPEG", ".jpg"), ("TIFF", ".tif"), ("WEBP", ".webp")):
    broken = _save(title, icc_profile=_BROKEN_PROFILE)
    yield Kind(f"{title} with a broken profile", extension, broken, "remarked")
  wrong = _save("JPEG", icc_profile=_GRAY_PROFILE)
  yield Kind("JPEG with a profile of gray", ".jpg", wrong, "remarked")
  for title, extension, write in _WHOLE:
    yield Kind(f"half a {title}", extension, _damage(write, lambda data: data[: len(data) // 2]),
               "bad")  # fmt: skip
    yield Kind(f"start of a {title}", extension, _damage(write, lambda data: data[:20]), "bad")
    yield Kind(f"{title}, first bytes inverted", extension, _damage(write, _invert_start), "bad")
    yield Kind(f"{title} of no bytes", extension, lambda _: b"", "bad")
  yield Kind("text called JPEG", ".jpg", lambda _: b"<html>404 not found</html>\n" * 20, "bad")
  yield Kind("zeros called PNG", ".png", lambda _: bytes(2000), "bad")
  yield Kind("TGA called PNG", ".png", _save("TGA"))
  yield Kind("DDS called PNG", ".png", _save("DDS"), "bad")
  yield Kind("PDF called JPEG", ".jpg", _save("PDF"), "bad")
  yield Kind("head of a HEIC", ".heic", lambda _: b"\0\0\0\x18ftypheic" + bytes(100), "bad")
  yield Kind("head of a JPEG XL", ".jxl", lambda _: b"\xff\x0a" + bytes(100), "bad")
  yield Kind("PNG of a wrong checksum", ".png", _damage(_save("PNG"), _flip_width), "bad")
  yield Kind("PNG with a huge size", ".png", _damage(_save("PNG"), _claim_to_be_huge), "bad")
  yield Kind("PNG of PQ", ".png",
             _add_chunks(_save("PNG"), chunk(b"cICP", bytes((9, 16, 0, 1)))), "bad")  # fmt: skip
  yield Kind("TIFF F", ".tif", _save("TIFF", "F"), "bad")
  yield Kind("TIFF I", ".tif", _save("TIFF", "I"), "bad")
  yield Kind("7 pixels high", ".png",
             lambda picture: _save("PNG")(picture.resize((40, 7))), "bad")  # fmt: skip
  yield Kind("1 pixel", ".gif", lambda picture: _save("GIF")(picture.resize((1, 1))), "bad")


def _damage(write: Write, change: Callable[[bytes], bytes]) -> Write:
  return lambda picture: change(write(picture))


def _invert_start(data: bytes) -> bytes:
  return bytes(255 - byte for byte in data[:12]) + data[12:]


def _flip_width(data: bytes) -> bytes:
  return data[:19] + bytes([data[19] ^ 1]) + data[20:]


def _claim_to_be_huge(data: bytes) -> bytes:
  return data[:8] + chunk(b"IHDR", struct.pack(">II", 10**6, 10**6) + data[24:29]) + data[33:]


if __name__ == "__main__":
  sys.exit(main())

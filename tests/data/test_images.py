"""Every kind of file that a folder of photographs may hold."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from hvsjnd_jax.data.images import ImageError, find_images, place, read_image, to_uint8, write_png

H, W = 12, 20

RGB = np.random.RandomState(0).randint(0, 256, (H, W, 3)).astype(np.uint8)
GRAY = RGB[..., 0]
ALPHA = RGB[..., 1]
# Every residue of the step from 16 bits to 8 occurs.
GRAY16 = np.linspace(0, 65535, H * W).round().astype(np.uint16).reshape(H, W)
RGB16 = np.random.RandomState(1).randint(0, 65536, (H, W, 3)).astype(">u2")


def _repeat(gray: np.ndarray) -> np.ndarray:
  return np.repeat(gray[..., None], 3, axis=-1).astype(np.uint8)


def _over_white(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  weight = alpha[..., None] / 255
  return np.round(color * weight + 255 * (1 - weight)).astype(np.uint8)


def _png16(samples: np.ndarray, color_type: int) -> bytes:
  """A PNG of 16 bits a channel, which Pillow can read and not write."""

  def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

  header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, color_type, 0, 0, 0)
  rows = b"".join(b"\0" + row.tobytes() for row in samples)
  chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
  return b"\x89PNG\r\n\x1a\n" + chunks


def _palette() -> Image.Image:
  image = Image.fromarray((GRAY % 4).astype(np.uint8), "P")
  image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 200, 210, 220])
  return image


_COLORS = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [200, 210, 220]], np.uint8)


# name, how the file is written, the pixels wanted, and by how many levels they may differ
KINDS = [
  ("rgb.png", lambda f: Image.fromarray(RGB).save(f), RGB, 0),
  ("rgb.bmp", lambda f: Image.fromarray(RGB).save(f), RGB, 0),
  ("rgb.tif", lambda f: Image.fromarray(RGB).save(f, compression="tiff_lzw"), RGB, 0),
  ("rgb.webp", lambda f: Image.fromarray(RGB).save(f, lossless=True), RGB, 0),
  ("gray.png", lambda f: Image.fromarray(GRAY).save(f), _repeat(GRAY), 0),
  ("bilevel.png", lambda f: Image.fromarray(GRAY > 99).save(f), _repeat(255 * (GRAY > 99)), 0),
  ("palette.png", lambda f: _palette().save(f), _COLORS[GRAY % 4], 0),
  (
    "palette_clear.png",
    lambda f: _palette().save(f, transparency=2),
    np.where((GRAY % 4 == 2)[..., None], 255, _COLORS[GRAY % 4]),
    0,
  ),
  (
    "palette_alpha.png",
    lambda f: _palette().save(f, transparency=bytes([255, 128, 0, 64])),
    _over_white(_COLORS[GRAY % 4], np.array([255, 128, 0, 64])[GRAY % 4]),
    1,
  ),
  (
    "gray_clear.png",
    lambda f: Image.fromarray(GRAY).save(f, transparency=int(GRAY[0, 0])),
    _repeat(np.where(GRAY[0, 0] == GRAY, 255, GRAY)),
    0,
  ),
  (
    "la.png",
    lambda f: Image.fromarray(np.stack([GRAY, ALPHA], -1)).save(f),
    _over_white(_repeat(GRAY), ALPHA),
    1,
  ),
  (
    "rgba.png",
    lambda f: Image.fromarray(np.concatenate([RGB, ALPHA[..., None]], -1)).save(f),
    _over_white(RGB, ALPHA),
    1,
  ),
  (
    "cmyk.tif",
    lambda f: Image.fromarray(np.concatenate([255 - RGB, 0 * RGB[..., :1]], -1), "CMYK").save(f),
    RGB,
    0,
  ),
  ("gray16.png", lambda f: Image.fromarray(GRAY16).save(f), _repeat(np.round(GRAY16 / 257)), 0),
  ("gray16.tif", lambda f: Image.fromarray(GRAY16).save(f), _repeat(np.round(GRAY16 / 257)), 0),
  (
    "gray16.pgm",
    lambda f: Image.fromarray(GRAY16.astype(np.int32)).save(f),
    _repeat(np.round(GRAY16 / 257)),
    0,
  ),
  ("rgb16.png", lambda f: f.write_bytes(_png16(RGB16, 2)), np.round(RGB16 / 257), 0),
  ("rgb16.tif", lambda f: tifffile.imwrite(f, RGB16, photometric="rgb"), np.round(RGB16 / 257), 0),
  (
    "float.tif",
    lambda f: Image.fromarray(GRAY.astype(np.float32)).save(f),
    ImageError("32-bit float samples, whose range is unknown"),
    0,
  ),
  (
    "signed.tif",
    lambda f: Image.fromarray(GRAY.astype(np.int32) - 9).save(f),
    ImageError("32-bit samples, whose range is unknown"),
    0,
  ),
  (
    "animation.gif",
    lambda f: _palette().save(f, save_all=True, append_images=[Image.new("P", (W, H))]),
    _COLORS[GRAY % 4],
    0,
  ),
  ("png_named.jpg", lambda f: Image.fromarray(RGB).save(f, "PNG"), RGB, 0),
]


@pytest.mark.parametrize(
  ("name", "write", "wanted", "tolerance"), KINDS, ids=[kind[0] for kind in KINDS]
)
def test_every_kind_of_image_becomes_rgb(
  tmp_path: Path,
  name: str,
  write: Callable[[Path], object],
  wanted: np.ndarray | ImageError,
  tolerance: int,
):
  file = tmp_path / name
  write(file)
  if isinstance(wanted, ImageError):
    with pytest.raises(ImageError, match=str(wanted)):
      read_image(file)
    return
  pixels = read_image(file)
  assert pixels.dtype == np.uint8
  np.testing.assert_allclose(pixels.astype(int), wanted, rtol=0, atol=tolerance)


def test_cmyk_jpeg_is_not_inverted(tmp_path: Path):
  Image.new("CMYK", (W, H), (0, 200, 100, 0)).save(tmp_path / "x.jpg", quality=100)
  wanted = np.broadcast_to((255, 55, 155), (H, W, 3))
  np.testing.assert_allclose(read_image(tmp_path / "x.jpg").astype(int), wanted, atol=3)


# The upright picture, for each value of EXIF's orientation tag (EXIF 2.3, section 4.6.4).
UPRIGHT = {
  1: lambda a: a,
  2: lambda a: a[:, ::-1],
  3: lambda a: a[::-1, ::-1],
  4: lambda a: a[::-1],
  5: lambda a: a.swapaxes(0, 1),
  6: lambda a: np.rot90(a, -1),
  7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
  8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("extension", ["png", "tif"])
def test_exif_rotation_is_undone(tmp_path: Path, orientation: int, extension: str):
  exif = Image.Exif()
  exif[0x0112] = orientation
  file = tmp_path / f"x.{extension}"
  Image.fromarray(RGB).save(file, exif=exif)
  np.testing.assert_array_equal(read_image(file), UPRIGHT[orientation](RGB))


def test_16_bit_gray_is_turned_upright(tmp_path: Path):
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(GRAY16).save(tmp_path / "x.png", exif=exif)
  wanted = np.rot90(_repeat(np.round(GRAY16 / 257)), -1)
  np.testing.assert_array_equal(read_image(tmp_path / "x.png"), wanted)


def test_broken_exif_does_not_cost_the_picture(tmp_path: Path):
  Image.fromarray(RGB).save(tmp_path / "x.png", exif=b"Exif\0\0MM\0*\0\0\0\x08nonsense")
  np.testing.assert_array_equal(read_image(tmp_path / "x.png"), RGB)


def _write_short(file: Path, **options: Any) -> None:
  Image.fromarray(RGB).save(file, **options)
  data = file.read_bytes()
  file.write_bytes(data[: len(data) * 9 // 10])


def _write_side(file: Path, width: int, height: int) -> None:
  Image.new("RGB", (width, height)).save(file)


BAD = [
  ("empty.png", Path.touch, "not an image"),
  ("text.png", lambda f: f.write_text("no picture " * 99), "not an image"),
  ("short.png", _write_short, "damaged or unreadable"),
  ("short.jpg", _write_short, "damaged or unreadable: image file is truncated"),
  ("short.webp", _write_short, "not an image|damaged or unreadable"),
  ("short.tif", lambda f: _write_short(f, compression="tiff_lzw"), "not an image|damaged"),
  ("header.png", lambda f: f.write_bytes(_png16(RGB16, 2)[:40]), "not an image"),
  ("folder.png", Path.mkdir, "a folder that cannot be read"),
  ("pipe.png", os.mkfifo, "not a regular file"),
  ("absent.png", lambda f: None, "No such file"),
  ("dangling.png", lambda f: f.symlink_to(f.with_name("nowhere.png")), "No such file"),
  ("loop.png", lambda f: f.symlink_to(f), "symbolic links"),
  # Formats that Pillow reads by starting a program, or recognises only.
  ("postscript.eps", lambda f: Image.fromarray(RGB).save(f), "not an image"),
  ("array.h5", lambda f: f.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "not an image"),
]


@pytest.mark.parametrize(("name", "write", "reason"), BAD, ids=[bad[0] for bad in BAD])
def test_bad_file_gives_one_line(
  tmp_path: Path,
  name: str,
  write: Callable[[Path], object],
  reason: str,
  capfd: pytest.CaptureFixture[str],
):
  write(tmp_path / name)
  with pytest.raises(ImageError, match=reason) as caught:
    read_image(tmp_path / name)
  assert "\n" not in str(caught.value)
  assert capfd.readouterr() == ("", ""), "nor does a C library write to the terminal"


@pytest.mark.parametrize(
  ("error", "reason"),
  [
    (PermissionError(13, "Permission denied"), "^Permission denied$"),
    (OSError(5, "Input/output error"), "^Input/output error$"),
    (MemoryError(), "damaged or unreadable: MemoryError"),
  ],
  ids=["permission", "disk", "memory"],
)
def test_unreadable_file(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
):
  def fail(*args: object, **options: object) -> None:
    raise error

  (tmp_path / "x.png").touch()
  monkeypatch.setattr(Image, "open", fail)
  with pytest.raises(ImageError, match=reason):
    read_image(tmp_path / "x.png")


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  Image.fromarray(RGB).save(tmp_path / "x.png")
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", H * W // 2 - 1)
  with pytest.raises(ImageError, match="too large to be safe"):
    read_image(tmp_path / "x.png")


def _make_tree(root: Path) -> None:
  for name in ("b.png", "a/z.PNG", "a/c.jpeg", "a/notes.txt", ".hidden", "c/list.csv", "x"):
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def test_folder_is_walked_in_sorted_order(tmp_path: Path):
  _make_tree(tmp_path)
  found, skipped = find_images([tmp_path])
  assert found == [tmp_path / name for name in ("a/c.jpeg", "a/z.PNG", "b.png")]
  assert skipped == [tmp_path / name for name in (".hidden", "a/notes.txt", "c/list.csv", "x")]


def test_file_named_directly_is_listed_whatever_its_name(tmp_path: Path):
  _make_tree(tmp_path)
  assert find_images([tmp_path / "a/notes.txt", tmp_path / "b.png"]) == (
    [tmp_path / "a/notes.txt", tmp_path / "b.png"],
    [],
  )


def test_picture_found_twice_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  _make_tree(tmp_path)
  monkeypatch.chdir(tmp_path / "a")
  found, skipped = find_images([Path("../b.png"), tmp_path, Path("../a"), Path("../x")])
  assert found == [Path("../b.png"), tmp_path / "a/c.jpeg", tmp_path / "a/z.PNG", Path("../x")]
  skipped_names = [file.name for file in skipped]
  assert skipped_names == [".hidden", "notes.txt", "list.csv"], "x was named, after the walk"


def test_links_are_listed_and_loops_are_not_followed(tmp_path: Path):
  _make_tree(tmp_path)
  (tmp_path / "a/loop").symlink_to(tmp_path)
  (tmp_path / "link.png").symlink_to(tmp_path / "b.png")
  (tmp_path / "tree").symlink_to(tmp_path / "a")
  found, _ = find_images([tmp_path])
  assert [file.name for file in found] == ["c.jpeg", "z.PNG", "b.png", "link.png"]
  assert len(find_images([tmp_path / "tree"])[0]) == 2, "a link named directly is followed"


def test_one_subfolder_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  _make_tree(tmp_path)
  monkeypatch.chdir(tmp_path)
  found, skipped = find_images([Path(".")], leave_out=Path("a/../a"))
  assert found == [Path("b.png")]
  assert list(map(str, skipped)) == [".hidden", "c/list.csv", "x"]


def test_subfolder_that_cannot_be_listed_is_no_silence(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  _make_tree(tmp_path)
  scandir = os.scandir

  def refuse(folder: str) -> object:
    if Path(folder).name == "a":
      raise PermissionError(13, "Permission denied", folder)
    return scandir(folder)

  monkeypatch.setattr(os, "scandir", refuse)
  found, _ = find_images([tmp_path])
  assert found == [tmp_path / "a", tmp_path / "b.png"]
  with pytest.raises(ImageError, match="a folder that cannot be read"):
    read_image(found[0])


@pytest.mark.parametrize(
  "name", ["absent", "b.png/below", "n" * 300], ids=["absent", "file", "long"]
)
def test_path_that_does_not_exist(tmp_path: Path, name: str):
  _make_tree(tmp_path)
  with pytest.raises(FileNotFoundError, match=f"no such file or folder: .*{name}"):
    find_images([tmp_path, tmp_path / name])


def test_place_resolves_the_folder_and_keeps_the_name(tmp_path: Path):
  _make_tree(tmp_path)
  (tmp_path / "link.png").symlink_to(tmp_path / "b.png")
  (tmp_path / "tree").symlink_to(tmp_path / "a")
  assert place(tmp_path / "tree/../link.png") == tmp_path.resolve() / "link.png"
  assert place(tmp_path / "tree/z.PNG") == tmp_path.resolve() / "a/z.PNG"


def test_to_uint8_rounds_and_clips():
  values = np.array([-1, 0, 0.4 / 255, 0.6 / 255, 128 / 255, 1, 7])
  np.testing.assert_array_equal(to_uint8(values), [0, 0, 0, 1, 128, 255, 255])


def test_write_png_writes_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  write_png(tmp_path / "x.png", RGB)
  np.testing.assert_array_equal(read_image(tmp_path / "x.png"), RGB)
  before = (tmp_path / "x.png").read_bytes()

  def fail(self: Image.Image, file: Path, **options: object) -> None:
    file.write_bytes(b"half")
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(Image.Image, "save", fail)
  with pytest.raises(OSError, match="No space left"):
    write_png(tmp_path / "x.png", 255 - RGB)
  assert (tmp_path / "x.png").read_bytes() == before
  assert [file.name for file in tmp_path.iterdir()] == ["x.png"]

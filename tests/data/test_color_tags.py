"""What files say of their colours, which of it wins, and what becomes of the pixels."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from hvsjnd_jax.data.color_profiles import SRGB_CURVE, build_profile
from hvsjnd_jax.data.images import ImageError, decode_picture
from tests.support.colors import (
  ADOBE,
  P3,
  PHOTO,
  ROUNDING,
  SRGB,
  chunk,
  convert,
  encode_srgb,
  insert_chunks,
  srgb_curve,
)

ADOBE_PROFILE = build_profile((563 / 256,), ADOBE)
GRAY = PHOTO[..., 1]

# What the photo is in sRGB, if its samples are in these spaces.
IN_ADOBE = encode_srgb(convert(PHOTO, lambda x: x ** (563 / 256), ADOBE))
IN_P3 = encode_srgb(convert(PHOTO, srgb_curve, P3))
IN_LINEAR = encode_srgb(convert(PHOTO, lambda x: x, SRGB))
GRAY_LINEAR = encode_srgb(GRAY / 255)[..., None] + np.zeros(3)
UNCHANGED = PHOTO.astype(float)

# AVIF and JPEG are lossy.
LOSSY = 16


def encode(kind: str, pixels: np.ndarray = PHOTO, **options: Any) -> bytes:
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, kind, **options)
  return file.getvalue()


def _encode_lossy(kind: str, **options: Any) -> bytes:
  return encode(kind, quality=100, subsampling="4:4:4", **options)


def png(*chunks: bytes, pixels: np.ndarray = PHOTO) -> bytes:
  return insert_chunks(encode("PNG", pixels), *chunks)


def cicp(*values: int) -> bytes:
  return chunk(b"cICP", bytes(values))


def iccp(profile: bytes, name: bytes = b"x") -> bytes:
  return chunk(b"iCCP", name + b"\0\0" + zlib.compress(profile))


def gama(gamma: float) -> bytes:
  return chunk(b"gAMA", struct.pack(">I", round(gamma * 1e5)))


def chrm(*chromaticities: tuple[float, float]) -> bytes:
  values = [round(value * 1e5) for pair in chromaticities for value in pair]
  return chunk(b"cHRM", struct.pack(">8I", *values))


TAGGED_SRGB = chunk(b"sRGB", b"\0")

PNGS = {
  "cicp_srgb": ([cicp(1, 13, 0, 1)], UNCHANGED),
  "cicp_p3": ([cicp(12, 13, 0, 1)], IN_P3),
  "cicp_linear": ([cicp(1, 8, 0, 1)], IN_LINEAR),
  "cicp_video": ([cicp(1, 1, 0, 1)], UNCHANGED),
  "iccp": ([iccp(ADOBE_PROFILE)], IN_ADOBE),
  "gama_chrm": ([gama(256 / 563), chrm(*ADOBE)], IN_ADOBE),
  "gama_of_srgb": ([gama(0.45455), chrm(*SRGB)], UNCHANGED),
  "gama_linear": ([gama(1)], IN_LINEAR),
  "chrm_alone": ([chrm(*P3)], IN_P3),
  "cicp_before_iccp": ([cicp(12, 13, 0, 1), iccp(ADOBE_PROFILE)], IN_P3),
  "iccp_before_srgb": ([TAGGED_SRGB, iccp(ADOBE_PROFILE)], IN_ADOBE),
  "srgb_before_gama": ([gama(1), chrm(*P3), TAGGED_SRGB], UNCHANGED),
}


@pytest.mark.parametrize("name", PNGS)
def test_png(name: str):
  chunks, wanted = PNGS[name]
  pixels, alpha, remarks, _ = decode_picture(png(*chunks))
  assert (alpha, remarks) == (None, ())
  np.testing.assert_allclose(pixels.astype(float), wanted, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(
  "chunks",
  [[cicp(1, 8, 0, 1)], [gama(1)], [gama(1), chrm(*P3)], [iccp(build_profile((1.0,), None))]],
  ids=["cicp", "gama", "gama_chrm", "iccp"],
)
def test_gray_png(chunks: list[bytes]):
  pixels, _, remarks, _ = decode_picture(png(*chunks, pixels=GRAY))
  assert not remarks
  np.testing.assert_allclose(pixels.astype(float), GRAY_LINEAR, rtol=0, atol=ROUNDING)


BROKEN = {
  "cicp_unknown": ([cicp(77, 13, 0, 1)], "its code points 77 and 13"),
  "cicp_film": ([cicp(1, 17, 0, 1)], "its code points 1 and 17"),
  "cicp_narrow": ([cicp(1, 13, 0, 0)], "cICP's matrix 0 and range 0 are not 0 and 1"),
  "cicp_short": ([chunk(b"cICP", b"\1")], "the chunk cICP is damaged"),
  "iccp_junk": ([chunk(b"iCCP", b"x\0\0junk")], "the chunk iCCP is damaged"),
  "iccp_method": ([chunk(b"iCCP", b"x\0\7junk")], "the chunk iCCP is damaged"),
  "iccp_checksum": ([iccp(ADOBE_PROFILE)[:-1] + b"!"], "the chunk iCCP is damaged"),
  "iccp_gray": ([iccp(build_profile((1.0,), None))], "it is for GRAY samples"),
  "iccp_short": ([iccp(ADOBE_PROFILE[:150])], "it is damaged, or of an unknown kind"),
  "gama_zero": ([gama(0)], "its gamma is 0"),
  "gama_short": ([chunk(b"gAMA", b"\1")], "the chunk gAMA is damaged"),
  "chrm_zero": ([chrm(*[(0, 0)] * 4)], "its primaries are none"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_colors_of_png_are_told(name: str):
  chunks, reason = BROKEN[name]
  pixels, _, remarks, _ = decode_picture(png(*chunks))
  np.testing.assert_array_equal(pixels, PHOTO)
  (remark,) = remarks
  assert remark.startswith(f"its colour profile is ignored, and sRGB assumed: {reason}")


def _write_nclx(primaries: int, transfer: int) -> bytes:
  avif = _encode_lossy("AVIF")
  place = avif.index(b"colrnclx") + 8
  return avif[:place] + struct.pack(">HH", primaries, transfer) + avif[place + 4 :]


def _write_jp2(profile: bytes) -> bytes:
  jp2 = encode("JPEG2000")
  place = jp2.index(b"colr") - 4
  (size,) = struct.unpack_from(">I", jp2, place)
  box = struct.pack(">I", 11 + len(profile)) + b"colr\2\0\0" + profile
  header = jp2.index(b"jp2h") - 4
  (header_size,) = struct.unpack_from(">I", jp2, header)
  grown = struct.pack(">I", header_size - size + len(box))
  return jp2[:header] + grown + jp2[header + 4 : place] + box + jp2[place + size :]


def _write_exif_adobe() -> bytes:
  """A JPEG whose EXIF leads by way of two folders to "R03", in place of a profile."""
  places = {0x8769: 26, 0xA005: 44}
  folders = [struct.pack("<HHHII", 1, tag, 4, 1, place) for tag, place in places.items()]
  named = struct.pack("<HHHI4s", 1, 1, 2, 4, b"R03")
  exif = b"Exif\0\0II*\0\x08\0\0\0" + b"".join(ifd + bytes(4) for ifd in (*folders, named))
  return _encode_lossy("JPEG", exif=exif)


OTHERS: dict[str, tuple[Callable[[], bytes], np.ndarray, float]] = {
  "tiff": (lambda: encode("TIFF", icc_profile=ADOBE_PROFILE), IN_ADOBE, ROUNDING),
  "webp": (lambda: encode("WEBP", lossless=True, icc_profile=ADOBE_PROFILE), IN_ADOBE, ROUNDING),
  "jpeg": (lambda: _encode_lossy("JPEG", icc_profile=ADOBE_PROFILE), IN_ADOBE, LOSSY),
  "avif_icc": (lambda: _encode_lossy("AVIF", icc_profile=ADOBE_PROFILE), IN_ADOBE, LOSSY),
  "avif_nclx": (lambda: _write_nclx(12, 13), IN_P3, LOSSY),
  "jp2": (lambda: _write_jp2(ADOBE_PROFILE), IN_ADOBE, ROUNDING),
  "exif": (_write_exif_adobe, IN_ADOBE, LOSSY),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats(name: str):
  write, wanted, tolerance = OTHERS[name]
  pixels, _, remarks, _ = decode_picture(write())
  assert not remarks
  assert np.abs(wanted - UNCHANGED).mean() > 3, "the colours are those without a profile"
  difference = np.abs(pixels - wanted)
  assert difference.max() <= tolerance
  assert difference.mean() < 1.5


def _add_cicp_tag(transfer: int) -> bytes:
  """A profile with ICC's tag "cicp", in place of its white."""
  place = ADOBE_PROFILE.index(b"wtpt")
  (offset,) = struct.unpack_from(">I", ADOBE_PROFILE, place + 4)
  tag = b"cicp" + bytes((0, 0, 0, 0, 9, transfer, 0, 1))
  profile = ADOBE_PROFILE[:place] + b"cicp" + ADOBE_PROFILE[place + 4 :]
  return profile[:offset] + tag + profile[offset + len(tag) :]


HDR = {
  "png_pq": (lambda: png(cicp(9, 16, 0, 1)), "PQ"),
  "png_hlg": (lambda: png(cicp(9, 18, 0, 1), TAGGED_SRGB), "HLG"),
  "png_named": (lambda: png(iccp(ADOBE_PROFILE, b"ITUR_2100_PQ_FULL")), "PQ"),
  "png_icc": (lambda: png(iccp(_add_cicp_tag(18))), "HLG"),
  "jpeg_icc": (lambda: encode("JPEG", icc_profile=_add_cicp_tag(16)), "PQ"),
  "avif": (lambda: _write_nclx(9, 16), "PQ"),
}


@pytest.mark.parametrize("name", HDR)
def test_hdr_is_refused(name: str):
  write, curve = HDR[name]
  with pytest.raises(ImageError, match=rf"^an HDR image \({curve}\); tone-map it to sRGB first$"):
    decode_picture(write())


def test_clipping_is_told():
  pixels = np.full((8, 8, 3), (0, 255, 0), np.uint8)
  pixels[:2] = 128
  picture = decode_picture(png(cicp(12, 13, 0, 1), pixels=pixels))
  assert picture.remarks == ("sRGB lacks the colours of 48 of 64 pixels, clipped",)
  clear = np.full((8, 8), 255, np.uint8)
  clear[4:] = 0
  rgba = np.concatenate([pixels, clear[..., None]], axis=-1)
  picture = decode_picture(png(cicp(12, 13, 0, 1), pixels=rgba))
  assert picture.remarks == ("sRGB lacks the colours of 16 of 64 pixels, clipped",)
  np.testing.assert_array_equal(picture.pixels[4:], 255)


# What a press makes of white paper, of each ink alone, and of all inks at once.
PRINTED = {
  (0, 0, 0, 0): (255, 255, 255),
  (255, 0, 0, 0): (60, 140, 200),
  (0, 255, 0, 0): (200, 60, 120),
  (0, 0, 255, 0): (240, 225, 80),
  (0, 0, 0, 255): (40, 35, 35),
  (255, 255, 255, 255): (10, 5, 5),
}


def _build_press_profile() -> bytes:
  """A profile of CMYK whose only table, ICC's lut8Type, has two steps for each ink."""
  grid = np.full((2, 2, 2, 2, 3), 100, np.uint8)
  colors = Image.fromarray(np.array([[*PRINTED.values()]], np.uint8))
  spaces = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"))
  lab = np.asarray(ImageCms.buildTransform(*spaces, "RGB", "LAB").apply(colors))[0]
  for inks, color in zip(PRINTED, lab, strict=True):
    grid[tuple(ink // 255 for ink in inks)] = color + np.array((0, 128, 128), np.uint8)  # wraps
  ramp = bytes(range(256))
  identity = struct.pack(">9i", *(65536 * np.eye(3, dtype=int).ravel()))
  table = b"mft1" + bytes((0, 0, 0, 0, 4, 3, 2, 0)) + identity + ramp * 4
  table += grid.tobytes() + ramp * 3
  head = struct.pack(">I4x4s4s4s4s12x4s", 144 + len(table), b"\2\x20\0\0", b"prtr", b"CMYK",
                     b"Lab ", b"acsp")  # fmt: skip
  illuminant = bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
  tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(table))
  return (head + illuminant).ljust(128, b"\0") + tags + table


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_is_converted_by_its_profile(kind: str):
  inks = np.array([[*PRINTED]], np.uint8).repeat(8, axis=0).repeat(8, axis=1)
  file = io.BytesIO()
  image = Image.fromarray(inks, "CMYK")
  image.save(file, kind, icc_profile=_build_press_profile(), quality=100, subsampling=0)
  pixels, _, remarks, _ = decode_picture(file.getvalue())
  assert not any("ignored" in remark for remark in remarks)
  wanted = np.array([*PRINTED.values()])
  # The profile's colours are rounded to whole steps of CIELAB, which near 0 are many levels.
  np.testing.assert_allclose(pixels[4, 4::8].astype(int), wanted, rtol=0, atol=6)


def test_profile_of_rgb_in_a_cmyk_file(tmp_path: Path):
  Image.new("CMYK", (8, 8), (0, 200, 100, 0)).save(tmp_path / "x.tif", icc_profile=ADOBE_PROFILE)
  picture = decode_picture((tmp_path / "x.tif").read_bytes())
  assert "it is for RGB samples" in picture.remarks[0]
  np.testing.assert_array_equal(picture.pixels[0, 0], (255, 55, 155))


def test_srgb_curve_is_the_one_of_the_standard():
  samples = np.linspace(0, 1, 1001)
  gamma, a, b, c, d = SRGB_CURVE
  found = np.where(samples >= d, (a * samples + b) ** gamma, c * samples)
  np.testing.assert_allclose(found, srgb_curve(samples), atol=1e-8)

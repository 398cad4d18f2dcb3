"""Finds what a file says of its colours: an ICC profile, or code points and numbers for one.

A PNG is read by the rule of its third edition (section 4.3): cICP wins over iCCP, iCCP over sRGB,
and sRGB over gAMA and cHRM.
"""

import struct
import zlib
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from hvsjnd_jax.data.color_profiles import (
  LAB_PROFILE,
  SRGB_CHROMATICITIES,
  SRGB_CURVE,
  Chromaticities,
  Curve,
  ProfileError,
  build_profile,
)
from hvsjnd_jax.data.png_chunks import Chunk, read_ancillary
from hvsjnd_jax.ops.errors import HVSJNDError

_D65 = SRGB_CHROMATICITIES[0]
_C = (0.310, 0.316)

# Code points of ITU-T H.273. Those of unspecified colours, 2, are sRGB's.
_PRIMARIES: dict[int, Chromaticities] = {
  1: SRGB_CHROMATICITIES,
  2: SRGB_CHROMATICITIES,
  4: (_C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
  5: (_D65, (0.64, 0.33), (0.29, 0.6), (0.15, 0.06)),
  6: (_D65, (0.63, 0.34), (0.31, 0.595), (0.155, 0.07)),
  7: (_D65, (0.63, 0.34), (0.31, 0.595), (0.155, 0.07)),
  8: (_C, (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
  9: (_D65, (0.708, 0.292), (0.17, 0.797), (0.131, 0.046)),
  11: ((0.314, 0.351), (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
  12: (_D65, (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
  22: (_D65, (0.63, 0.34), (0.295, 0.605), (0.155, 0.077)),
}
# Still pictures that name a camera's curve (BT.709 and its like) are made for, and shown with,
# sRGB's.
_CURVES: dict[int, Curve] = {
  **dict.fromkeys((1, 2, 6, 13, 14, 15), SRGB_CURVE),
  4: (2.2,),
  5: (2.8,),
  8: (1.0,),
}
_HDR = {16: "PQ", 18: "HLG"}

# The profile of this name stands for PQ (W3C's note "Using the ITU BT.2100 PQ EOTF with PNG").
_PQ_PROFILE = b"ITUR_2100_PQ_FULL"

_ADOBE_RGB = build_profile(
  (563 / 256,), (_D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
)  # Adobe RGB (1998), section 4.3

# libpng takes gammas that are this close for equal, and writers of sRGB round their numbers.
_GAMMA_TOLERANCE = 0.05
_CHROMATICITY_TOLERANCE = 0.01

_LARGEST_PROFILE = 2**26

# Where the properties of an AVIF or JPEG 2000 file stand, before its samples.
_HEAD_BYTES = 2**16


IGNORED = "its colour profile is ignored, and sRGB assumed"


class HDRError(HVSJNDError):
  """Samples are of a high dynamic range, which sRGB lacks. The message names the curve."""


class ColorTags(NamedTuple):
  """What a file says of its colours.

  Attributes:
    profile: An ICC profile; None for sRGB.
    remark: What is wrong with what it says, so that sRGB was assumed; "" where nothing is.
  """

  profile: bytes | None = None
  remark: str = ""


def read_color_tags(image: Image.Image, file: BinaryIO) -> ColorTags:
  """Finds what a file says of its colours.

  Args:
    image: The opened image.
    file: Its file, whose position stays.

  Raises:
    HDRError: If its samples are HDR.
  """
  position = file.tell()  # some of Pillow's decoders read on from here
  try:
    profile = _find_profile(image, file)
  except ProfileError as error:
    return ColorTags(None, f"{IGNORED}: {error}")
  finally:
    file.seek(position)
  if profile is not None and (code_points := _read_cicp_tag(profile)):
    _refuse_hdr(code_points[1])
  return ColorTags(profile)


def _find_profile(image: Image.Image, file: BinaryIO) -> bytes | None:
  if image.mode == "LAB":  # whatever else the file says
    return LAB_PROFILE
  gray = image.mode[:1] in "1LI"
  if image.format == "PNG":
    return _read_png(read_ancillary(file), gray=gray)
  if "nclx_profile" in image.info:  # of pillow-heif
    nclx = image.info["nclx_profile"]
    code_points = (nclx["color_primaries"], nclx["transfer_characteristics"])
  elif image.format == "AVIF":
    code_points = _read_avif(file)
  else:
    code_points = None
  if code_points:
    _refuse_hdr(code_points[1])
  if "icc_profile" in image.info:
    if image.info["icc_profile"] is None:
      raise ProfileError("parts of it are missing")
    return image.info["icc_profile"] or None
  if image.format == "JPEG2000":
    return _read_jp2(file)
  if code_points:
    return _from_code_points(*code_points, gray=gray)
  return _ADOBE_RGB if image.mode == "RGB" and _is_exif_adobe_rgb(image) else None


def _refuse_hdr(transfer: int) -> None:
  if transfer in _HDR:
    raise HDRError(f"an HDR image ({_HDR[transfer]}); tone-map it to sRGB first")


def _from_code_points(primaries: int, transfer: int, *, gray: bool) -> bytes | None:
  if primaries not in _PRIMARIES or transfer not in _CURVES:
    raise ProfileError(f"its code points {primaries} and {transfer} (H.273) are unknown")
  curve, chromaticities = _CURVES[transfer], _PRIMARIES[primaries]
  if curve is SRGB_CURVE and (gray or chromaticities is SRGB_CHROMATICITIES):
    return None
  return build_profile(curve, None if gray else chromaticities)


def _read_cicp_tag(profile: bytes) -> tuple[int, int] | None:
  """Reads the code points that a profile's tag "cicp" holds (ICC.1:2022, section 10.3)."""
  place = profile.find(b"cicp", 128, 4096)
  if place < 0:
    return None
  (offset,) = struct.unpack_from(">I", profile[place + 4 :].ljust(4, b"\0"))
  data = profile[offset : offset + 12]
  return (data[8], data[9]) if len(data) == 12 and data[:4] == b"cicp" else None


def _read_png(chunks: dict[bytes, Chunk], *, gray: bool) -> bytes | None:
  """Reads or builds a PNG's profile."""
  if (chunk := chunks.get(b"cICP")) is not None:
    primaries, transfer, matrix, full_range = _check(chunk, 4)[:4]
    _refuse_hdr(transfer)
    if matrix != 0 or full_range != 1:
      raise ProfileError(f"cICP's matrix {matrix} and range {full_range} are not 0 and 1")
    return _from_code_points(primaries, transfer, gray=gray)
  if (chunk := chunks.get(b"iCCP")) is not None:
    return _read_iccp(_check(chunk, 3))
  if b"sRGB" in chunks:
    return None
  return _read_gama_chrm(chunks, gray=gray)


def _check(chunk: Chunk, length: int) -> bytes:
  if not chunk.sound or len(chunk.data) < length:
    raise ProfileError(f"the chunk {chunk.name.decode()} is damaged")
  return chunk.data


def _read_iccp(data: bytes) -> bytes:
  name, _, compressed = data.partition(b"\0")
  if name == _PQ_PROFILE:
    _refuse_hdr(16)
  try:
    return zlib.decompressobj().decompress(compressed[1:], _LARGEST_PROFILE)
  except zlib.error:
    raise ProfileError("the chunk iCCP is damaged") from None


def _read_gama_chrm(chunks: dict[bytes, Chunk], *, gray: bool) -> bytes | None:
  """Builds a profile, unless the numbers are those that writers of sRGB give."""
  curve, chromaticities = SRGB_CURVE, SRGB_CHROMATICITIES
  srgb = True
  if (chunk := chunks.get(b"gAMA")) is not None:
    (gamma,) = struct.unpack_from(">I", _check(chunk, 4))
    if gamma == 0:
      raise ProfileError("its gamma is 0")
    curve = (1e5 / gamma,)
    srgb = abs(gamma * 2.2e-5 - 1) <= _GAMMA_TOLERANCE
  if (chunk := chunks.get(b"cHRM")) is not None and not gray:
    values = [value / 1e5 for value in struct.unpack_from(">8I", _check(chunk, 32))]
    chromaticities = list(zip(values[::2], values[1::2], strict=True))
    differences = np.abs(np.subtract(chromaticities, SRGB_CHROMATICITIES))
    srgb = srgb and differences.max() <= _CHROMATICITY_TOLERANCE
  return None if srgb else build_profile(curve, None if gray else chromaticities)


def _read_avif(file: BinaryIO) -> tuple[int, int] | None:
  """Reads primaries and transfer of an AVIF's first box "colr" with code points."""
  file.seek(0)
  head = file.read(_HEAD_BYTES)
  place = head.find(b"colrnclx")
  if place < 0 or place + 12 > len(head):
    return None
  return struct.unpack_from(">HH", head, place + 8)


def _read_jp2(file: BinaryIO) -> bytes | None:
  """Reads the profile of a JPEG 2000 file's box "colr" (ISO 15444-1, section I.5.3.3)."""
  file.seek(0)
  head = file.read(_HEAD_BYTES)
  place = head.find(b"colr\2")
  if place < 4:
    return None
  (size,) = struct.unpack_from(">I", head, place - 4)
  file.seek(place + 7)  # the name, the method, and two bytes that say nothing
  return file.read(max(0, size - 11)) or None


def _is_exif_adobe_rgb(image: Image.Image) -> bool:
  """Tells whether a camera says so by the names of DCF 2.0, instead of a profile."""
  try:
    return image.getexif().get_ifd(ExifTags.IFD.Interop).get(1) == "R03"
  except Exception:  # broken EXIF raises many kinds of errors
    return False

"""Converts pixels to sRGB through ICC profiles, with LittleCMS, and builds simple profiles.

The intent is relative colorimetric: white stays white, and a colour that sRGB lacks is clipped.
"""

import functools
import io
import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt16
from PIL import Image, ImageCms

from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.ops.samples import reduce_to_8_bits

# A curve of ICC's parametric type: (g,) is y = x^g; (g, a, b, c, d) is y = (a x + b)^g from d
# on, and c x below.
Curve = tuple[float, ...]

# CIE x and y of white, red, green and blue.
Chromaticities = Sequence[tuple[float, float]]

SRGB_CURVE: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
SRGB_CHROMATICITIES: Chromaticities = ((0.3127, 0.329), (0.64, 0.33), (0.3, 0.6), (0.15, 0.06))

# White of the space that profiles connect through, as ICC.1 writes it.
_D50 = (0.9642, 1.0, 0.8249)

# Bradford's matrix from XYZ to responses of cones, in which white is adapted.
_BRADFORD = np.array(
  [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)

# A profile that moves no colour by more levels than this is sRGB, which several profiles with
# slightly different numbers claim to be, and pixels stay as they are.
_SRGB_LEVELS = 1

# A distance in CIELAB. Rounding, of sRGB and of CIELAB to 8 bits, moves colours by up to 1.5.
_CLIPPED_DELTA_E = 2

_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC

# Without it, LittleCMS interpolates between few colours, which for gray of a linear profile was
# wrong by 10 levels near black. Slower.
_EXACT = ImageCms.Flags.NOOPTIMIZE

_BROKEN = "it is damaged, or of an unknown kind"

# Modes of images, by their profiles' colour space.
_SPACES = {"RGB ": ("RGB",), "GRAY": ("L",), "CMYK": ("CMYK",), "Lab ": ("LAB",)}

# That of samples which are CIELAB's.
LAB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


class ProfileError(HVSJNDError):
  """A colour profile cannot be used. The message gives the reason."""


class Converted(NamedTuple):
  """An image in sRGB.

  Attributes:
    image: The image, of mode RGB, or L if its three channels are equal; of one of 16 bits its
      samples, unless only 8 bits of them could be converted.
    clipped: For each pixel, whether sRGB lacks its colour; None if none is lacking.
    remark: What was lost otherwise; "" where nothing was.
  """

  image: Image.Image | UInt16[np.ndarray, "h w *c"]
  clipped: np.ndarray | None = None
  remark: str = ""


class _Plan(NamedTuple):
  """How RGB, CMYK or CIELAB is converted: to sRGB, and for comparison to CIELAB."""

  to_srgb: ImageCms.ImageCmsTransform
  to_lab: ImageCms.ImageCmsTransform


class _Matrix(NamedTuple):
  """How 16-bit RGB is converted, by the curves and the matrix of a display's profile.

  Attributes:
    curves: The light of each sample, for each channel.
    matrix: From that light to sRGB's.
  """

  curves: np.ndarray
  matrix: np.ndarray

  def apply(self, samples: UInt16[np.ndarray, "h w 3"]) -> UInt16[np.ndarray, "h w 3"]:
    converted = np.empty_like(samples)
    for row, out in zip(samples, converted, strict=True):  # so that floats take little memory
      light = np.stack([curve[row[:, i]] for i, curve in enumerate(self.curves)], axis=-1)
      out[:] = _from_light(light @ self.matrix.T)
    return converted


def convert_to_srgb(image: Image.Image | UInt16[np.ndarray, "h w *c"], profile: bytes) -> Converted:
  """Converts an image to sRGB.

  Args:
    image: An image of mode L, RGB, CMYK or LAB, or 16-bit samples: gray, [H, W], or RGB, [H, W, 3].
    profile: The ICC profile of its samples. Gray images may have one of RGB.

  Raises:
    ProfileError: If the profile is broken, or is for other images.
  """
  if isinstance(image, Image.Image):
    return _convert(image, profile)
  if image.ndim == 2:
    if _read_space(profile) == "GRAY":
      table = _tabulate_gray(profile, "I;16")
      return Converted(image if table is None else table[image])
    image = np.repeat(image[..., None], 3, axis=-1)
  reduced = Image.fromarray(reduce_to_8_bits(image))
  converted = _convert(reduced, profile)
  if converted.image is reduced:
    return converted._replace(image=image)
  matrix = _plan_matrix(profile)
  if matrix is None:
    return converted._replace(remark="its colour profile is applied to 8 of its 16 bits")
  return converted._replace(image=matrix.apply(image))


def _convert(image: Image.Image, profile: bytes) -> Converted:
  space = _read_space(profile)
  if image.mode == "L" and space == "RGB ":
    image = image.convert("RGB")
  if image.mode not in _SPACES.get(space, ()):
    raise ProfileError(f"it is for {space.strip() or 'unknown'} samples")
  if space == "GRAY":
    table = _tabulate_gray(profile, image.mode)
    return Converted(image if table is None else Image.fromarray(table[np.asarray(image)]))
  plan = _plan_conversion(profile, image.mode)
  if plan is None:
    return Converted(image)
  converted = plan.to_srgb.apply(image)
  return Converted(converted, _find_clipped(image, converted, plan))


def _read_space(profile: bytes) -> str:
  return profile[16:20].decode("latin-1")


@functools.lru_cache(maxsize=32)
def _tabulate_gray(profile: bytes, mode: str) -> np.ndarray | None:
  """Lists what each sample of 8 bits (L) or 16 (I;16) is in sRGB; None if the profile is sRGB's."""
  samples, table = _list_samples(mode), _tabulate_curve(profile, mode)
  if mode == "L":
    return None if _is_srgb(table, samples) else table
  return None if _is_srgb(reduce_to_8_bits(table), reduce_to_8_bits(samples)) else table


def _tabulate_curve(profile: bytes, mode: str) -> np.ndarray:
  """Lists what each sample is in sRGB, also if nothing is changed."""
  every = Image.fromarray(_list_samples(mode)[None])
  srgb = ImageCms.ImageCmsProfile(io.BytesIO(build_profile(SRGB_CURVE, None)))
  transform = _build_transform(_open_profile(profile), srgb, mode, mode, _EXACT)
  return np.asarray(transform.apply(every))[0]


def _list_samples(mode: str) -> np.ndarray:
  return np.arange(256, dtype=np.uint8) if mode == "L" else np.arange(2**16, dtype=np.uint16)


@functools.lru_cache(maxsize=8)
def _plan_matrix(profile: bytes) -> _Matrix | None:
  """Prepares the conversion of 16-bit RGB, for which Pillow's LittleCMS has no mode.

  Returns:
    None if the profile is not made of curves and a matrix alone.
  """
  opened: Any = _open_profile(profile).profile
  srgb: Any = _srgb().profile
  tables = [
    source for source, _, _ in opened.clut.values()
  ]  # which would be used, if for any intent
  if any(tables) or not opened.is_matrix_shaper:
    return None
  ours, theirs = (
    np.stack([p.red_colorant[0], p.green_colorant[0], p.blue_colorant[0]], axis=-1)
    for p in (srgb, opened)
  )
  curves = [
    _tabulate_curve(_assemble_profile("GRAY", [(b"kTRC", _read_tag(profile, name))]), "I;16")
    for name in (b"rTRC", b"gTRC", b"bTRC")
  ]
  return _Matrix(_to_light(np.stack(curves)), np.linalg.solve(ours, theirs).astype(np.float32))


def _read_tag(profile: bytes, name: bytes) -> bytes:
  """Reads a tag of a profile that LittleCMS has accepted (ICC.1:2010, section 7.3)."""
  (count,) = struct.unpack_from(">I", profile, 128)
  tags = struct.iter_unpack(">4sII", profile[132 : 132 + 12 * count])
  (found,) = {(offset, size) for tag, offset, size in tags if tag == name}
  return profile[found[0] : sum(found)]


def _to_light(samples: np.ndarray) -> np.ndarray:
  """Converts 16-bit samples of sRGB to light, 0 to 1."""
  gamma, slope, offset, low, edge = SRGB_CURVE
  values = samples / 65535
  light = np.where(values < edge, low * values, (slope * values + offset) ** gamma)
  return light.astype(np.float32)


def _from_light(light: np.ndarray) -> np.ndarray:
  """Converts light to 16-bit samples of sRGB, clipped."""
  gamma, slope, offset, low, edge = SRGB_CURVE
  light = light.clip(0, 1)
  values = np.where(light < low * edge, light / low, (light ** (1 / gamma) - offset) / slope)
  return np.round(65535 * values).astype(np.uint16)


@functools.lru_cache(maxsize=32)
def _plan_conversion(profile: bytes, mode: str) -> _Plan | None:
  """Prepares the conversion of images of a mode; None if the profile is sRGB's."""
  opened = _open_profile(profile)
  # LittleCMS's table for 8 bits is off by more than a gray level where CIELAB is its input.
  flags = _EXACT if mode == "LAB" else ImageCms.Flags.NONE
  to_srgb = _build_transform(opened, _srgb(), mode, "RGB", flags)
  if mode == "RGB":
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    grays = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=-1)
    probe = np.concatenate([colors, grays], axis=1)
    if _is_srgb(np.asarray(to_srgb.apply(Image.fromarray(probe))), probe):
      return None
  return _Plan(to_srgb, _build_transform(opened, _lab(), mode, "LAB", _EXACT))


def _is_srgb(converted: np.ndarray, samples: np.ndarray) -> bool:
  return bool(np.abs(converted.astype(int) - samples).max() <= _SRGB_LEVELS)


def _open_profile(profile: bytes) -> ImageCms.ImageCmsProfile:
  try:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))
  except (OSError, ValueError):
    raise ProfileError(_BROKEN) from None


def _build_transform(
  source: ImageCms.ImageCmsProfile,
  target: ImageCms.ImageCmsProfile,
  source_mode: str,
  target_mode: str,
  flags: ImageCms.Flags = ImageCms.Flags.NONE,
) -> ImageCms.ImageCmsTransform:
  try:
    return ImageCms.buildTransform(source, target, source_mode, target_mode, _INTENT, flags)
  except (ImageCms.PyCMSError, OSError, ValueError):
    raise ProfileError(_BROKEN) from None


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
  return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@functools.cache
def _lab() -> ImageCms.ImageCmsProfile:
  return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))


@functools.cache
def _srgb_to_lab() -> ImageCms.ImageCmsTransform:
  return _build_transform(_srgb(), _lab(), "RGB", "LAB", _EXACT)


def _find_clipped(source: Image.Image, converted: Image.Image, plan: _Plan) -> np.ndarray | None:
  """Marks the pixels whose colour changed: only those at an end of the range can have."""
  pixels = np.asarray(converted)
  extreme = pixels + np.uint8(1) < 2  # 255 becomes 0
  clipped = extreme[..., 0] | extreme[..., 1] | extreme[..., 2]  # `any` takes ten times as long
  if not clipped.any():
    return None
  before = Image.fromarray(np.asarray(source)[clipped][None], source.mode)
  after = Image.fromarray(pixels[clipped][None])
  distance = _measure_delta_e(plan.to_lab.apply(before), _srgb_to_lab().apply(after))
  clipped[clipped] = distance > _CLIPPED_DELTA_E
  return clipped if clipped.any() else None


def _measure_delta_e(first: Image.Image, second: Image.Image) -> np.ndarray:
  """Measures the distances of two rows of CIELAB's colours (CIE 1976)."""
  lightness, a_b = [], []
  for image in (first, second):
    samples = np.asarray(image)[0]
    lightness.append(samples[:, 0].astype(np.float32) * (100 / 255))
    a_b.append(samples[:, 1:].view(np.int8).astype(np.float32))
  return np.sqrt((lightness[0] - lightness[1]) ** 2 + ((a_b[0] - a_b[1]) ** 2).sum(axis=-1))


def build_profile(curve: Curve, chromaticities: Chromaticities | None) -> bytes:
  """Builds a profile of a display with one curve for all channels (ICC.1:2010).

  Args:
    curve: The curve from samples to light.
    chromaticities: Those of white and of the primaries; None for gray.

  Raises:
    ProfileError: If no display has such numbers.
  """
  if not 0.1 <= curve[0] <= 10:
    raise ProfileError(f"its gamma is {curve[0]:g}")
  kind = {1: 0, 5: 3}[len(curve)]
  parametric = b"para" + struct.pack(">IHH", 0, kind, 0) + _pack_fixed(*curve)
  tags = []
  if chromaticities is None:
    tags.append((b"kTRC", parametric))
  else:
    columns = _adapt_primaries(chromaticities).T
    for channel, column in zip((b"r", b"g", b"b"), columns, strict=True):
      tags += [(channel + b"XYZ", _pack_xyz(column)), (channel + b"TRC", parametric)]
  return _assemble_profile("GRAY" if chromaticities is None else "RGB ", tags)


def _assemble_profile(space: str, tags: Sequence[tuple[bytes, bytes]]) -> bytes:
  """Assembles a display's profile of tags and their data; white is added."""
  tags = [(b"wtpt", _pack_xyz(_D50)), *tags]
  table, body = struct.pack(">I", len(tags)), b""
  start = 128 + 4 + 12 * len(tags)
  for name, data in tags:
    table += name + struct.pack(">II", start + len(body), len(data))
    body += data + bytes(-len(data) % 4)
  header = struct.pack(">I4x4s4s4s4s12x4s", start + len(body), b"\4\x30\0\0", b"mntr",
                       space.encode(), b"XYZ ", b"acsp")  # fmt: skip
  header += bytes(24) + struct.pack(">I", _INTENT) + _pack_fixed(*_D50)
  return header.ljust(128, b"\0") + table + body


def _pack_fixed(*values: float) -> bytes:
  """Packs numbers as ICC's s15Fixed16Number."""
  return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _pack_xyz(values: Sequence[float]) -> bytes:
  return b"XYZ " + bytes(4) + _pack_fixed(*values)


def _adapt_primaries(chromaticities: Chromaticities) -> np.ndarray:
  """Computes the XYZ of red, green and blue, in columns, with white adapted to D50."""
  try:
    columns = [(x / y, 1, (1 - x - y) / y) for x, y in chromaticities]
    white, primaries = np.array(columns[0]), np.array(columns[1:]).T
    primaries = primaries * np.linalg.solve(primaries, white)
    gains = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adapted = np.linalg.inv(_BRADFORD) @ (gains[:, None] * (_BRADFORD @ primaries))
  except (ZeroDivisionError, np.linalg.LinAlgError):
    raise ProfileError("its primaries are none") from None
  if not np.abs(adapted).max() < math.inf or np.abs(adapted).max() > 4:
    raise ProfileError("its primaries are none")
  return adapted

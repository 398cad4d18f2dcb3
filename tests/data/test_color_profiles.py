"""Conversion to sRGB, against float64; what is clipped, and which profiles are refused."""

import contextlib
import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from hvsjnd_jax.data.color_profiles import (
  SRGB_CURVE,
  Curve,
  ProfileError,
  build_profile,
  convert_to_srgb,
)
from hvsjnd_jax.ops.samples import reduce_to_8_bits
from tests.support.colors import (
  ADOBE,
  BT2020,
  P3,
  PHOTO,
  ROUNDING,
  SRGB,
  Chromaticities,
  convert,
  encode_srgb,
  srgb_curve,
)

# Every channel at every 5th level, and all grays.
GRID = (
  np.stack(np.meshgrid(*[np.arange(0, 256, 5)] * 3), axis=-1).reshape(-1, 52, 3).astype(np.uint8)
)

# Of 16-bit samples, in levels of 8 bits. Profiles round their matrix to 1/65536, which tells where
# near black: 0.112 was measured.
DEEP_ROUNDING = 0.12

GRAYS = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=-1)

SPACES = {
  "adobe": ((563 / 256,), ADOBE),
  "p3": (SRGB_CURVE, P3),
  "bt2020": (SRGB_CURVE, BT2020),
  "linear": ((1.0,), SRGB),
  "apple": ((1.8,), SRGB),
}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(
  "pixels", [GRID.astype(np.uint8), GRAYS, PHOTO], ids=["all", "gray", "cat"]
)
def test_conversion_agrees_with_float64(space: str, pixels: np.ndarray):
  curve, chromaticities = SPACES[space]
  light = convert(pixels, lambda x: _apply(curve, x), chromaticities)
  converted = convert_to_srgb(Image.fromarray(pixels), build_profile(curve, chromaticities))
  found = np.asarray(converted.image)
  np.testing.assert_allclose(found.astype(float), encode_srgb(light), rtol=0, atol=ROUNDING)
  lacking, plainly = (
    ((light < -margin) | (light > 1 + margin)).any(axis=-1) for margin in (1e-4, 0.1)
  )
  clipped = np.zeros(lacking.shape, bool) if converted.clipped is None else converted.clipped
  assert not (clipped & ~lacking).any(), "a colour that sRGB has is called clipped"
  assert clipped[plainly].all()


def _apply(curve: Curve, samples: np.ndarray) -> np.ndarray:
  return srgb_curve(samples) if curve is SRGB_CURVE else samples ** curve[0]


def test_gray_profile():
  gray = np.arange(256, dtype=np.uint8)[None]
  converted = convert_to_srgb(Image.fromarray(gray), build_profile((1.0,), None))
  assert isinstance(converted.image, Image.Image)
  assert converted.image.mode == "L"
  assert converted.clipped is None
  wanted = encode_srgb(gray / 255)
  np.testing.assert_allclose(np.asarray(converted.image).astype(float), wanted, atol=ROUNDING)


def test_16_bit_gray_is_converted_before_it_is_rounded():
  samples = np.arange(0, 65536, 16, dtype=np.uint16)[None]
  converted = convert_to_srgb(samples, build_profile((1.0,), None))
  wanted = encode_srgb(samples / 65535)
  found = np.asarray(converted.image) / 257
  np.testing.assert_allclose(found, wanted, rtol=0, atol=DEEP_ROUNDING)


def _build_table_profile() -> bytes:
  """A profile of RGB whose only table, ICC's lut8Type, makes every colour a gray of CIELAB."""
  grid = np.full((2, 2, 2, 3), 128, np.uint8)
  grid[..., 0] = np.arange(0, 256, 36).reshape(2, 2, 2)
  ramp = bytes(range(256))
  identity = struct.pack(">9i", *(65536 * np.eye(3, dtype=int).ravel()))
  table = (
    b"mft1" + bytes((0, 0, 0, 0, 3, 3, 2, 0)) + identity + ramp * 3 + grid.tobytes() + ramp * 3
  )
  head = struct.pack(">I4x4s4s4s4s12x4s", 144 + len(table), b"\2\x20\0\0", b"scnr", b"RGB ",
                     b"Lab ", b"acsp")  # fmt: skip
  illuminant = bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
  tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(table))
  return (head + illuminant).ljust(128, b"\0") + tags + table


@pytest.mark.parametrize("space", SPACES)
def test_16_bit_conversion_agrees_with_float64(space: str):
  curve, chromaticities = SPACES[space]
  samples = np.random.default_rng(0).integers(0, 65536, (64, 64, 3), np.uint16)
  samples[:8] >>= 7  # shadows, where 8 bits have three levels
  light = convert(samples / 257, lambda x: _apply(curve, x), chromaticities)
  profile = build_profile(curve, chromaticities)
  converted = convert_to_srgb(samples, profile)
  found = np.asarray(converted.image) / 257
  np.testing.assert_allclose(found, encode_srgb(light), rtol=0, atol=DEEP_ROUNDING)
  reduced = convert_to_srgb(Image.fromarray(reduce_to_8_bits(samples)), profile)
  np.testing.assert_array_equal(converted.clipped, reduced.clipped)
  assert not converted.remark


def test_16_bit_samples_are_reduced_for_a_profile_without_a_matrix():
  samples = np.random.default_rng(0).integers(0, 65536, (8, 8, 3), np.uint16)
  profile = _build_table_profile()
  converted = convert_to_srgb(samples, profile)
  assert isinstance(converted.image, Image.Image)
  reduced = convert_to_srgb(Image.fromarray(reduce_to_8_bits(samples)), profile)
  np.testing.assert_array_equal(np.asarray(converted.image), np.asarray(reduced.image))
  assert converted.remark == "its colour profile is applied to 8 of its 16 bits"


def test_gray_with_a_profile_of_rgb():
  gray = np.arange(256, dtype=np.uint8)[None]
  converted = convert_to_srgb(Image.fromarray(gray), build_profile((1.0,), P3))
  wanted = encode_srgb(gray / 255)[..., None]
  np.testing.assert_allclose(np.asarray(converted.image).astype(float), wanted + [0] * 3, atol=1.1)


@pytest.mark.parametrize(
  ("mode", "profile"),
  [
    ("RGB", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
    ("RGB", build_profile(SRGB_CURVE, SRGB)),
    ("L", build_profile(SRGB_CURVE, None)),
    ("L", build_profile(SRGB_CURVE, SRGB)),
  ],
  ids=["lcms", "ours", "gray", "gray_rgb"],
)
def test_srgb_profile_changes_nothing(mode: str, profile: bytes):
  image = Image.fromarray(PHOTO).convert(mode)
  converted = convert_to_srgb(image, profile).image
  assert isinstance(converted, Image.Image)
  np.testing.assert_array_equal(np.asarray(converted.convert(mode)), np.asarray(image))
  deep = np.asarray(image) * np.uint16(257) + np.uint16(1)
  found = np.asarray(convert_to_srgb(deep, profile).image)
  sides = deep.shape[:2]
  assert (found.reshape(*sides, -1) == deep.reshape(*sides, -1)).all()


def _lab_profile() -> bytes:
  return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


ADOBE_PROFILE = build_profile((563 / 256,), ADOBE)


@pytest.mark.parametrize(
  ("mode", "profile", "reason"),
  [
    ("RGB", b"", "for unknown samples"),
    ("RGB", b"junk" * 50, "for junk samples"),
    ("RGB", ADOBE_PROFILE[:200], "damaged"),
    ("RGB", ADOBE_PROFILE[:36] + b"none" + ADOBE_PROFILE[40:], "damaged"),
    ("RGB", build_profile((2.0,), None), "for GRAY samples"),
    ("CMYK", ADOBE_PROFILE, "for RGB samples"),
    ("RGB", _lab_profile(), "for Lab samples"),
  ],
  ids=["empty", "junk", "short", "no_profile", "gray", "cmyk", "lab"],
)
def test_profile_that_cannot_be_used(mode: str, profile: bytes, reason: str):
  with pytest.raises(ProfileError, match=reason):
    convert_to_srgb(Image.new(mode, (8, 8)), profile)


def test_damaged_profiles_bring_nothing_down():
  image = Image.fromarray(PHOTO)
  used = 0
  for seed in range(300):
    rng = np.random.default_rng(seed)
    damaged = bytearray(ADOBE_PROFILE)
    for place in rng.integers(len(damaged), size=4):
      damaged[place] = rng.integers(256)
    with contextlib.suppress(ProfileError):
      used += convert_to_srgb(image, bytes(damaged)).image.size == image.size
  assert 30 < used < 270


@pytest.mark.parametrize(
  ("curve", "chromaticities"),
  [
    ((0.0,), SRGB),
    ((99.0,), None),
    ((2.2,), ((0.3, 0.0), *SRGB[1:])),
    ((2.2,), ((0.3, 0.3),) * 4),
    ((2.2,), (SRGB[0], (0.64, 0.33), (0.63, 0.33), (0.62, 0.3301))),
  ],
  ids=["zero", "steep", "no_white", "one_color", "far"],
)
def test_display_that_cannot_be(curve: Curve, chromaticities: Chromaticities | None):
  with pytest.raises(ProfileError):
    build_profile(curve, chromaticities)


def test_little_cms_reads_what_is_built():
  profile: Any = ImageCms.ImageCmsProfile(io.BytesIO(build_profile((2.2,), P3))).profile
  assert profile.red_colorant is not None
  assert profile.red_colorant[0] == pytest.approx((0.5151, 0.2412, -0.0011), abs=1e-4)
  assert profile.is_matrix_shaper

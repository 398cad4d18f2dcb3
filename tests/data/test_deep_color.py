"""16-bit colour, of which Pillow by itself keeps the high byte, in every order and layout."""

import io
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from hvsjnd_jax.data.color_profiles import SRGB_CURVE, build_profile
from hvsjnd_jax.data.images import decode_picture
from tests.support.colors import P3, chunk, encode_deep_png, insert_chunks

H, W = 24, 40
RGB = np.random.default_rng(0).integers(0, 65536, (H, W, 3), np.uint16)
ALPHA = np.random.default_rng(1).integers(0, 65536, (H, W), np.uint16)
ALPHA[0], ALPHA[1] = 0, 65535


def over_white(colors: np.ndarray, alpha: np.ndarray = ALPHA) -> np.ndarray:
  share = alpha[..., None] / 65535
  return np.round(colors * share + 65535 * (1 - share))


def check(
  data: bytes, wanted: np.ndarray, *, atol: int = 0, alpha: np.ndarray | None = None
) -> None:
  picture = decode_picture(data)
  assert picture.deep is not None
  assert picture.deep.dtype == np.uint16
  np.testing.assert_allclose(picture.deep.astype(int), wanted, rtol=0, atol=atol)
  np.testing.assert_array_equal(picture.pixels, np.round(picture.deep / 257))
  assert picture.finest is picture.deep
  assert (picture.alpha is None) == (alpha is None)
  if alpha is not None:
    np.testing.assert_array_equal(picture.alpha, np.round(alpha / 257))


def encode_tiff(samples: np.ndarray, **options: Any) -> bytes:
  file = io.BytesIO()
  tifffile.imwrite(file, samples, **{"photometric": "rgb", **options})
  return file.getvalue()


LAYOUTS = [
  pytest.param({"byteorder": order, "compression": kind, **shape}, id=f"{order}-{kind}-{name}")
  for order in "<>"
  for kind in (None, "deflate")
  for name, shape in (("strips", {"rowsperstrip": 5}), ("tiles", {"tile": (16, 16)}))
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiff(layout: dict[str, Any]):
  check(encode_tiff(RGB, **layout), RGB)
  whole = np.concatenate([RGB, ALPHA[..., None]], axis=-1)
  check(
    encode_tiff(whole, extrasamples=["unassalpha"], **layout), over_white(RGB), atol=1, alpha=ALPHA
  )
  check(encode_tiff(whole, extrasamples=["unspecified"], **layout), RGB)


@pytest.mark.parametrize("order", "<>")
def test_colors_multiplied_by_alpha(order: str):
  multiplied = np.round(RGB * (ALPHA[..., None] / 65535)).astype(np.uint16)
  whole = np.concatenate([multiplied, ALPHA[..., None]], axis=-1)
  data = encode_tiff(whole, extrasamples=["assocalpha"], byteorder=order)
  check(data, multiplied + 65535.0 - ALPHA[..., None], atol=2, alpha=ALPHA)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
  "shape", [{"rowsperstrip": 5}, {"tile": (16, 16)}], ids=["strips", "tiles"]
)
def test_planes(order: str, shape: dict[str, Any]):
  """Pillow would read their samples as if they had 8 bits."""
  planes = np.moveaxis(RGB, -1, 0)
  options = {"planarconfig": "separate", "byteorder": order, **shape}
  check(encode_tiff(planes, **options), RGB)
  four = np.concatenate([planes, ALPHA[None]])
  data = encode_tiff(four, extrasamples=["unassalpha"], **options)
  check(data, over_white(RGB), atol=1, alpha=ALPHA)


def test_compressed_planes_keep_the_high_byte():
  """If this fails, Pillow gives the low byte, too, and `_has_compressed_planes` can go."""
  planes = np.moveaxis(RGB, -1, 0)
  picture = decode_picture(encode_tiff(planes, planarconfig="separate", compression="deflate"))
  assert picture.deep is None
  np.testing.assert_array_equal(picture.pixels, RGB >> 8)


def test_cmyk_is_rounded():
  inks = np.concatenate([65535 - RGB, 0 * RGB[..., :1]], axis=-1)
  picture = decode_picture(encode_tiff(inks, photometric="separated"))
  np.testing.assert_array_equal(picture.pixels, np.round(RGB / 257))


def test_png():
  check(encode_deep_png(RGB), RGB)
  whole = np.concatenate([RGB, ALPHA[..., None]], axis=-1)
  check(encode_deep_png(whole), over_white(RGB), atol=1, alpha=ALPHA)
  gray_alpha = np.stack([RGB[..., 0], ALPHA], axis=-1)
  check(encode_deep_png(gray_alpha), over_white(RGB[..., :1]) + np.zeros(3), atol=1, alpha=ALPHA)
  text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**21)))
  check(insert_chunks(encode_deep_png(RGB), text), RGB)


@pytest.mark.parametrize("orientation", [3, 6])
def test_rotation(orientation: int):
  exif = Image.Exif()
  exif[0x0112] = orientation
  wanted = np.rot90(RGB, {3: 2, 6: -1}[orientation])
  rotation = chunk(b"eXIf", exif.tobytes()[6:])
  check(insert_chunks(encode_deep_png(RGB), rotation), wanted)
  check(encode_tiff(RGB, extratags=[(274, "H", 1, orientation, True)]), wanted)
  gray_alpha = np.stack([RGB[..., 0], ALPHA], axis=-1)
  turned = over_white(wanted[..., :1], np.rot90(ALPHA, {3: 2, 6: -1}[orientation])) + np.zeros(3)
  turned_alpha = np.rot90(ALPHA, {3: 2, 6: -1}[orientation])
  data = insert_chunks(encode_deep_png(gray_alpha), rotation)
  check(data, turned, atol=1, alpha=turned_alpha)


def test_ppm():
  data = f"P6 {W} {H} 65535\n".encode() + RGB.astype(">u2").tobytes()
  check(data, RGB)


def test_gray():
  file = io.BytesIO()
  Image.fromarray(RGB[..., 0]).save(file, "PNG")
  check(file.getvalue(), RGB[..., :1] + np.zeros(3))


def test_profile_is_applied_to_16_bits():
  profile = build_profile(SRGB_CURVE, P3)
  steps = np.linspace(20000, 20256, H * W).astype(np.uint16).reshape(H, W, 1).repeat(3, axis=-1)
  data = encode_tiff(steps, iccprofile=profile)
  check(data, steps, atol=8)  # grays stay


def test_animation_keeps_the_high_byte():
  """Pillow blends frames, of which it has the high bytes alone."""
  control = chunk(b"acTL", (2).to_bytes(4) + bytes(4))
  frame = chunk(b"fcTL", bytes(4) + W.to_bytes(4) + H.to_bytes(4) + bytes(14))
  picture = decode_picture(insert_chunks(encode_deep_png(RGB), control, frame))
  np.testing.assert_array_equal(picture.pixels, RGB >> 8)
  assert picture.deep is None

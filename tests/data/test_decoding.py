"""Deep gray, CIELAB, transparency, animations, and chunks that cost no picture."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from hvsjnd_jax.data.images import ImageError, decode_picture
from tests.support.colors import PHOTO, chunk, encode_deep_png, encode_srgb, insert_chunks

GRAY = PHOTO[..., 0]
GRAY16 = (np.arange(GRAY.size, dtype=np.uint32) * 65535 // (GRAY.size - 1)).astype(np.uint16)
GRAY16 = GRAY16.reshape(GRAY.shape)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


PNG = encode(Image.fromarray(PHOTO))

TEXTS = {
  "compressed": lambda: chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**21))),
  "international": lambda: chunk(b"iTXt", b"note\0\1\0\0\0" + zlib.compress(b"x" * 2**21)),
  "damaged": lambda: chunk(b"tEXt", b"Comment\0hello")[:-1] + b"!",
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
def test_text_does_not_cost_the_picture(text: str, behind: bool):
  data = TEXTS[text]()
  png = PNG[:-12] + data + PNG[-12:] if behind else insert_chunks(PNG, data)
  pixels, alpha, remarks, _ = decode_picture(png)
  np.testing.assert_array_equal(pixels, PHOTO)
  assert (alpha, remarks) == (None, ())


def test_much_text_keeps_transparency_and_rotation():
  exif = Image.Exif()
  exif[0x0112] = 6
  image = Image.fromarray(PHOTO)
  png = encode(image, transparency=tuple(PHOTO[0, 0].tolist()), exif=exif)
  pixels = decode_picture(insert_chunks(png, TEXTS["compressed"]())).pixels
  np.testing.assert_array_equal(pixels, decode_picture(png).pixels)
  assert pixels.shape[:2] == PHOTO.shape[1::-1]


def test_large_profile_is_read():
  """Pillow refuses a profile of more than 1 MB in a PNG."""
  profile = b"junk" * 2**19
  png = insert_chunks(PNG, chunk(b"iCCP", b"x\0\0" + zlib.compress(profile)))
  assert "it is for junk samples" in decode_picture(png).remarks[0]


def test_damaged_picture_stays_damaged():
  with pytest.raises(ImageError, match="damaged or unreadable"):
    decode_picture(insert_chunks(PNG, TEXTS["compressed"]())[:-200])


@pytest.mark.parametrize("level", [0, 7, 65535])
def test_transparency_of_16_bit_gray(level: int):
  samples = GRAY16.copy()
  samples[3:7] = level
  png = encode(Image.fromarray(samples))
  pixels, alpha, *_ = decode_picture(insert_chunks(png, chunk(b"tRNS", struct.pack(">H", level))))
  wanted = np.where(samples == level, 255, np.round(samples / 257))
  np.testing.assert_array_equal(pixels, np.repeat(wanted[..., None], 3, axis=-1))
  np.testing.assert_array_equal(alpha, np.where(samples == level, 0, 255))


def test_transparency_of_16_bit_color():
  samples = np.random.RandomState(0).randint(0, 65536, (8, 9, 3)).astype(np.uint16)
  clear = samples[2, 3]
  png = encode_deep_png(samples, chunk(b"tRNS", clear.astype(">u2").tobytes()))
  samples[2, 3] = 65535
  picture = decode_picture(png)
  np.testing.assert_array_equal(picture.deep, samples)
  np.testing.assert_array_equal(picture.alpha == 0, (samples == 65535).all(axis=-1))


@pytest.mark.parametrize("kind", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("samples", [GRAY, GRAY16], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("byte_order", ["<", ">"], ids=["little", "big"])
def test_white_is_zero(kind: str, samples: np.ndarray, byte_order: Literal["<", ">"]):
  file = io.BytesIO()
  largest = np.iinfo(samples.dtype).max
  stored = largest - samples if kind == "miniswhite" else samples
  stored = stored.astype(samples.dtype)
  tifffile.imwrite(file, stored, photometric=kind, byteorder=byte_order)
  wanted = np.round(samples / (largest / 255))[..., None] + np.zeros(3)
  np.testing.assert_array_equal(decode_picture(file.getvalue()).pixels, wanted)


def _compress_by_lzw(data: bytes) -> bytes:
  """LZW whose table is cleared before it grows, so that all codes are literals of 9 bits."""
  codes = [code for i in range(0, len(data), 200) for code in (256, *data[i : i + 200])]
  bits = "".join(f"{code:09b}" for code in (*codes, 257))
  bits += "0" * (-len(bits) % 8)
  return int(bits, 2).to_bytes(len(bits) // 8)


@pytest.mark.parametrize(
  ("compression", "compress"), [(5, _compress_by_lzw), (8, zlib.compress)], ids=["lzw", "deflate"]
)
def test_compressed_white_is_zero_with_the_high_byte_first(
  compression: int, compress: Callable[[bytes], bytes]
):
  height, width = len(GRAY16), len(GRAY16[0])
  body = compress((65535 - GRAY16).astype(">u2").tobytes())
  entries = [(256, width), (257, height), (258, 16), (259, compression), (262, 0), (273, 122)]
  entries += [(277, 1), (278, height), (279, len(body))]
  tags = b"".join(
    struct.pack(">HHI", tag, 4 if tag in (273, 279) else 3, 1)
    + (struct.pack(">I", value) if tag in (273, 279) else struct.pack(">HH", value, 0))
    for tag, value in entries
  )
  data = b"MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + tags + bytes(4)
  picture = decode_picture(data.ljust(122, b"\0") + body)
  np.testing.assert_array_equal(picture.deep, GRAY16[..., None].repeat(3, axis=-1))


def test_12_bit_gray():
  samples = (GRAY16[:, :32] >> 4).astype(np.uint32)
  packed = (samples[:, ::2] << 12) | samples[:, 1::2]
  body = b"".join(int(pair).to_bytes(3) for pair in packed.ravel())
  height, width = samples.shape
  entries = (256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1)
  tags = b"".join(
    struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value)
    for tag, value in (*entries, (278, height), (279, len(body)))
  )
  data = b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + tags + bytes(4)
  pixels = decode_picture(data.ljust(122, b"\0") + body).pixels
  np.testing.assert_array_equal(pixels[..., 0], np.round(samples / 4095 * 255))


def test_first_frame_of_an_animation_and_not_its_default_image():
  frames = [Image.fromarray(pixels) for pixels in (255 - PHOTO, PHOTO, PHOTO // 2)]
  animation = encode(frames[0], save_all=True, append_images=frames[1:], default_image=True)
  np.testing.assert_array_equal(decode_picture(animation).pixels, PHOTO)
  animation = encode(frames[0], save_all=True, append_images=frames[1:])
  np.testing.assert_array_equal(decode_picture(animation).pixels, 255 - PHOTO)


def test_alpha_is_returned():
  alpha = GRAY.copy()
  image = Image.fromarray(np.concatenate([PHOTO, alpha[..., None]], axis=-1))
  np.testing.assert_array_equal(decode_picture(encode(image)).alpha, alpha)
  assert decode_picture(PNG).alpha is None


def test_pillow_still_limits_text():
  """If this fails, Pillow reads what `drop_unneeded` is for."""
  with pytest.raises(ValueError, match="MAX_TEXT_CHUNK"):
    Image.open(io.BytesIO(insert_chunks(PNG, TEXTS["compressed"]())))
  assert PngImagePlugin.MAX_TEXT_CHUNK == 2**20


@pytest.mark.parametrize("profile", [None, b"of another space"])
def test_cielab(profile: bytes | None):
  """Gray, by CIE's formula for L*; and a color that sRGB lacks."""
  samples = np.zeros((8, 256, 3), np.uint8)
  samples[..., 0] = np.arange(256)
  image = Image.fromarray(samples, "LAB")
  picture = decode_picture(encode(image, "TIFF", icc_profile=profile))
  assert not picture.remarks
  stars = np.arange(256) / 2.55
  light = np.where(stars > 8, ((stars + 16) / 116) ** 3, stars * 27 / 24389)
  wanted = np.round(encode_srgb(light)).repeat(3).reshape(1, 256, 3)
  np.testing.assert_array_equal(picture.pixels, wanted.repeat(8, axis=0))

  samples[:, :2] = 128, 127, 100
  image = Image.fromarray(samples, "LAB")
  (remark,) = decode_picture(encode(image, "TIFF", icc_profile=profile)).remarks
  assert remark == "sRGB lacks the colours of 16 of 2048 pixels, clipped"

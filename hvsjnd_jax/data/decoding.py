"""Decodes a picture's file into upright 8-bit sRGB."""

import contextlib
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

from hvsjnd_jax.data.color_profiles import ProfileError, convert_to_srgb, reduce_to_8_bits
from hvsjnd_jax.data.color_tags import IGNORED, ColorTags, read_color_tags
from hvsjnd_jax.data.formats import ImageError, open_image
from hvsjnd_jax.data.png_chunks import drop_unneeded
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.ops.types import Pixels

_GRAY = ("1", "L", "LA", "La")


class Picture(NamedTuple):
  """A picture as it was read.

  Attributes:
    pixels: Upright 8-bit sRGB, transparent pixels laid over white.
    alpha: Their opacity; None where the file has none.
    remarks: What a user should know of how it was read, a line each.
  """

  pixels: Pixels
  alpha: UInt8[np.ndarray, "h w"] | None = None
  remarks: tuple[str, ...] = ()


def decode(file: BinaryIO) -> Picture:
  """Decodes a picture.

  Raises:
    ImageError: If its kind cannot be used.
    Exception: Of any class, if it is damaged.
  """
  try:
    return _decode(file, file)
  except HVSJNDError:
    raise
  except Exception:
    mended = drop_unneeded(file)
    if mended is not None:
      with contextlib.suppress(Exception):  # the first one tells what is wrong
        return _decode(mended, file)
    raise


def _decode(file: BinaryIO, tagged: BinaryIO) -> Picture:
  """Decodes the picture of one file, whose colours are named by another or the same one."""
  with open_image(file) as opened:
    tags = read_color_tags(opened, tagged)
    if opened.info.get("default_image"):  # what shows in place of the animation is no frame of it
      opened.seek(1)
    if [tile.args for tile in opened.tile] == ["RGB;16B"] and "transparency" in opened.info:
      # Pillow keeps the high bytes of the pixels, and all of the colour that is transparent.
      opened.info["transparency"] = tuple(level >> 8 for level in opened.info["transparency"])
    opened.load()
    image = _turn_upright(opened)
    if image.mode == "F":
      raise ImageError("32-bit float samples, whose range is unknown; convert it to 8 or 16 bits")
    if image.mode.startswith("I"):
      image, alpha = _read_deep_gray(image, opened)
    else:
      image, alpha = _split_alpha(image)
  return _compose(image, alpha, tags)


def _turn_upright(image: Image.Image) -> Image.Image:
  try:
    return ImageOps.exif_transpose(image)
  except Exception:  # broken EXIF raises many kinds of errors, and the pixels are still good
    return image


def _read_deep_gray(
  image: Image.Image, opened: Image.Image
) -> tuple[Image.Image, Image.Image | None]:
  """Returns 16-bit gray, which Pillow reads from some formats as 32-bit, and its alpha."""
  samples = np.asarray(image).astype(np.int64)
  if samples.min() < 0 or samples.max() > 65535:
    raise ImageError("32-bit samples, whose range is unknown; convert it to 8 or 16 bits")
  clear = opened.info.get("transparency")
  alpha = None if clear is None else Image.fromarray(np.uint8(255) * (samples != clear))
  tiff = getattr(opened, "tag_v2", {})
  if tiff.get(BITSPERSAMPLE) == (12,):
    samples = (samples * 65535 + 2047) // 4095
  if tiff.get(PHOTOMETRIC_INTERPRETATION) == 0:  # white is zero, which Pillow heeds up to 8 bits
    samples = 65535 - samples
  return Image.fromarray(samples.astype(np.uint16)), alpha


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
  """Returns the colours as L, RGB, CMYK or LAB, and the alpha."""
  gray = image.mode in _GRAY
  alpha = None
  if image.has_transparency_data:
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    if gray:
      image = image.getchannel("R")
  if image.mode not in ("L", "RGB", "CMYK", "LAB"):
    image = image.convert("L" if gray else "RGB")
  return image, alpha


def _compose(image: Image.Image, alpha: Image.Image | None, tags: ColorTags) -> Picture:
  """Converts colours to sRGB, and lays them over white."""
  clipped, remarks = None, [tags.remark] if tags.remark else []
  if tags.profile is not None:
    try:
      image, clipped = convert_to_srgb(image, tags.profile)
    except ProfileError as error:
      remarks.append(f"{IGNORED}: {error}")
  if clipped is not None:
    count = np.count_nonzero(clipped if alpha is None else clipped & (np.asarray(alpha) > 0))
    if count:
      remarks.append(f"sRGB lacks the colours of {count} of {clipped.size} pixels, clipped")
  image = reduce_to_8_bits(image)
  if image.mode != "RGB":  # else it would be copied
    image = image.convert("RGB")
  if alpha is not None:
    image.putalpha(alpha)
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
  opacity = None if alpha is None else np.asarray(alpha)
  return Picture(np.asarray(image), opacity, tuple(remarks))

"""Decodes a picture's file into upright sRGB, of 8 bits and of 16 where the file has them."""

import contextlib
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, ImageFile, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

from hvsjnd_jax.data.color_profiles import ProfileError, convert_to_srgb
from hvsjnd_jax.data.color_tags import IGNORED, ColorTags, read_color_tags
from hvsjnd_jax.data.deep_color import read_deep_color
from hvsjnd_jax.data.formats import ImageError, open_image
from hvsjnd_jax.data.png_chunks import drop_unneeded
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.ops.samples import reduce_to_8_bits
from hvsjnd_jax.ops.types import DeepPixels, Pixels

_GRAY = ("1", "L", "LA", "La")

# An image of 8 bits, or the samples of one of 16: gray, [H, W], or RGB, [H, W, 3].
_Image = Image.Image | UInt16[np.ndarray, "h w *c"]

# Of as many bits as the image that it belongs to, or of 8.
_Alpha = UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]

# Pixels are laid over white in so many rows at a time, so that floats take little memory.
_ROWS_AT_ONCE = 64


class Picture(NamedTuple):
  """A picture as it was read.

  Attributes:
    pixels: Upright 8-bit sRGB, transparent pixels laid over white.
    alpha: Their opacity; None where the file has none.
    remarks: What a user should know of how it was read, a line each.
    deep: The same in 16 bits, of which `pixels` are rounded; None where the file has 8.
  """

  pixels: Pixels
  alpha: UInt8[np.ndarray, "h w"] | None = None
  remarks: tuple[str, ...] = ()
  deep: DeepPixels | None = None

  @property
  def finest(self) -> Pixels | DeepPixels:
    """The pixels in as many bits as there are: what maps are computed from."""
    return self.pixels if self.deep is None else self.deep


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

  def reopen() -> ImageFile.ImageFile:
    file.seek(0)
    return open_image(file)

  with open_image(file) as opened:
    tags = read_color_tags(opened, tagged)
    if opened.info.get("default_image"):  # what shows in place of the animation is no frame of it
      opened.seek(1)
    deep = read_deep_color(opened, reopen, _turn_upright)
    if deep is not None:
      image, alpha = _split_deep_alpha(deep, opened)
    else:
      image, alpha = _read(opened)
  return _compose(image, alpha, tags)


def _turn_upright(image: Image.Image) -> Image.Image:
  try:
    return ImageOps.exif_transpose(image)
  except Exception:  # broken EXIF raises many kinds of errors, and the pixels are still good
    return image


def _split_deep_alpha(
  samples: UInt16[np.ndarray, "h w channels"], opened: ImageFile.ImageFile
) -> tuple[_Image, _Alpha | None]:
  """Returns the colours, CMYK as an image of 8 bits, and the alpha."""
  if opened.mode == "CMYK":
    return Image.fromarray(reduce_to_8_bits(samples), "CMYK"), None
  if samples.shape[-1] == 4:
    return samples[..., :3], samples[..., 3]
  clear = opened.info.get("transparency")
  alpha = None if clear is None else np.uint8(255) * (samples != clear).any(axis=-1)
  return samples, alpha


def _read(opened: ImageFile.ImageFile) -> tuple[_Image, _Alpha | None]:
  """Returns the colours as L, RGB, CMYK or LAB, or as 16-bit gray; and the alpha."""
  if [tile.args for tile in opened.tile] == ["RGB;16B"] and "transparency" in opened.info:
    # Pillow keeps the high bytes of the pixels, and all of the colour that is transparent.
    opened.info["transparency"] = tuple(level >> 8 for level in opened.info["transparency"])
  opened.load()
  image = _turn_upright(opened)
  if image.mode == "F":
    raise ImageError("32-bit float samples, whose range is unknown; convert it to 8 or 16 bits")
  if image.mode.startswith("I"):
    return _read_deep_gray(image, opened)
  return _split_alpha(image)


def _read_deep_gray(
  image: Image.Image, opened: Image.Image
) -> tuple[UInt16[np.ndarray, "h w"], UInt8[np.ndarray, "h w"] | None]:
  """Returns 16-bit gray, which Pillow reads from some formats as 32-bit, and its alpha."""
  samples = np.asarray(image).astype(np.int64)
  if samples.min() < 0 or samples.max() > 65535:
    raise ImageError("32-bit samples, whose range is unknown; convert it to 8 or 16 bits")
  clear = opened.info.get("transparency")
  alpha = None if clear is None else np.uint8(255) * (samples != clear)
  tiff = getattr(opened, "tag_v2", {})
  if tiff.get(BITSPERSAMPLE) == (12,):
    samples = (samples * 65535 + 2047) // 4095
  if tiff.get(PHOTOMETRIC_INTERPRETATION) == 0:  # white is zero, which Pillow heeds up to 8 bits
    samples = 65535 - samples
  return samples.astype(np.uint16), alpha


def _split_alpha(image: Image.Image) -> tuple[Image.Image, UInt8[np.ndarray, "h w"] | None]:
  """Returns the colours as L, RGB, CMYK or LAB, and the alpha."""
  gray = image.mode in _GRAY
  alpha = None
  if image.has_transparency_data:
    image = image.convert("RGBA")
    alpha = np.asarray(image.getchannel("A"))
    if gray:
      image = image.getchannel("R")
  if image.mode not in ("L", "RGB", "CMYK", "LAB"):
    image = image.convert("L" if gray else "RGB")
  return image, alpha


def _compose(image: _Image, alpha: _Alpha | None, tags: ColorTags) -> Picture:
  """Converts colours to sRGB, and lays them over white."""
  remarks = [tags.remark] if tags.remark else []
  if tags.profile is not None:
    try:
      image, clipped, remark = convert_to_srgb(image, tags.profile)
    except ProfileError as error:
      remarks.append(f"{IGNORED}: {error}")
    else:
      remarks += [remark] if remark else []
      remarks += _tell_clipped(clipped, alpha)
  if isinstance(image, Image.Image):
    alpha = reduce_to_8_bits(alpha) if alpha is not None and alpha.dtype == np.uint16 else alpha
    return Picture(_lay_over_white(image, alpha), alpha, tuple(remarks))
  deep, opacity = _lay_deep_over_white(image, alpha)
  return Picture(reduce_to_8_bits(deep), opacity, tuple(remarks), deep)


def _tell_clipped(clipped: np.ndarray | None, alpha: _Alpha | None) -> list[str]:
  if clipped is None:
    return []
  count = np.count_nonzero(clipped if alpha is None else clipped & (alpha > 0))
  return [f"sRGB lacks the colours of {count} of {clipped.size} pixels, clipped"] if count else []


def _lay_over_white(image: Image.Image, alpha: UInt8[np.ndarray, "h w"] | None) -> Pixels:
  if image.mode != "RGB":  # else it would be copied
    image = image.convert("RGB")
  if alpha is not None:
    image.putalpha(Image.fromarray(alpha))
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
  return np.asarray(image)


def _lay_deep_over_white(
  samples: UInt16[np.ndarray, "h w *c"], alpha: _Alpha | None
) -> tuple[DeepPixels, UInt8[np.ndarray, "h w"] | None]:
  """Returns RGB, and the alpha in 8 bits."""
  pixels = np.repeat(samples[..., None], 3, axis=-1) if samples.ndim == 2 else samples
  if alpha is None:
    return pixels, None
  opacity = alpha if alpha.dtype == np.uint8 else reduce_to_8_bits(alpha)
  share = alpha / np.float32(np.iinfo(alpha.dtype).max)
  over = np.empty_like(pixels)
  for start in range(0, len(pixels), _ROWS_AT_ONCE):
    rows = slice(start, start + _ROWS_AT_ONCE)
    over[rows] = np.round(65535 - share[rows, :, None] * (65535 - pixels[rows].astype(np.float32)))
  return over, opacity

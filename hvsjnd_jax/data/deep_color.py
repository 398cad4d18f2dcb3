"""Reads 16-bit colour with Pillow, whose colour images have 8 bits a channel.

Pillow keeps the high byte of each sample. Told that the samples have the other byte order, it keeps
the low one. So a file is decoded twice, and what Pillow knows of its format serves both times.
"""

import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, PLANAR_CONFIGURATION

# Pillow's names of how the samples of pixels, or of a channel, lie in a file; the byte order last.
_RAW_MODE = re.compile("(RGB|RGBX|RGBA|RGBa|CMYK|[RGBA]);16[BLN]")
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}

_SEPARATE = 2  # TIFF's value for channels that lie in planes of their own


def read_deep_color(
  opened: ImageFile.ImageFile,
  reopen: Callable[[], ImageFile.ImageFile],
  turn: Callable[[Image.Image], Image.Image],
) -> UInt16[np.ndarray, "h w channels"] | None:
  """Reads the samples of 16-bit colour: RGB, RGB and alpha, or CMYK.

  Args:
    opened: A picture, of which the header was read. Where Pillow would mistake how its samples lie,
      it is told better.
    reopen: Opens the picture once more.
    turn: Turns an image upright.

  Returns:
    The samples; None where Pillow must read the picture, which is no colour, has fewer bits, is
    animated, or consists of compressed planes.
  """
  _mend_tiles(opened)
  modes = {_get_raw_mode(tile) for tile in opened.tile}
  if modes == {"LA;16B"}:  # there is no such mode with another order
    _set_raw_modes(opened, lambda _: "RGBA")  # the four bytes of a pixel
    gray_high, gray_low, alpha_high, alpha_low = np.moveaxis(_load(opened, turn), -1, 0)
    gray, alpha = _join(gray_high, gray_low), _join(alpha_high, alpha_low)
    return np.stack([gray, gray, gray, alpha], axis=-1)
  deep = bool(modes) and all(map(_RAW_MODE.fullmatch, modes))
  if not deep or _is_animated_png(opened) or _has_compressed_planes(opened):
    return None
  premultiplied = any(mode.startswith("RGBa") for mode in modes)
  _set_raw_modes(opened, lambda mode: mode.replace("a", "A"))
  tiles = list(opened.tile)
  high = _load(opened, turn)
  with reopen() as again:
    again.tile = tiles
    _set_raw_modes(again, lambda mode: mode[:-1] + _OTHER_ORDER[mode[-1]])
    samples = _join(high, _load(again, turn))
  return _divide_by_alpha(samples) if premultiplied else samples


def _mend_tiles(opened: ImageFile.ImageFile) -> None:
  """Corrects what Pillow takes for 8 bits, or reads sample by sample in Python."""
  if opened.format == "PPM" and opened.tile[0][3] == ("RGB", 65535):
    opened.tile = [opened.tile[0]._replace(codec_name="raw", args=("RGB;16B", 0, 1))]
  tags: Any = getattr(opened, "tag_v2", {})
  if set(tags.get(BITSPERSAMPLE, ())) == {16} and tags.get(PLANAR_CONFIGURATION) == _SEPARATE:
    order = "L" if tags.prefix == b"II" else "B"
    _set_raw_modes(opened, lambda mode: f"{mode.upper()};16{order}" if len(mode) == 1 else mode)


def _is_animated_png(opened: ImageFile.ImageFile) -> bool:
  """Tells whether Pillow would blend frames, of which it can the high bytes alone."""
  return opened.format == "PNG" and getattr(opened, "is_animated", False)


def _has_compressed_planes(opened: ImageFile.ImageFile) -> bool:
  """Tells whether Pillow would disregard the byte order that it is told."""
  planes = getattr(opened, "tag_v2", {}).get(PLANAR_CONFIGURATION) == _SEPARATE
  return planes and opened.tile[0].codec_name == "libtiff"


def _get_raw_mode(tile: Any) -> str:
  mode = tile.args if isinstance(tile.args, str) or not tile.args else tile.args[0]
  return mode if isinstance(mode, str) else ""


def _set_raw_modes(opened: ImageFile.ImageFile, change: Callable[[str], str]) -> None:
  def replace(tile: Any) -> Any:
    mode = change(_get_raw_mode(tile))
    return tile._replace(args=mode if isinstance(tile.args, str) else (mode, *tile.args[1:]))

  opened.tile = [replace(tile) for tile in opened.tile]


def _load(
  opened: ImageFile.ImageFile, turn: Callable[[Image.Image], Image.Image]
) -> UInt8[np.ndarray, "h w channels"]:
  opened.load()
  return np.asarray(turn(opened))


def _join(
  high: UInt8[np.ndarray, "*shape"], low: UInt8[np.ndarray, "*shape"]
) -> UInt16[np.ndarray, "*shape"]:
  samples = high.astype(np.uint16)
  samples <<= 8
  samples |= low
  return samples


def _divide_by_alpha(samples: UInt16[np.ndarray, "h w 4"]) -> UInt16[np.ndarray, "h w 4"]:
  """Undoes the multiplication of colours by alpha."""
  alpha = samples[..., 3:].astype(np.float32) / 65535
  colors = np.round(samples[..., :3] / np.maximum(alpha, 1 / 65535)).clip(0, 65535)
  return np.concatenate([colors.astype(np.uint16), samples[..., 3:]], axis=-1)

"""Reading and writing pictures: files on one side, uint8 RGB arrays [H, W, 3] on the other."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

MIN_SIDE_PX = 8

Pixels = UInt8[np.ndarray, "h w 3"]


class ImageError(Exception):
  """A picture that cannot be used. The message names the reason, not the file."""


def is_image(path: Path) -> bool:
  """Whether the file's extension is one that Pillow can read."""
  return path.suffix.lower() in _readable_extensions()


def _readable_extensions() -> set[str]:
  return {ext for ext, fmt in Image.registered_extensions().items() if fmt in Image.OPEN}


def find_images(paths: Iterable[Path]) -> tuple[list[Path], int]:
  """Lists the pictures under files and folders.

  Folders are walked recursively, each in sorted order; in them, files without an
  image's extension are passed over. A file named directly is always listed.

  Args:
    paths: Files and folders.

  Returns:
    The pictures, and how many files were passed over.

  Raises:
    FileNotFoundError: If a path does not exist.
  """
  found: list[Path] = []
  skipped = 0
  for path in paths:
    if not path.exists():
      raise FileNotFoundError(f"no such file or folder: {path}")
    if not path.is_dir():
      found.append(path)
      continue
    for folder, subfolders, names in os.walk(path):
      subfolders.sort()
      files = [Path(folder, name) for name in sorted(names)]
      pictures = [file for file in files if is_image(file)]
      found += pictures
      skipped += len(files) - len(pictures)
  return found, skipped


def read_image(path: Path) -> Pixels:
  """Reads a picture as upright 8-bit RGB.

  EXIF rotation is applied. Gray, palette and CMYK become RGB; transparency is laid over
  white; 16 bits are rounded to 8; of an animation the first frame is taken.

  Args:
    path: An image file.

  Returns:
    The pixels, uint8 [H, W, 3].

  Raises:
    ImageError: If the file cannot be read, is no image, is damaged, is a decompression
      bomb, has samples of unknown range, or is smaller than 8 pixels on a side.
  """
  try:
    with Image.open(path) as opened:
      opened.load()
      pixels = _to_rgb(ImageOps.exif_transpose(opened))
  except ImageError:
    raise
  except UnidentifiedImageError:
    raise ImageError("not an image that Pillow can read") from None
  except Image.DecompressionBombError as error:
    raise ImageError(f"too large to be safe: {error}") from None
  except FileNotFoundError:
    raise ImageError("no such file") from None
  except PermissionError:
    raise ImageError("permission denied") from None
  except Exception as error:  # Pillow's decoders raise whatever damaged bytes lead them to.
    raise ImageError(f"damaged or unreadable: {error or type(error).__name__}") from None
  height, width = pixels.shape[:2]
  if min(height, width) < MIN_SIDE_PX:
    raise ImageError(f"{width}x{height} pixels; at least {MIN_SIDE_PX}x{MIN_SIDE_PX} are needed")
  return pixels


def _to_rgb(image: Image.Image) -> Pixels:
  if image.mode == "F":
    raise ImageError("32-bit float samples, whose range is unknown; convert it to 8 or 16 bits")
  if image.mode.startswith("I"):  # 16-bit gray; Pillow reads some of it as 32-bit
    samples = np.asarray(image).astype(np.int64)
    if samples.min() < 0 or samples.max() > 65535:
      raise ImageError("32-bit samples, whose range is unknown; convert it to 8 or 16 bits")
    gray = np.round(samples / 257).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=-1)
  if image.has_transparency_data:
    image = image.convert("RGBA")
    backdrop = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(backdrop, image)
  return np.asarray(image.convert("RGB"))


def to_uint8(images: np.ndarray) -> np.ndarray:
  """Rounds values in [0, 1] to 0..255."""
  return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)


def write_png(path: Path, pixels: np.ndarray) -> None:
  """Writes uint8 pixels, [H, W, 3], as PNG: the whole file or none of it."""
  partial = path.with_name(path.name + ".partial")
  Image.fromarray(pixels).save(partial, format="PNG", compress_level=4)
  partial.replace(path)

"""Picture files, read and written as uint8 RGB arrays [H, W, 3]."""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hvsjnd_jax.data.atomic import whole_file
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.ops.types import Pixels

# The formats of photographs. Pillow knows more, but starts other programs for some (EPS), and can
# only recognise others (MPEG, HDF5).
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

EXTENSIONS = frozenset(
  extension for extension, name in Image.registered_extensions().items() if name in _FORMATS
)


class ImageError(HVSJNDError):
  """A picture cannot be used. The message gives the reason, and not the file."""


def find_images(paths: Iterable[Path], *, leave_out: Path | None = None) -> tuple[list[Path], int]:
  """Lists the pictures among files and under folders.

  Folders are walked recursively, each in sorted order, without following links to folders. A
  file in a folder is skipped if its extension is not an image's; a file named directly is always
  listed. A picture found twice is listed once. A subfolder that cannot be read is listed too, so
  that reading it gives the reason.

  Args:
    paths: Files and folders.
    leave_out: A subfolder to ignore; its files do not count as skipped.

  Returns:
    The pictures, and the number of files that were skipped.

  Raises:
    FileNotFoundError: If a path does not exist.
  """
  found: dict[Path, Path] = {}  # by `place`
  skipped: set[Path] = set()
  for path in paths:
    if not os.path.exists(path):  # Path.exists raises if a name is too long
      raise FileNotFoundError(f"no such file or folder: {path}")
    named = not path.is_dir()
    for file in [path] if named else sorted(_walk(path, leave_out)):
      if named or file.suffix.lower() in EXTENSIONS or file.is_dir():
        found.setdefault(place(file), file)
      else:
        skipped.add(place(file))
  return list(found.values()), len(skipped - found.keys())


def _walk(path: Path, leave_out: Path | None) -> Iterator[Path]:
  """Yields all files under a folder, then the folders that cannot be listed."""
  unreadable: list[Path] = []
  ignored = leave_out and leave_out.resolve()
  for folder, subfolders, names in os.walk(
    path, onerror=lambda error: unreadable.append(Path(error.filename))
  ):
    subfolders[:] = [name for name in subfolders if Path(folder, name).resolve() != ignored]
    yield from (Path(folder, name) for name in names)
  yield from unreadable


def place(file: Path) -> Path:
  """Returns the absolute path, with links in its folder resolved; a link itself keeps its name."""
  return file.parent.resolve() / file.name


def read_image(path: Path) -> Pixels:
  """Reads a picture as upright 8-bit RGB.

  EXIF rotation is applied, unless the EXIF data is broken. Gray, palette and CMYK pictures become
  RGB; transparent pixels are laid over white; 16-bit gray is rounded to 8 bits, while Pillow
  keeps the high byte of 16-bit colour; an animation gives its first frame. Colour profiles are
  not applied: values are read as sRGB.

  Args:
    path: An image file.

  Returns:
    The pixels, uint8 [H, W, 3].

  Raises:
    ImageError: If the file cannot be read, is not an image, is damaged, is a decompression
      bomb, or holds samples of unknown range.
  """
  try:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
      raise ImageError("a folder that cannot be read")
    if not stat.S_ISREG(mode):  # opening a named pipe would wait for a writer
      raise ImageError("not a regular file")
    with Image.open(path, formats=_FORMATS) as opened:
      opened.load()
      pixels = _to_rgb(_turn_upright(opened))
  except ImageError:
    raise
  except UnidentifiedImageError:
    raise ImageError("not an image that Pillow can read") from None
  except Image.DecompressionBombError as error:
    raise ImageError(f"too large to be safe: {error}") from None
  except Exception as error:  # Pillow's decoders raise anything on damaged bytes
    if isinstance(error, OSError) and error.strerror:
      raise ImageError(error.strerror) from None
    raise ImageError(f"damaged or unreadable: {str(error) or type(error).__name__}") from None
  return pixels


def read_size(path: Path) -> tuple[int, int] | None:
  """Reads height and width from the file's header, not rotated; None if it cannot be read."""
  try:
    if not stat.S_ISREG(os.stat(path).st_mode):
      return None
    with Image.open(path, formats=_FORMATS) as opened:
      return opened.height, opened.width
  except Exception:  # `read_image` will give the reason
    return None


def _turn_upright(image: Image.Image) -> Image.Image:
  try:
    return ImageOps.exif_transpose(image)
  except Exception:  # broken EXIF raises many kinds of errors, and the pixels are still good
    return image


def _to_rgb(image: Image.Image) -> Pixels:
  if image.mode == "F":
    raise ImageError("32-bit float samples, whose range is unknown; convert it to 8 or 16 bits")
  if image.mode.startswith("I"):  # 16-bit gray, which Pillow reads from some formats as 32-bit
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
  """Writes uint8 pixels, [H, W, 3], as a PNG file, whole or not at all."""
  with whole_file(path) as partial:
    Image.fromarray(pixels).save(partial, format="PNG", compress_level=4)


def write_npy(path: Path, values: np.ndarray) -> None:
  """Writes an array as a .npy file, whole or not at all."""
  with whole_file(path) as partial, partial.open("wb") as file:
    np.save(file, values)

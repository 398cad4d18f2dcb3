"""Picture files, read and written as uint8 RGB arrays [H, W, 3], and read as uint16 ones, too."""

import contextlib
import io
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from hvsjnd_jax.data.atomic import whole_file
from hvsjnd_jax.data.color_tags import HDRError
from hvsjnd_jax.data.decoding import Picture, decode
from hvsjnd_jax.data.formats import EXTENSIONS, ImageError, open_image
from hvsjnd_jax.data.paths import (
  exists,
  explain_storage_error,
  is_remote,
  list_objects,
  tell_reason,
)
from hvsjnd_jax.ops.types import Pixels


def find_images(
  paths: Iterable[Path], *, leave_out: Path | None = None
) -> tuple[list[Path], list[Path]]:
  """Lists the pictures among files and under folders.

  Folders are walked recursively, each in sorted order, without following links to folders. A
  file in a folder is skipped if its extension is not an image's; a file named directly is always
  listed. A picture found twice is listed once. A subfolder that cannot be read is listed too, so
  that reading it gives the reason.

  Args:
    paths: Files and folders.
    leave_out: A subfolder to ignore; its files are not among those skipped.

  Returns:
    The pictures, and the files that were skipped.

  Raises:
    FileNotFoundError: If a path does not exist.
  """
  found: dict[Path, Path] = {}  # by `place`
  skipped: dict[Path, Path] = {}
  for path in paths:
    if not exists(path):
      raise FileNotFoundError(f"no such file or folder: {path}")
    named = not path.is_dir()
    for file in [path] if named else sorted(_walk(path, leave_out)):
      if named or file.suffix.lower() in EXTENSIONS or _is_folder(file):
        found.setdefault(place(file), file)
      else:
        skipped.setdefault(place(file), file)
  others = [file for where, file in skipped.items() if where not in found]
  return list(found.values()), others


def _walk(path: Path, leave_out: Path | None) -> Iterator[Path]:
  """Yields all files under a folder, then the folders that cannot be listed."""
  if is_remote(path):
    yield from (file for file in list_objects(path) if leave_out not in file.parents)
    return
  unreadable: list[Path] = []
  ignored = leave_out and leave_out.resolve()
  for folder, subfolders, names in os.walk(
    path, onerror=lambda error: unreadable.append(Path(error.filename))
  ):
    subfolders[:] = [name for name in subfolders if Path(folder, name).resolve() != ignored]
    yield from (Path(folder, name) for name in names)
  yield from unreadable


def _is_folder(path: Path) -> bool:
  return not is_remote(path) and path.is_dir()  # objects are not asked, as there may be many


def place(file: Path) -> Path:
  """Returns the absolute path, with links in its folder resolved; a link itself keeps its name."""
  return file if is_remote(file) else file.parent.resolve() / file.name


def read_image(path: Path) -> Pixels:
  """Reads a picture's pixels in 8 bits; see `read_picture`."""
  return read_picture(path).pixels


def read_picture(path: Path) -> Picture:
  """Reads a picture as upright sRGB of 8 bits, and of 16 where the file has them.

  EXIF rotation is applied, unless the EXIF data is broken. Colours are converted to sRGB by the
  file's profile or code points, relative colorimetric; a file that names none is sRGB. Gray,
  palette, CMYK and CIELAB pictures become RGB; transparent pixels are laid over white; an animation
  gives its first frame.

  Args:
    path: An image file.

  Raises:
    ImageError: If the file cannot be read, is not an image, is damaged, is a decompression
      bomb, is HDR, or holds samples of unknown range.
  """
  with _naming_reason():
    if is_remote(path):
      return decode(io.BytesIO(path.read_bytes()))
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
      raise ImageError("a folder that cannot be read")
    if not stat.S_ISREG(mode):  # opening a named pipe would wait for a writer
      raise ImageError("not a regular file")
    with path.open("rb") as file:
      return decode(file)


def decode_picture(encoded: bytes) -> Picture:
  """Reads a picture from the bytes of its file, as `read_picture`.

  Raises:
    ImageError: As `read_picture`.
  """
  with _naming_reason():
    return decode(io.BytesIO(encoded))


@contextlib.contextmanager
def _naming_reason() -> Iterator[None]:
  """Turns whatever reading raises into an `ImageError`."""
  try:
    yield
  except ImageError:
    raise
  except HDRError as error:
    raise ImageError(str(error)) from None
  except UnidentifiedImageError:
    raise ImageError("not an image that Pillow can read") from None
  except Image.DecompressionBombError as error:
    raise ImageError(f"too large to be safe: {error}; --max-megapixels raises the limit") from None
  except Exception as error:  # Pillow's decoders raise anything on damaged bytes
    if isinstance(error, OSError) and (error.strerror or isinstance(error, FileNotFoundError)):
      raise ImageError(tell_reason(error)) from None
    if reason := explain_storage_error(error):
      raise ImageError(reason) from None
    raise ImageError(f"damaged or unreadable: {str(error) or type(error).__name__}") from None


def read_size(path: Path) -> tuple[int, int] | None:
  """Reads height and width from the file's header, not rotated; None if it cannot be read."""
  try:
    if not is_remote(path) and not stat.S_ISREG(os.stat(path).st_mode):
      return None
    with path.open("rb") as file, open_image(file) as opened:
      return opened.height, opened.width
  except Exception:  # `read_picture` will give the reason
    return None


def to_uint8(images: np.ndarray) -> np.ndarray:
  """Rounds values in [0, 1] to 0..255."""
  return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)


def write_png(path: Path, pixels: np.ndarray) -> None:
  """Writes a PNG file, whole or not at all, of pixels as `encode_png` takes them."""
  with whole_file(path) as partial:
    encode_png(partial, pixels)


def encode_png(file: Path | BinaryIO, pixels: np.ndarray) -> None:
  """Encodes sRGB uint8, [H, W, 3] or with alpha [H, W, 4], as a PNG that says it is sRGB."""
  tags = PngInfo()
  tags.add(b"sRGB", b"\1")  # relative colorimetric
  Image.fromarray(pixels).save(file, format="PNG", compress_level=4, pnginfo=tags)


def write_npy(path: Path, values: np.ndarray) -> None:
  """Writes an array as a .npy file, whole or not at all."""
  with whole_file(path) as partial, partial.open("wb") as file:
    np.save(file, values)

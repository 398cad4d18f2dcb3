"""The formats of photographs, and the packages that some of them need."""

import importlib
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import OPEN_INFO

from hvsjnd_jax.ops.errors import HVSJNDError

# Pictures and photographs. Of what else Pillow opens, it starts programs for some (EPS, WMF), can
# only recognise others (MPEG, HDF5, GRIB, BUFR), and reads Photo CDs (PCD) at a fraction of their
# size. Also left out: icons (ICO, ICNS, CUR), textures and brushes (DDS, BLP, FTEX, GBR),
# measurements (FITS, SPIDER, MCIDAS), bitmaps of user interfaces (XBM, XPM, MSP), faxes (DCX),
# animations (FLI), and formats of single programs (IM, IMT, IPTC, PIXAR, XVTHUMB).
_FORMATS = (
  *("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI"),
  *("SUN", "TGA", "TIFF", "WEBP"),
)

# JPEG files of several views, which Pillow opens as JPEG.
_OF_JPEG = "MPO"

# 16-bit TIFF in which white is zero: Pillow opens the little-endian kind alone. The key is byte
# order, photometric interpretation, sample format, fill order, bits, and extra samples.
OPEN_INFO.setdefault((b"MM", 0, (1,), 1, (16,), ()), ("I;16B", "I;16B"))


class _Plugin(NamedTuple):
  """A package that teaches Pillow a format.

  Attributes:
    title: What people call the format.
    package: The package's name in the index.
    register: Imports it, and makes it known to Pillow.
    extensions: Those of the format's files.
    recognises: Whether a file that begins so is of the format.
  """

  title: str
  package: str
  register: Callable[[], object]
  extensions: tuple[str, ...]
  recognises: Callable[[bytes], bool]


_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_JXL_STARTS = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")

_PLUGINS = {
  "HEIF": _Plugin(
    "HEIC",
    "pillow-heif",
    lambda: importlib.import_module("pillow_heif").register_heif_opener(),
    (".heic", ".heif", ".hif"),
    lambda head: head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS,
  ),
  "JXL": _Plugin(
    "JPEG XL",
    "pillow-jxl-plugin",
    lambda: importlib.import_module("pillow_jxl"),
    (".jxl",),
    lambda head: head.startswith(_JXL_STARTS),
  ),
}

EXTENSIONS = frozenset(
  extension
  for extension, name in Image.registered_extensions().items()
  if name in (*_FORMATS, _OF_JPEG)
).union(*(plugin.extensions for plugin in _PLUGINS.values()))


class ImageError(HVSJNDError):
  """A picture cannot be used. The message gives the reason, and not the file.

  Args:
    reason: The message.
    package: What to install so that the picture can be used; None where that would not do.
  """

  def __init__(self, reason: str, *, package: str | None = None):
    super().__init__(reason)
    self.package = package

  def detach(self) -> "ImageError":
    """Returns it without what it was raised from, which would keep the picture in memory."""
    return ImageError(str(self), package=self.package)


# The most pixels that a picture may have; None for Pillow's limit, 179 million.
_most_pixels: int | None = None


def limit_pixels(pixels: int) -> None:
  """Sets how many pixels a picture may have in this process; more are a decompression bomb."""
  global _most_pixels
  _most_pixels = pixels
  # Pillow refuses what is above the double of its own limit, which is never lowered, because the
  # letters that Pillow draws are held to it, too.
  Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, pixels // 2)


def get_limit() -> int | None:
  """Returns what `limit_pixels` was given in this process; None if it was not called."""
  return _most_pixels


def open_image(file: BinaryIO) -> ImageFile.ImageFile:
  """Opens a picture, and reads its header.

  Raises:
    UnidentifiedImageError: If it is no picture.
    DecompressionBombError: If it has too many pixels.
    ImageError: If it needs a package that is not installed.
  """
  opened = _open(file)
  pixels = opened.width * opened.height
  if _most_pixels is not None and pixels > _most_pixels:
    raise Image.DecompressionBombError(f"{pixels} pixels, more than {_most_pixels}")
  return opened


def _open(file: BinaryIO) -> ImageFile.ImageFile:
  try:
    return Image.open(file, formats=_FORMATS)
  except UnidentifiedImageError:
    file.seek(0)
    head = file.read(16)
    for name, plugin in _PLUGINS.items():
      if plugin.recognises(head):
        return _open_by_plugin(file, name, plugin)
    raise


def _open_by_plugin(file: BinaryIO, name: str, plugin: _Plugin) -> ImageFile.ImageFile:
  try:
    plugin.register()
  except ImportError:
    reason = f"a {plugin.title} image, which needs {plugin.package}"
    raise ImageError(reason, package=plugin.package) from None
  file.seek(0)
  return Image.open(file, formats=[name])

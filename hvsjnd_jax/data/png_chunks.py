"""The chunks of PNG files that Pillow passes over, or stumbles over."""

import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# What pixels depend on: the picture, an animation's frames, transparency, and EXIF's rotation.
_NEEDED = frozenset(
  (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")
)
_XMP = b"XML:com.adobe.xmp\0\0"  # not compressed


class Chunk(NamedTuple):
  """A chunk's name, its data, and whether its checksum is right."""

  name: bytes
  data: bytes
  sound: bool


def read_ancillary(file: BinaryIO) -> dict[bytes, Chunk]:
  """Reads what stands before the picture itself, by name; nothing from a file that is no PNG."""
  chunks: dict[bytes, Chunk] = {}
  for chunk in _read_chunks(file):
    if chunk.name == b"IDAT":
      break
    chunks.setdefault(chunk.name, chunk)
  return chunks


def drop_unneeded(file: BinaryIO) -> io.BytesIO | None:
  """Copies a PNG without the chunks that its pixels do not depend on; None if it has none.

  Pillow refuses a picture for more than 1 MB of compressed text, or a wrong checksum of it.
  """
  kept = io.BytesIO()
  kept.write(_SIGNATURE)
  dropped = False
  for name, data, checksum in _split(file):
    if name in _NEEDED or data.startswith(_XMP):
      kept.write(len(data).to_bytes(4) + name + data + checksum)
    else:
      dropped = True
  kept.seek(0)
  return kept if dropped else None


def _read_chunks(file: BinaryIO) -> Iterator[Chunk]:
  for name, data, checksum in _split(file):
    yield Chunk(name, data, zlib.crc32(name + data) == int.from_bytes(checksum))


def _split(file: BinaryIO) -> Iterator[tuple[bytes, bytes, bytes]]:
  """Yields the names, data and checksums of a PNG's chunks, up to where it ends or breaks off."""
  file.seek(0)
  if file.read(8) != _SIGNATURE:
    return
  while len(head := file.read(8)) == 8:
    data = file.read(int.from_bytes(head[:4]))
    yield head[4:], data, file.read(4)

"""Images whose samples are not sRGB, and what they are in sRGB, computed in float64."""

import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import skimage.data

D65 = (0.3127, 0.329)
SRGB = (D65, (0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
ADOBE = (D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3 = (D65, (0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
BT2020 = (D65, (0.708, 0.292), (0.17, 0.797), (0.131, 0.046))

# 8-bit sRGB is rounded, by LittleCMS's 8-bit tables: 0.72 was measured over all of RGB.
ROUNDING = 0.75

Curve = Callable[[np.ndarray], np.ndarray]
Chromaticities = Sequence[tuple[float, float]]

PHOTO = np.ascontiguousarray(skimage.data.chelsea()[100:124, 140:172])


def srgb_curve(samples: np.ndarray) -> np.ndarray:
  """From samples to light, IEC 61966-2-1."""
  return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


def encode_srgb(light: np.ndarray) -> np.ndarray:
  """From light to samples in 0..255, clipped and not rounded."""
  light = np.clip(light, 0, 1)
  return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def convert(pixels: np.ndarray, curve: Curve, chromaticities: Chromaticities) -> np.ndarray:
  """What RGB pixels with a white of D65 are in sRGB, in linear light."""
  matrix = np.linalg.solve(_to_xyz(SRGB), _to_xyz(chromaticities))
  return curve(pixels / 255) @ matrix.T


def _to_xyz(chromaticities: Chromaticities) -> np.ndarray:
  columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in chromaticities])
  primaries = columns[1:].T
  return primaries * np.linalg.solve(primaries, columns[0])


def chunk(name: bytes, data: bytes) -> bytes:
  """A PNG's chunk."""
  return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def insert_chunks(png: bytes, *chunks: bytes) -> bytes:
  """A PNG with more chunks, behind its header."""
  return png[:33] + b"".join(chunks) + png[33:]


def encode_deep_png(samples: np.ndarray, *chunks: bytes) -> bytes:
  """A PNG of 16-bit samples, [H, W, channels], which Pillow cannot write."""
  height, width, channels = samples.shape
  rows = b"".join(b"\0" + row.tobytes() for row in samples.astype(">u2"))
  kind = {2: 4, 3: 2, 4: 6}[channels]
  header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
  body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
  return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body

"""Ways to damage the bytes of a file, whatever they hold."""

from collections.abc import Callable

import numpy as np

Damage = Callable[[bytes, np.random.Generator], bytes]


def flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
  """Flips one to eight bits."""
  flipped = bytearray(data)
  for _ in range(rng.integers(1, 9)):
    flipped[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
  return bytes(flipped)


def truncate(data: bytes, rng: np.random.Generator) -> bytes:
  return data[: rng.integers(len(data))]


def delete(data: bytes, rng: np.random.Generator) -> bytes:
  part = _draw_part(data, rng)
  return data[: part.start] + data[part.stop :]


def duplicate(data: bytes, rng: np.random.Generator) -> bytes:
  part = _draw_part(data, rng)
  return data[: part.stop] + data[part] * int(rng.integers(1, 20)) + data[part.stop :]


def overwrite(data: bytes, rng: np.random.Generator) -> bytes:
  part = _draw_part(data, rng)
  return data[: part.start] + rng.bytes(part.stop - part.start) + data[part.stop :]


def _draw_part(data: bytes, rng: np.random.Generator) -> slice:
  start = int(rng.integers(len(data)))
  return slice(start, start + int(rng.integers(1, 100)))


DAMAGES: tuple[Damage, ...] = (flip_bits, truncate, delete, duplicate, overwrite)

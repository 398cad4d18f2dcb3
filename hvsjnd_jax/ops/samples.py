"""Samples of 8 and 16 bits, as they stand in files."""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8, UInt16


def to_unit(
  samples: UInt8[np.ndarray, "*shape"] | UInt16[np.ndarray, "*shape"], dtype: Any = np.float32
) -> Float[np.ndarray, "*shape"]:
  """Divides samples by the largest one of their type, so that they are in [0, 1].

  Examples:
    >>> to_unit(np.array([0, 65535], np.uint16)).tolist()
    [0.0, 1.0]
  """
  wide = np.promote_types(dtype, np.float32)  # float16 cannot hold the largest sample
  return (samples.astype(wide) / np.iinfo(samples.dtype).max).astype(dtype, copy=False)


def reduce_to_8_bits(samples: UInt16[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
  """Rounds 16-bit samples to the nearest ones of 8 bits.

  Examples:
    >>> reduce_to_8_bits(np.array([128, 129, 65535], np.uint16)).tolist()
    [0, 1, 255]
  """
  return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)

"""What every source of training photographs has in common."""

from typing import Protocol

from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.ops.types import Pixels


class DataError(HVSJNDError):
  """Photographs cannot be found or read. The message says which, and why."""


class PhotoSource(Protocol):
  """Photographs by index, for Grain to draw from."""

  def __len__(self) -> int: ...
  def __getitem__(self, index: int) -> Pixels: ...
  def name(self, index: int) -> str:
    """Names the photograph for someone who wants to find it."""
    ...

  def fingerprint(self) -> str:
    """Identifies the photographs and their order, wherever they are stored."""
    ...

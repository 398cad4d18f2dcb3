"""The images that the benchmarks run on."""

import numpy as np

from hvsjnd_jax.ops.types import Pixels


def draw_image(height: int, width: int, *, seed: int = 0) -> np.ndarray:
  """Draws noise and structure at several scales: float32 [1, height, width, 3] in [0, 1]."""
  rng = np.random.default_rng(seed)
  image = np.zeros((1, height, width, 3))
  for cell in (1, 4, 16, 64):
    coarse = rng.random((1, -(-height // cell), -(-width // cell), 3))
    image += coarse.repeat(cell, axis=1).repeat(cell, axis=2)[:, :height, :width] / 4
  return image.astype(np.float32)


def cut_middle(pixels: Pixels, side_px: int) -> Pixels:
  """Cuts the middle of a picture; a side that is shorter stays whole."""
  top, left = ((side - side_px) // 2 for side in pixels.shape[:2])
  return np.ascontiguousarray(pixels[max(top, 0) :][:side_px, max(left, 0) :][:, :side_px])

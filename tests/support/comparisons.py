"""Images and maps for tests of comparisons."""

import numpy as np
import pytest

from hvsjnd_jax.noise import SignProtocol, draw_signs
from hvsjnd_jax.noise_scale import Noisy, scale_to_psnr

SIZE = (48, 64)  # one for all tests: one compilation


@pytest.fixture
def pixels() -> np.ndarray:
  """With structure, and with saturated values in every channel."""
  rng = np.random.default_rng(1)
  coarse = rng.integers(-40, 296, (*(side // 8 for side in SIZE), 3)).repeat(8, 0).repeat(8, 1)
  return np.clip(coarse + rng.integers(-9, 10, coarse.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def jnd(pixels: np.ndarray) -> np.ndarray:
  return np.random.default_rng(2).uniform(0.001, 0.02, pixels.shape).astype(np.float32)


def add(
  pixels: np.ndarray,
  jnd: np.ndarray,
  db: float,
  *,
  by_channel: bool = True,
  protocol: SignProtocol = "shared",
) -> Noisy:
  signs = draw_signs(pixels, seed=0, protocol=protocol)
  return scale_to_psnr(pixels, jnd, signs, psnr_db=db, by_channel=by_channel)

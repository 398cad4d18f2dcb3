"""Images, maps and a stand-in for Butteraugli, for tests of comparisons."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hvsjnd_jax.evaluation.butteraugli_program import find_butteraugli
from hvsjnd_jax.noise import draw_signs
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


def add(pixels: np.ndarray, jnd: np.ndarray, db: float, *, by_channel: bool = True) -> Noisy:
  signs = draw_signs(pixels, seed=0)
  return scale_to_psnr(pixels, jnd, signs, psnr_db=db, by_channel=by_channel)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
  """Puts a script in butteraugli_main's place, alone on the PATH; returns where."""

  def write(script: str) -> str:
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    file = folder / "butteraugli_main"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    found = find_butteraugli()
    assert found is not None
    return found

  return write


# Its distances: 3.25 and 1.5, where it is given two PNG files, the original first.
SAYS = '[ -s "$1" ] && [ -s "$2" ] && echo "3.2500000000" && echo "3-norm: 1.500000"'

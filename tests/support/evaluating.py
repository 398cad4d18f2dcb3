"""Photographs to evaluate, and the evaluation command, for its tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax.eval import main

SIZE = (16, 24)  # one for all tests: one compilation

PSNRS = ("psnr_r", "psnr_g", "psnr_b", "psnr")
OUTPUTS = (
  *("original.png", "distorted.png", "jnd.png", "jnd.npy", "attention.png", "sheet.png"),
  "thumbnail.jpg",
)


def draw(seed: int) -> Image.Image:
  return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (*SIZE, 3)).astype(np.uint8))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
  """Three photographs and a note, in a folder and its subfolder."""
  folder = tmp_path / "photos"
  (folder / "a").mkdir(parents=True)
  for seed, name in enumerate(("b.png", "a/c.png", "d.bmp")):
    draw(seed).save(folder / name)
  (folder / "notes.txt").touch()
  return folder


@pytest.fixture
def run(
  weights_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
  monkeypatch.chdir(tmp_path)

  def run(*arguments: object) -> int:
    return main([*map(str, arguments), "--model", str(weights_folder)])

  return run


@pytest.fixture
def report(run: Callable[..., int], tmp_path: Path) -> Callable[..., dict[str, Any]]:
  """Runs the command, and reads the JSON that it wrote."""

  def report(*arguments: object, status: int = 0) -> dict[str, Any]:
    assert run(*arguments, "--json", tmp_path / "report.json") == status
    return json.loads((tmp_path / "report.json").read_text())

  return report

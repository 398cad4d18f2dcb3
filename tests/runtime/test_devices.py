"""Devices that are asked for and are not there: one line, in every command."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from convert.keymap import PARAMETERS
from hvsjnd_jax.runtime.devices import explain_missing_device
from tests.support.golden_weights import draw_state

ROOT = Path(__file__).parents[2]

COMMANDS = {
  "eval": ("hvsjnd_jax.eval", "--path", "a.png"),
  "compare": ("hvsjnd_jax.compare", "--path", "a.png", "--psnr", "30"),
  "calibrate": ("hvsjnd_jax.calibrate", "--path", "a.png"),
  "metrics": ("hvsjnd_jax.metrics", "--distorted", "a.png", "--reference", "a.png"),
  "export": ("hvsjnd_jax.export", "--height", "16", "--width", "16", "--out", "x"),
  "train": ("hvsjnd_jax.train", "--config", f"{ROOT}/configs/tiny.py", "--workdir", "w"),
}

INSTALL = {
  "cuda": "JAX finds no such device here; install JAX for it (pip install 'jax[cuda13]')",
  "tpu": "Unable to initialize backend 'tpu': ",
  "nonsense": "Unable to initialize backend 'nonsense': Backend 'nonsense' is not in the list of",
  "cpu,tpu": "Unable to initialize backend 'tpu': ",
}


def start(folder: Path, platforms: str, *arguments: str) -> tuple[int, str]:
  done = subprocess.run(
    [sys.executable, "-m", *arguments],
    cwd=folder,
    env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": platforms},
    capture_output=True,
    text=True,
  )
  return done.returncode, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
  pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
  (tmp_path / "photos").mkdir()
  for name in ("a.png", "photos/a.png"):
    Image.fromarray(pixels).save(tmp_path / name)
  return tmp_path


@pytest.mark.parametrize(
  ("name", "platforms"),
  [
    ("eval", "cuda"),
    *(pytest.param("eval", other, marks=pytest.mark.slow) for other in INSTALL if other != "cuda"),
    *(pytest.param(name, "cuda", marks=pytest.mark.slow) for name in COMMANDS if name != "eval"),
  ],
)
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there is another device")
def test_missing_device_is_one_line(folder: Path, name: str, platforms: str):
  status, stderr = start(folder, platforms, *COMMANDS[name])
  assert status == 2
  assert stderr.startswith(f"{name}: JAX_PLATFORMS={platforms}: {INSTALL[platforms]}")
  assert stderr.endswith(", or unset JAX_PLATFORMS to compute on what is there\n")
  assert stderr.count("\n") == 1


@pytest.mark.slow
def test_conversion(folder: Path):
  torch = pytest.importorskip("torch")
  for network, table in PARAMETERS.items():
    state = draw_state(0, {key: shape for key, (_, shape) in table.items()})
    torch.save({key: torch.from_numpy(value) for key, value in state.items()}, folder / network)
  words = ("--hvs-sd", "hvs_sd", "--generator", "generator", "--out", "w")
  status, stderr = start(folder, "cuda", "convert.from_torch", *words)
  assert status == 2
  assert stderr.startswith("convert: JAX_PLATFORMS=cuda: JAX finds no such device here")
  assert stderr.count("\n") == 1


def test_what_needs_no_device_does_without(folder: Path):
  words = ("build", "--images", "photos", "--out", "dataset")
  assert start(folder, "cuda", "hvsjnd_jax.data", *words) == (0, "")


def test_error_with_another_cause():
  assert explain_missing_device(AssertionError()) is None
  assert explain_missing_device(RuntimeError("INTERNAL: a bug")) is None


def test_device_that_fails_unasked():
  failure = RuntimeError("Unable to initialize backend 'cuda': no driver\nand a long story")
  platforms = jax.config.values["jax_platforms"]
  jax.config.update("jax_platforms", "")
  try:
    error = explain_missing_device(failure)
  finally:
    jax.config.update("jax_platforms", platforms)
  assert str(error) == "no device to compute on: Unable to initialize backend 'cuda': no driver"

"""The export command: a file that runs where this package is not."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.export import Exported

import hvsjnd_jax
from hvsjnd_jax.export import export_estimate, main

SIZE = ("--height", "19", "--width", "26")  # no multiples of 8: padding is in the file
ALONE = ("--platforms", "cpu")

# Of the map's maximum. The weights are constants of the program, whose products XLA computes
# when it compiles, in another order; 5e-7 was measured.
FOLDED = 3e-6


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  monkeypatch.chdir(tmp_path)
  return tmp_path


def run_alone(lines: str, folder: Path) -> None:
  """Runs the printed lines on images.npy; neither this package nor Flax can be imported."""
  code = f"""
import sys, numpy
for name in ("hvsjnd_jax", "flax"):
  sys.modules[name] = None
images = numpy.load("images.npy")
{lines}
numpy.savez("jnd.npz", both=jnd, one=estimate(images[:1]))
"""
  command = [sys.executable, "-I", "-W", "error", "-c", code]
  environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}  # as the tests do
  ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
  assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
  ("model", "size", "options"),
  [
    ("default", r"1\.\d", {}),
    ("fast", r"0\.\d", {}),
    ("paper", r"7\.\d", {"resolution": "reference", "attention_layer": "feature"}),
  ],
  ids=["default", "fast", "options"],
)
def test_printed_lines_run_without_the_package(
  folder: Path, capsys: pytest.CaptureFixture[str], model: str, size: str, options: dict[str, Any]
):
  words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
  assert main([*SIZE, "--model", model, "--out", "jnd.bin", *words]) == 0
  told, _, lines = capsys.readouterr().out.partition("\n\n")
  assert re.match(rf"jnd.bin: {size} MB, .* of 19x26 images, for cpu, cuda, tpu[.]", told)
  assert len(lines.splitlines()) == 3

  images = np.random.default_rng(0).random((2, 19, 26, 3), np.float32)
  np.save("images.npy", images)
  run_alone(lines, folder)
  wanted = np.asarray(hvsjnd_jax.estimate(hvsjnd_jax.load(model), images, **options))
  with np.load("jnd.npz") as maps:
    tolerance = FOLDED * wanted.max()
    np.testing.assert_allclose(maps["both"], wanted, rtol=0, atol=tolerance)
    np.testing.assert_allclose(maps["one"], wanted[:1], rtol=0, atol=tolerance)


def test_nothing_in_the_file_belongs_to_one_platform():
  """A custom call would need its library on the other side, but JAX's own check of the shape."""
  program = export_estimate(hvsjnd_jax.load(), (19, 26))
  assert program.platforms == ("cpu", "cuda", "tpu")
  assert set(re.findall(r"custom_call @(\w+)", program.mlir_module())) <= {"shape_assertion"}


def test_file_is_named_after_the_size(folder: Path):
  assert main([*SIZE, *ALONE]) == 0
  assert [file.name for file in folder.iterdir()] == ["jnd_19x26.bin"]


def read_constants(program: Exported) -> set[str]:
  constants = set(re.findall(r'dense<"0x\w+">', program.mlir_module()))
  assert constants, "the weights are in the program"
  return constants


def test_weights_platforms_and_precision_are_the_chosen_ones(folder: Path):
  options = ("--model", "paper", "--platforms", "tpu,rocm,tpu", "--dtype", "bfloat16")
  assert main([*SIZE, "--out", "new/jnd.bin", *options]) == 0
  program = jax.export.deserialize(bytearray((folder / "new/jnd.bin").read_bytes()))
  assert program.platforms == ("tpu", "rocm")
  assert program.in_avals[0].dtype == program.out_avals[0].dtype == jnp.float32
  paper = export_estimate(hvsjnd_jax.load("paper", dtype="bfloat16"), (19, 26), platforms=["tpu"])
  assert "bf16" in program.mlir_module()
  assert read_constants(program) == read_constants(paper)


WRONG = {
  "too low": (("--height", "7"), "expected sides of 8 to 16384 pixels, got 7x26"),
  "too wide": (("--width", "16385"), "expected sides of 8 to 16384 pixels, got 19x16385"),
  "unknown weights": (("--model", "x"), "--model: unknown model 'x'; known: default, fast, paper"),
  "unknown platform": (
    ("--platforms", "cpu,gpu"),
    "expected platforms of cpu, cuda, tpu, rocm; got cpu, gpu",
  ),
  "out is a folder": (("--out", "."), "--out .: a folder; expected the name of a file"),
  "out below a file": (("--out", "file/x"), "file: no folder, and cannot be made one"),
  "no writing there": (("--out", "/proc/x"), "/proc/x: cannot be written: "),
}


@pytest.mark.parametrize(("options", "reason"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_done_is_said(
  capsys: pytest.CaptureFixture[str], options: tuple[str, ...], reason: str
):
  Path("file").touch()
  assert main([*SIZE, "--out", "jnd.bin", *ALONE, *options]) == 2
  stderr = capsys.readouterr().err
  assert stderr.startswith(f"export: {reason}")
  assert stderr.count("\n") == 1


def test_interrupted_export_leaves_what_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch):
  (folder / "jnd.bin").write_bytes(b"older")

  def interrupt(file: Path, data: bytes) -> None:
    with file.open("wb") as half:
      half.write(data[: len(data) // 2])
    raise KeyboardInterrupt

  monkeypatch.setattr(Path, "write_bytes", interrupt)
  assert main([*SIZE, "--out", "jnd.bin", *ALONE]) == 130
  assert (folder / "jnd.bin").read_bytes() == b"older"
  assert [file.name for file in folder.iterdir()] == ["jnd.bin"]

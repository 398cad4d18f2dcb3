"""Tests that `vision` times ours, and its originals where they are."""

import sys
from pathlib import Path

import pytest

from tests.benchmarks import vision
from tests.support.butteraugli_program import PROGRAM


def test_originals_are_timed_or_the_reason_told(capsys: pytest.CaptureFixture[str]):
  arguments = ["--models", "cvvdp", "--height", "16", "--width", "24", "--runs", "1"]
  assert vision.main([*arguments, "--cvvdp-python", sys.executable]) == 0
  heading, _, score, ours, gradient, missing, _, crops, together = (
    capsys.readouterr().out.splitlines()
  )
  assert heading.startswith("16x24, medians of 1 runs, ")
  assert score.startswith("cvvdp: ")
  assert ours.endswith(" ms")
  assert gradient.endswith(" ms")
  assert missing.startswith(f"  original left out: {sys.executable}: ModuleNotFoundError: ")
  assert crops.startswith("cvvdp, 4 crops of 128; compiled in ")
  assert together.endswith(" ms")


@pytest.mark.skipif(PROGRAM is None, reason="no butteraugli_main")
def test_program_is_given_the_pair(tmp_path: Path):
  pixels = vision.to_uint8(vision.draw_image(24, 32))[0]
  files = [tmp_path / "distorted.png", tmp_path / "reference.png"]
  for file in files:
    vision.write_png(file, pixels)
  original = vision.time_program(pixels, pixels, files, runs=2)
  assert isinstance(original, vision.Original)
  assert original.score == 0
  assert list(original.seconds) == ["butteraugli_main", "butteraugli_main, own"]
  assert all(len(seconds) == 2 for seconds in original.seconds.values())

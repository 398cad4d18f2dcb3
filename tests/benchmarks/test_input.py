"""Tests that `input` measures what training reads."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.benchmarks import input as benchmark

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CPU time is read from /proc")


def test_every_size_and_stage_is_measured(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
  monkeypatch.setattr(benchmark, "_SIZES_PX", (16,))
  monkeypatch.setattr(benchmark, "_BATCH_SIZE", 2)  # Grain shuffles six records slowly
  monkeypatch.setattr(benchmark, "_STAGE_SECONDS", 0)
  monkeypatch.setattr(benchmark, "keep_freed_memory", lambda: True)  # it would stay for good
  contenders = ("folder", "tiles")  # a worker takes seconds to start
  monkeypatch.setattr(benchmark, "_CONTENDERS", dict.fromkeys(contenders, (0, 2)))
  for i in range(2):
    Image.fromarray(np.full((40, 50, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
  assert benchmark.main(["--images", str(tmp_path), "--links", "3", "--rounds", "1"]) == 0
  printed = capsys.readouterr().out
  assert "6 links to photographs, the first 40x50 PNG" in printed
  (rates,) = (line.split() for line in printed.splitlines() if line.startswith("16 px"))
  assert all(float(rate) > 0 for rate in rates[2:4])
  assert "photograph decoded" in printed

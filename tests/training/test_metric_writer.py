"""What a run leaves to be looked at, also after it was killed."""

import json
from pathlib import Path

import numpy as np
import pytest

from hvsjnd_jax.data.images import read_image
from hvsjnd_jax.training.metric_writer import MetricWriter


def read_steps(folder: Path) -> list[int]:
  return [json.loads(row)["step"] for row in (folder / "metrics.jsonl").read_text().splitlines()]


def write(folder: Path, *steps: int, after: int) -> None:
  with MetricWriter(folder, step=after) as writer:
    for step in steps:
      writer.write(step, {"loss": 1 / step, "bpp": 0.5})


def test_figures_are_rows_by_name(tmp_path: Path):
  write(tmp_path, 1, 2, after=0)
  assert (tmp_path / "metrics.jsonl").read_text() == (
    '{"step": 1, "loss": 1.0, "bpp": 0.5}\n{"step": 2, "loss": 0.5, "bpp": 0.5}\n'
  )
  assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_row_is_there_as_soon_as_it_is_written(tmp_path: Path):
  with MetricWriter(tmp_path, step=0) as writer:
    writer.write(1, {"loss": 1.0})
    assert read_steps(tmp_path) == [1]


def test_rows_after_the_resumed_step_are_taken_back(tmp_path: Path):
  write(tmp_path, 1, 2, 3, 4, 5, after=0)
  write(tmp_path, 4, 5, 6, after=3)
  assert read_steps(tmp_path) == [1, 2, 3, 4, 5, 6]
  write(tmp_path, 1, after=0)
  assert read_steps(tmp_path) == [1]
  assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', "{", '{"st', "\0\0\0"])
def test_torn_last_row_is_taken_back(tmp_path: Path, torn: str):
  write(tmp_path, 1, 2, after=0)
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write(torn)
  write(tmp_path, 3, after=2)
  assert read_steps(tmp_path) == [1, 2, 3]


def test_row_without_its_end_keeps_apart_from_the_next(tmp_path: Path):
  write(tmp_path, 1, 2, after=0)
  file = tmp_path / "metrics.jsonl"
  file.write_text(file.read_text().removesuffix("\n"))
  write(tmp_path, 3, after=2)
  assert read_steps(tmp_path)[-1] == 3


def test_sheets_are_written(tmp_path: Path):
  sheet = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
  with MetricWriter(tmp_path, step=0) as writer:
    writer.write_sheet(20, sheet)
  np.testing.assert_array_equal(read_image(tmp_path / "sheets/0000020.png"), sheet)

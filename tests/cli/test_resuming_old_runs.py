"""A JSONL file that an earlier version wrote is gone on with: its format does not change."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax import weights
from hvsjnd_jax.eval import main

SCORES = {"psnr_r": 34.25, "psnr_g": 34.375, "psnr_b": 34.5, "psnr": 34.374}

OUTPUTS = "distorted.png,jnd.png,jnd.npy,attention.png,sheet.png"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
  """What `eval --lmbda 10 --jsonl old.jsonl --save out` left of two photographs.

  Pictures of the originals were not yet among them.
  """
  monkeypatch.chdir(tmp_path)
  Path("photos").mkdir()
  for name in ("a", "b"):
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(f"photos/{name}.png")
  settings = {
    "lmbda": 10.0,
    "target_psnr": None,
    "seed": 0,
    "metrics": ["psnr"],
    "window": [512, 640],
    "weights": weights.read_manifest("default")["sha256"],
    "resolution": "fine",
    "attention": "reconstruction",
    "dtype": "float32",
    "vgg16": None,
    "outputs": OUTPUTS.split(","),
  }
  records = [
    {
      **{"path": f"photos/{name}.png", "height": 16, "width": 24, "lmbda": 10.0},
      **SCORES,
      "saved": f"out/{name}",
    }
    for name in ("a", "b")
  ]
  text = "".join(f"{json.dumps(line)}\n" for line in ({"settings": settings}, *records))
  Path("old.jsonl").write_text(text)
  return text


def test_nothing_is_done_again(written: str, capsys: pytest.CaptureFixture[str]):
  arguments = ["--path", "photos", "--lmbda", "10", "--save", "out", "--outputs", OUTPUTS]
  assert main([*arguments, "--jsonl", "old.jsonl", "--json", "report.json"]) == 0
  stdout = capsys.readouterr().out
  assert stdout.startswith("old.jsonl: 2 of 2 images are done already\nMean over 2 images:\n")
  assert Path("old.jsonl").read_text() == written
  assert not list(Path("out").iterdir())
  report = json.loads(Path("report.json").read_text())
  assert report["mean"] == SCORES
  assert list(report) == [
    *("lmbda", "target_psnr", "found_lmbda", "seed", "window", "weights"),
    *("images", "mean", "errors", "skipped"),
  ]
  assert list(report["weights"]) == ["name", "sha256", "resolution", "attention", "dtype"]


def test_outputs_that_have_come_since_are_named(written: str, capsys: pytest.CaptureFixture[str]):
  arguments = ["--path", "photos", "--lmbda", "10", "--save", "out", "--jsonl", "old.jsonl"]
  assert main(arguments) == 2
  assert 'not ["original.png", "distorted.png", ' in capsys.readouterr().err


def test_other_settings_are_refused_by_the_old_names(
  written: str, capsys: pytest.CaptureFixture[str]
):
  arguments = ["--path", "photos", "--psnr", "30", "--save", "out", "--jsonl", "old.jsonl"]
  assert main(arguments) == 2
  assert capsys.readouterr().err.startswith("eval: old.jsonl: written with lmbda 10.0, not null;")

"""The calibrating command: what a lmbda amounts to, and where noise becomes noticeable."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax import calibrate as command
from hvsjnd_jax.calibrate import main
from hvsjnd_jax.data.images import to_uint8
from hvsjnd_jax.evaluation.calibration import calibrate
from hvsjnd_jax.noise import draw_signs, inject
from hvsjnd_jax.ops.types import Pixels

SIZE = (176, 176)


@pytest.fixture
def pixels() -> Pixels:
  rng = np.random.default_rng(0)
  return rng.integers(60, 190, (*SIZE, 3)).astype(np.uint8)


@pytest.fixture
def distances(monkeypatch: pytest.MonkeyPatch) -> list[float]:
  """Stands for Butteraugli: the mean and the largest change in tens of gray levels."""
  asked: list[float] = []

  def measure(program: str, distorted: Pixels, reference: Pixels) -> dict[str, float]:
    change = np.abs(distorted.astype(float) - reference) / 10
    asked.append(change.mean())
    return {"butteraugli_3norm": change.mean(), "butteraugli_max": change.max()}

  monkeypatch.setattr("hvsjnd_jax.evaluation.calibration.butteraugli", measure)
  monkeypatch.setattr("hvsjnd_jax.evaluation.comparison.butteraugli", measure)
  monkeypatch.setattr(command, "find_butteraugli", lambda: "there")
  return asked


@pytest.mark.usefixtures("distances")
def test_scores_are_of_the_saved_picture(pixels: Pixels):
  jnd = np.random.default_rng(1).uniform(0, 0.01, pixels.shape).astype(np.float32)
  found = calibrate(pixels, lambda pixels: jnd, lmbdas=[2, 20], seed=3, program="there")
  assert list(found.scores) == ["2", "20"]
  image = pixels.astype(np.float32)[None] / 255
  noisy = inject(image, jnd[None], draw_signs(pixels, seed=3), lmbda=20)
  error = np.square(to_uint8(noisy[0]).astype(float) - pixels).mean()
  assert found.scores["20"]["psnr"] == pytest.approx(10 * math.log10(255**2 / error), abs=1e-4)
  # The map's maximum is 2.55 gray levels, its mean half of that; ten make a distance of 1.
  assert found.noticeable["butteraugli_max"] == pytest.approx(9.5 / 2.55, rel=0.02)
  assert found.noticeable["butteraugli_3norm"] == pytest.approx(10 / 1.275, rel=0.02)


@pytest.mark.usefixtures("distances")
def test_command(
  tmp_path: Path,
  pixels: Pixels,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  monkeypatch.chdir(tmp_path)
  for i in range(3):
    Image.fromarray(np.roll(pixels, i, axis=0)).save(f"{i}.png")
  Path("broken.png").write_text("no image")
  options = ["--path", ".", "--model", "uniform", "--lmbda", "10,30", "--json", "r.json"]
  assert main(options) == 1
  stdout, stderr = capsys.readouterr()
  assert stderr.startswith("calibrate: broken.png: ")
  assert stdout.startswith("uniform: means over 3 images\n")
  assert "butteraugli_max reaches 1 at lmbda " in stdout
  result = json.loads(Path("r.json").read_text())
  assert result["model"]["name"] == "uniform"
  assert [image["path"] for image in result["images"]] == ["0.png", "1.png", "2.png"]
  values = [image["scores"]["30"]["psnr"] for image in result["images"]]
  assert result["mean"]["30"]["psnr"] == pytest.approx(np.mean(values))
  lmbdas = [image["noticeable"]["butteraugli_3norm"] for image in result["images"]]
  assert result["just_noticeable"]["butteraugli_3norm"]["median"] == np.median(lmbdas)
  assert [error["path"] for error in result["errors"]] == ["broken.png"]


def test_without_butteraugli(
  tmp_path: Path,
  pixels: Pixels,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  monkeypatch.setattr(command, "find_butteraugli", lambda: None)
  Image.fromarray(pixels).save(tmp_path / "a.png")
  assert main(["--path", str(tmp_path), "--model", "uniform", "--lmbda", "10"]) == 0
  stdout, stderr = capsys.readouterr()
  assert "left out: butteraugli_main" in stderr
  assert "butteraugli" not in stdout


def test_noise_that_is_never_noticed(pixels: Pixels, distances: list[float]):
  zero = calibrate(pixels, lambda pixels: np.zeros(pixels.shape), lmbdas=[1], seed=0, program="x")
  assert zero.noticeable == {"butteraugli_max": None, "butteraugli_3norm": None}
  assert max(distances) == 0


@pytest.mark.parametrize("text", ["0", "1,,2", "nan", "inf", "a"])
def test_lmbdas_that_are_none(text: str, capsys: pytest.CaptureFixture[str]):
  with pytest.raises(SystemExit):
    main(["--lmbda", text])
  assert f"expected numbers above 0, such as 1,2,5,10,15,20, got {text}" in capsys.readouterr().err


def test_report_does_not_take_an_image_s_place(
  tmp_path: Path, pixels: Pixels, capsys: pytest.CaptureFixture[str]
):
  file = tmp_path / "a.png"
  Image.fromarray(pixels).save(file)
  before = file.read_bytes()
  assert main(["--path", str(tmp_path), "--model", "uniform", "--json", str(file)]) == 2
  assert capsys.readouterr().err.endswith("a.png: one of the images; choose another file\n")
  assert file.read_bytes() == before


def test_unknown_model(capsys: pytest.CaptureFixture[str]):
  assert main(["--model", "nobody"]) == 2
  assert "--model: unknown model 'nobody'; known: default, paper" in capsys.readouterr().err

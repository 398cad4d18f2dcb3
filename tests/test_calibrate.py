"""The calibrating command: what a lmbda amounts to, and where noise becomes noticeable."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax.calibrate import _tabulate_quartiles, main
from hvsjnd_jax.data.images import Picture, to_uint8
from hvsjnd_jax.evaluation import comparison
from hvsjnd_jax.evaluation.calibration import THRESHOLDS, calibrate, find_quartiles
from hvsjnd_jax.evaluation.estimators import Maps
from hvsjnd_jax.noise import draw_signs, inject
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.runtime.jobs import as_job, run_job

SIZE = (64, 48)  # one for all tests: one compilation


@pytest.fixture
def pixels() -> Pixels:
  rng = np.random.default_rng(0)
  return rng.integers(60, 190, (*SIZE, 3)).astype(np.uint8)


def test_scores_are_of_the_saved_picture(pixels: Pixels):
  jnd = np.random.default_rng(1).uniform(0, 0.01, pixels.shape).astype(np.float32)
  found = run_job(calibrate(Picture(pixels), as_job(lambda _: Maps(jnd)), lmbdas=[2, 20], seed=3))
  assert list(found.scores) == ["2", "20"]
  image = pixels.astype(np.float32)[None] / 255
  noisy = inject(image, jnd[None], draw_signs(pixels, seed=3), lmbda=20)
  error = np.square(to_uint8(noisy[0]).astype(float) - pixels).mean()
  assert found.scores["20"]["psnr"] == pytest.approx(10 * math.log10(255**2 / error), abs=1e-4)

  def score(lmbda: float, name: str) -> float:
    noisy = to_uint8(inject(image, jnd[None], draw_signs(pixels, seed=3), lmbda=lmbda)[0])
    value = comparison.score(noisy, pixels, metrics=(name,))[name]
    assert value is not None
    return value

  assert found.noticeable.keys() == THRESHOLDS.keys()
  for name, threshold in THRESHOLDS.items():
    lmbda = found.noticeable[name]
    assert lmbda is not None
    within, beyond = (score(scale * lmbda, threshold.metric) for scale in (0.96, 1.04))
    assert min(within, beyond) < threshold.score < max(within, beyond)


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
  result = json.loads(Path("r.json").read_text())
  assert result["model"]["name"] == "uniform"
  assert [image["path"] for image in result["images"]] == ["0.png", "1.png", "2.png"]
  values = [image["scores"]["30"]["psnr"] for image in result["images"]]
  assert result["mean"]["30"]["psnr"] == pytest.approx(np.mean(values))
  lmbdas = [image["noticeable"]["butteraugli_3norm"] for image in result["images"]]
  assert result["just_noticeable"]["butteraugli_3norm"]["median"] == np.median(lmbdas)
  assert [error["path"] for error in result["errors"]] == ["broken.png"]
  assert list(result["just_noticeable"]) == [
    *("butteraugli_max", "butteraugli_3norm", "ssimulacra2_90", "ssimulacra2_80"),
    *("cvvdp_9.5", "cvvdp_9", "cvvdp_fhd_9.5", "cvvdp_fhd_9"),
  ]
  values = {key: f"{value:.3g}" for key, value in result["just_noticeable"]["cvvdp_9"].items()}
  (line,) = [line for line in stdout.splitlines() if line.startswith("ColorVideoVDP, 4K: 9 JOD")]
  assert line.split("JOD")[1].split() == [
    *(values["median"], values["q1"], "to", values["q3"]),
    *["3", "of", "4", "prefer", "the", "original"],
  ]


def test_noise_that_is_never_noticed(pixels: Pixels):
  zeros = as_job(lambda pixels: Maps(np.zeros(pixels.shape)))
  zero = run_job(calibrate(Picture(pixels), zeros, lmbdas=[1], seed=0))
  assert zero.noticeable == dict.fromkeys(THRESHOLDS)
  quartiles = {name: find_quartiles([None]) for name in THRESHOLDS}
  for line in _tabulate_quartiles(quartiles).splitlines()[1:]:
    assert "never  never to never" in line


@pytest.mark.parametrize("text", ["0", "1,,2", "nan", "inf", "a"])
def test_lmbdas_that_are_none(text: str, capsys: pytest.CaptureFixture[str]):
  with pytest.raises(SystemExit):
    main(["--lmbda", text])
  assert f"such as 1,2,5 or 2,4,...,20, got {text}" in capsys.readouterr().err


def test_report_does_not_take_an_image_s_place(
  tmp_path: Path, pixels: Pixels, capsys: pytest.CaptureFixture[str]
):
  file = tmp_path / "a.png"
  Image.fromarray(pixels).save(file)
  before = file.read_bytes()
  assert main(["--path", str(tmp_path), "--model", "uniform", "--json", str(file)]) == 2
  assert capsys.readouterr().err.endswith("a.png: one of the files to read; choose another\n")
  assert file.read_bytes() == before


def test_unknown_model(capsys: pytest.CaptureFixture[str]):
  assert main(["--model", "nobody"]) == 2
  assert "--model: unknown model 'nobody'; known: default, fast, paper" in capsys.readouterr().err

"""Tests that `speed` compares equal computations and counts them right, and `human`'s ranks."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.stats
from PIL import Image

import hvsjnd_jax
from hvsjnd_jax.baselines import BASELINES
from hvsjnd_jax.evaluation import estimators
from hvsjnd_jax.evaluation.scores import ImageScores
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.training.config import Stage

pytest.importorskip("torch")

from tests.benchmarks import human, judge, speed_estimate, speed_layers, speed_train, steps
from tests.benchmarks.contenders import CHANNELS_LAST, NCHW, Form, to_torch
from tests.benchmarks.pictures import draw_image
from tests.support.former_masking import former_threshold

# Of a layer's maximum; 2e-6 was measured.
LAYER = 1e-5

SAME: ImageScores = {"ssim": 0.5, "ms_ssim": 0.5, "fsim": 0.5}


@pytest.fixture(scope="module")
def paper_model() -> JNDModel:
  return hvsjnd_jax.load("paper")


@pytest.mark.parametrize("form", [NCHW, CHANNELS_LAST], ids=["nchw", "channels_last"])
def test_twin_estimates_as_we_do(paper_model: JNDModel, form: Form):
  image = draw_image(48, 64)
  ours = np.asarray(speed_estimate.prepare_ours(paper_model, image)())
  theirs = speed_estimate.prepare_theirs(paper_model, image, form=form)().numpy()
  np.testing.assert_allclose(
    theirs, ours, rtol=0, atol=speed_estimate.ESTIMATE_TOLERANCE * ours.max()
  )


@pytest.mark.parametrize(("stage", "crop_px"), [("hvs_sd", 64), ("jnd", 168)])
def test_twin_trains_as_we_do(stage: Stage, crop_px: int):
  config = steps.load_recipe("paper")
  config.hvs_sd.batch_size, config.jnd.batch_size = 2, 1
  crops = steps.draw_crops(config.settings(stage).batch_size, crop_px)
  ours = speed_train.prepare_our_step(config, stage, crops)()
  theirs = speed_train.prepare_their_step(config, stage, crops, form=CHANNELS_LAST)()
  np.testing.assert_allclose(theirs, ours, rtol=speed_train.STEP_TOLERANCE)


def test_layers_are_the_same_in_both_libraries():
  import torch

  rng = np.random.default_rng(0)
  for name, layer in speed_layers.list_layers().items():
    images = rng.standard_normal((1, 8, 12, layer.images[-1]), np.float32)
    kernel = rng.standard_normal(layer.kernel, np.float32)
    weights = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous()
    theirs = layer.theirs(to_torch(images, NCHW), weights)
    theirs = theirs.permute(*((2, 3, 1, 0) if "gradient" in name else (0, 2, 3, 1))).numpy()
    for function in filter(None, (layer.ours, layer.plain)):
      ours = np.asarray(function(images, kernel))
      np.testing.assert_allclose(ours, theirs, rtol=0, atol=LAYER * np.abs(theirs).max())


def test_flop_are_those_of_the_layers(paper_model: JNDModel):
  flop = speed_estimate.count_flop(paper_model)
  # 3x3, 7 to 32 channels at every pixel, and 32 to 32 at every fourth.
  assert flop["generator.conv1"] == 2 * 9 * 7 * 32
  assert flop["generator.conv2"] == 2 * 9 * 32 * 32 / 4
  # 5x5, 128 to 128 channels, from a 64th of the pixels; forward and back.
  assert flop["hvs_sd.decoder.deconv1"] == 2 * 2 * 25 * 128 * 128 / 64
  assert sum(flop.values()) == 341_036


def test_rank_correlation_is_scipy_s():
  rng = np.random.default_rng(0)
  first, second = rng.integers(9, size=(2, 3, 24)).astype(float)  # with ties
  ours = human._spearman(first, second)
  wanted = [np.asarray(scipy.stats.spearmanr(a, b))[0] for a, b in zip(first, second, strict=True)]
  np.testing.assert_allclose(ours, wanted, atol=1e-12)


def test_interval_holds_the_correlation_and_shrinks():
  rng = np.random.default_rng(0)
  widths = []
  for n in (20, 200):
    judged = rng.random(n)
    found = human.correlate((judged + 0.5 * rng.random(n)).tolist(), judged.tolist())
    assert found is not None
    assert 0.5 < found.low < found.rho < found.high < 1
    widths.append(found.high - found.low)
  assert widths[1] < widths[0] / 2
  assert human.correlate([1, 1, 1], [1, 2, 3]) is None


def test_levels_are_means_in_gray_levels():
  jnd = np.asarray([0, 4, 16, 16]).reshape(2, 2, 1).repeat(3, axis=-1).astype(np.float32) / 255
  levels = human.measure_levels(jnd)
  assert levels == pytest.approx((9, (0.01 * 4 * 16 * 16) ** (1 / 4)), abs=1e-6)


@pytest.fixture
def judged(tmp_path: Path) -> Path:
  """Makes four images; one study judges the brighter ones higher, and the other lower."""
  for folder in ("kodak", "human"):
    (tmp_path / folder).mkdir()
  noise, jpeg = "ref,t01_l1,t01_l2,t01_l3,t01_l4\n", "ref,level_lo,level_hi\n"
  for i in range(1, 5):
    pixels = np.random.default_rng(i).integers(50 * i, size=(48, 64, 3)).astype(np.uint8)
    for name in (f"kodak/kodim0{i}.png", f"human/q{i}.png"):
      Image.fromarray(pixels).save(tmp_path / name)
    noise += f"I0{i},{-9 * i},{5 + i},{5 - i},{4 + i}\n"
    jpeg += f"q{i}.png,{60 - i},{70 - i}\n"
  (tmp_path / "human/tid2013_mos_noise_types_kodak24.csv").write_text(f"{noise}I25,9,9,9,9\n")
  (tmp_path / "human/konjnd_quiz_jpeg.csv").write_text(jpeg)
  return tmp_path


def test_models_are_set_against_people(
  judged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
  def draw(images: np.ndarray) -> jax.Array:
    return jax.numpy.asarray(images) * 0.1

  bright = BASELINES["uniform"]._replace(function=draw)
  baselines = {"uniform": BASELINES["uniform"], "bright": bright}
  for module in (human, estimators):
    monkeypatch.setattr(module, "BASELINES", baselines)
  assert human.read_noise_study(judged).judged == pytest.approx([5, 16 / 3, 17 / 3, 6])
  assert human.read_jpeg_study(judged).judged == [64, 63, 62, 61]
  assert human.main(["--data", str(judged)]) == 0
  _, heading, default, uniform, ours = capsys.readouterr().out.splitlines()
  assert re.findall(r"(noise|JPEG), n=4, (\w+)", heading) == [
    (study, kind) for study in ("noise", "JPEG") for kind in ("arithmetic", "geometric")
  ]
  assert re.fullmatch(r"default( +[+-]\d\.\d\d \[[+-]\d\.\d\d, [+-]\d\.\d\d\]){4}", default)
  assert uniform.split() == ["uniform", *"----"]
  up, down = "+1.00 [+1.00, +1.00]", "-1.00 [-1.00, -1.00]"
  assert re.findall(r"\S+ \[.*?\]", ours) == [up, up, down, down]


def test_missing_judgements_are_named(judged: Path, capsys: pytest.CaptureFixture[str]):
  faults = {
    "human/q2.png": r".*q2\.png: ",
    "human/konjnd_quiz_jpeg.csv": r".*quiz_jpeg\.csv: No such file .*; give the folder",
  }
  for name, reason in faults.items():
    (judged / name).unlink()
    assert human.main(["--data", str(judged)]) == 2
    assert re.match(f"human: {reason}", capsys.readouterr().err)
  table = judged / "human/tid2013_mos_noise_types_kodak24.csv"
  table.write_text("ref,t01_l2\nI01,2\n")
  assert human.main(["--data", str(judged)]) == 2
  assert "expected the column ref, and numbers in t01_l2, t01_l3" in capsys.readouterr().err


@pytest.mark.parametrize("value", [0, 128, 255])
def test_former_masking_of_flat_pictures(value: int):
  thresholds = former_threshold(np.full((8, 8, 3), value, np.uint8))
  want = 2 / 255 * ((value / 255 + 3 / 255) / (0.5 + 3 / 255)) ** -0.25
  np.testing.assert_allclose(thresholds, want, rtol=1e-6)


def test_judge_averages_changes_of_losses():
  """Of scores that are the better the higher, it is the distance to the best that counts."""

  def make(seen: float, ssimulacra2: float, cvvdp: float) -> ImageScores:
    scores: ImageScores = dict.fromkeys(("butteraugli_3norm", "butteraugli_max", "gmsd"), seen)
    return scores | {"ssimulacra2": ssimulacra2, "cvvdp": cvvdp} | SAME

  former = [make(2, 80, 9)] * 2
  ours = [make(1, 90, 9.5), make(2.2, 78, 8.9)]
  half = "-20.0 (50)"
  assert judge._judge(ours, former) == [half, half, half, half, *["+0.0 (0)"] * 2, half, "+0.0 (0)"]

"""The speed benchmark compares two of the same, and counts right."""

import numpy as np
import pytest

import hvsjnd_jax
from hvsjnd_jax.config import JNDConfig, RateDistortionConfig, Stage, TrainConfig
from hvsjnd_jax.estimator import JNDModel

pytest.importorskip("torch")

from tests.benchmarks import speed
from tests.benchmarks.pictures import draw_image


@pytest.fixture(scope="module")
def default_model() -> JNDModel:
  return hvsjnd_jax.load()


@pytest.mark.parametrize("form", [speed.NCHW, speed.CHANNELS_LAST], ids=["nchw", "channels_last"])
def test_twin_estimates_as_we_do(default_model: JNDModel, form: speed.Form):
  image = draw_image(48, 64)
  ours = np.asarray(speed.prepare_ours(default_model, image)())
  theirs = speed.prepare_theirs(default_model, image, form=form)().numpy()
  np.testing.assert_allclose(theirs, ours, rtol=0, atol=speed.ESTIMATE_TOLERANCE * ours.max())


@pytest.mark.parametrize(("stage", "crop_px"), [("hvs_sd", 64), ("jnd", 168)])
def test_twin_trains_as_we_do(stage: Stage, crop_px: int):
  config = TrainConfig(hvs_sd=RateDistortionConfig(batch_size=2), jnd=JNDConfig(batch_size=1))
  crops = speed.draw_crops(config.settings(stage).batch_size, crop_px)
  ours = speed.prepare_our_step(config, stage, crops)()
  theirs = speed.prepare_their_step(config, stage, crops, form=speed.CHANNELS_LAST)()
  np.testing.assert_allclose(theirs, ours, rtol=speed.STEP_TOLERANCE)


def test_flop_are_those_of_the_layers(default_model: JNDModel):
  flop = speed.count_flop(default_model)
  # 3x3, 7 to 32 channels at every pixel, and 32 to 32 at every fourth.
  assert flop["generator.conv1"] == 2 * 9 * 7 * 32
  assert flop["generator.conv2"] == 2 * 9 * 32 * 32 / 4
  # 5x5, 128 to 128 channels, from a 64th of the pixels; forward and back.
  assert flop["hvs_sd.decoder.deconv1"] == 2 * 2 * 25 * 128 * 128 / 64
  assert sum(flop.values()) == 341_036

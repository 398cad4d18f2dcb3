"""A small training run, shared by the tests."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax.training.config import RateDistortionConfig, StageChoice, TrainConfig
from hvsjnd_jax.training.loop import train
from tests.training.runs import STEPS, MakeConfig, Reports, paper_config


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
  folder = tmp_path_factory.mktemp("photos")
  rng = np.random.default_rng(0)
  for i in range(3):
    coarse = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((200, 190), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
  return folder


@pytest.fixture(scope="session")
def make_config(photos: Path) -> MakeConfig:
  def make(stage: StageChoice) -> TrainConfig:
    small: dict[str, Any] = {"num_steps": STEPS, "batch_size": 1, "warmup_steps": 1}
    config = TrainConfig(
      stage=stage,
      log_every_steps=1,
      checkpoint_every_steps=2,
      hvs_sd=RateDistortionConfig(channels=8, crop_px=16, ordering_weight=0.0, **small),
      jnd=paper_config(crop_px=168, **small),
    )
    config.data.images = str(photos)
    return config

  return make


@pytest.fixture(scope="session")
def workdir(tmp_path_factory: pytest.TempPathFactory, make_config: MakeConfig) -> Path:
  """Returns the folder of a run of both stages, trained a few steps without a stop."""
  folder = tmp_path_factory.mktemp("run")
  reports = Reports()
  train(make_config("both"), folder, report=reports)
  assert reports == [(stage, i + 1) for stage in ("hvs_sd", "jnd") for i in range(STEPS)]
  return folder

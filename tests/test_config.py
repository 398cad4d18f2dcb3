"""Every setting is checked before any work."""

import importlib.util
from pathlib import Path

import pytest

from hvsjnd_jax.config import TrainConfig

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))


def load(file: Path) -> TrainConfig:
  spec = importlib.util.spec_from_file_location(file.stem, file)
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_shipped_configs_need_photographs_alone(file: Path):
  config = load(file)
  config.data.images = "photos"
  config.validate()


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("stage", "both"),
    ("batch_size", 0),
    ("num_steps", 0),
    ("log_every_steps", 0),
    ("checkpoint_every_steps", -1),
    ("data.images", ""),
    ("data.crop_px", 100),
    ("data.crop_px", 160),  # too small for MS-SSIM
    ("data.min_scale", 0.0),
    ("data.max_scale", 0.5),
    ("data.threads", 0),
    ("optimizer.learning_rate", 0.0),
    ("optimizer.learning_rate", float("nan")),
    ("optimizer.warmup_steps", 10_000),
    ("optimizer.clip_norm", 0.0),
    ("optimizer.ema_decay", 1.0),
    ("hvs_sd.train_lambda", -1.0),
    ("jnd.lmbda", 0.0),
    ("jnd.magnitude_target", 0.0),
    ("jnd.quality_weight", -1.0),
    ("jnd.visibility_weight", float("nan")),
    ("jnd.resolution", "full"),
    ("jnd.attention", "decoder"),
  ],
)
def test_impossible_value_is_named(name: str, value: object):
  config = TrainConfig(stage="jnd")
  config.data.images = "photos"
  config.validate()
  *path, leaf = name.split(".")
  holder = config
  for part in path:
    holder = getattr(holder, part)
  setattr(holder, leaf, value)
  with pytest.raises(ValueError, match=rf"config\.{name} must be .*, got {value!r}"):
    config.validate()

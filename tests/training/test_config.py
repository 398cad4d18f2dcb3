"""Every setting is checked before any work."""

import importlib.util
from pathlib import Path
from typing import get_args

import pytest

from hvsjnd_jax.data.config import DataConfig
from hvsjnd_jax.training.config import JNDTerm, TrainConfig

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


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
  if file.stem == "tiny":  # and the smallest not even them
    config.validate()
    return
  with pytest.raises(ValueError, match=r"config\.data\.images must be a folder"):
    config.validate()
  config.data.images = "photos"
  config.validate()


def test_recipes_are_those_of_the_default_weights():
  """The recipes list their values again, so that a reader finds them: here they are the same."""
  default, hvs_sd, jnd = (
    load(CONFIGS[0].parent / f"{name}.py") for name in ("default", "hvs_sd", "jnd")
  )
  assert default == TrainConfig()
  assert hvs_sd == TrainConfig(stage="hvs_sd")
  assert jnd == TrainConfig(stage="jnd")


def test_both_stages_are_trained_by_default():
  assert TrainConfig().stages == TrainConfig(stage="both").stages == ("hvs_sd", "jnd")
  assert TrainConfig(stage="jnd").stages == ("jnd",)


@pytest.mark.parametrize(
  ("images", "tfds", "synthetic"),
  [("", "", 0), ("photos", "coco", 0), ("photos", "", 3), ("", "coco", 3), ("photos", "coco", 3)],
)
def test_photographs_come_from_one_place(images: str, tfds: str, synthetic: int):
  config = TrainConfig()
  config.data.images, config.data.tfds, config.data.synthetic = images, tfds, synthetic
  with pytest.raises(ValueError, match="one of the three"):
    config.validate()


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("stage", "all"),
    ("seed", -1),
    ("seed", 2**32),
    ("compute_dtype", "float16"),
    ("log_every_steps", 0),
    ("sheet_every_steps", 0),
    ("checkpoint_every_steps", -1),
    ("keep_checkpoints", 0),
    ("keep_every_steps", -1),
    ("keep_every_steps", 750),  # of which every second would not be saved
    ("data.images", ""),
    ("data.synthetic", -1),
    ("data.min_scale", 0.0),
    ("data.max_scale", 0.5),
    ("data.threads", 0),
    ("hvs_sd.rate_distortion_lambda", -1.0),
    ("hvs_sd.crop_px", 100),
    ("hvs_sd.crop_px", 0),
    ("hvs_sd.crop_px", 112),  # too small for SSIMULACRA 2
    ("hvs_sd.channels", 0),
    ("hvs_sd.ordering_weight", -1.0),
    ("hvs_sd.accumulation_steps", 3),  # of a batch of 4
    ("jnd.num_steps", 0),
    ("jnd.crop_px", 160),  # too small for MS-SSIM
    ("jnd.learning_rate", 0.0),
    ("jnd.learning_rate", float("nan")),
    ("jnd.batch_size", 0),
    ("jnd.accumulation_steps", 0),
    ("jnd.accumulation_steps", 8),
    ("jnd.warmup_steps", 2_000),  # all of them
    ("jnd.clip_norm", 0.0),
    ("jnd.ema_decay", 1.0),
    ("jnd.lmbda", 0.0),
    ("jnd.noise", "none"),
    ("jnd.min_psnr", 0.0),
    ("jnd.max_psnr", 20.0),  # below min_psnr
    ("jnd.own_signs", 1.5),
    ("jnd.generator_channels", 0),
    ("jnd.priors", False),  # though stage 1 is trained
    ("jnd.jod_weight", float("inf")),
    ("jnd.magnitude_target", 0.0),
    ("jnd.quality_weight", -1.0),
    ("jnd.visibility_weight", float("nan")),
    ("jnd.visibility_power", 0.5),
    ("jnd.hvs_sd", "default"),
    ("jnd.resolution", "full"),
    ("jnd.attention_layer", "decoder"),
    ("jnd.magnitude_form", "peak"),
    ("jnd.quality_form", "psnr"),
    ("jnd.quality_domain", "feature"),
    ("jnd.attention_form", "l2"),
  ],
)
def test_impossible_value_is_named(name: str, value: object):
  config = TrainConfig()
  config.data.images = "photos"
  config.validate()
  *path, leaf = name.split(".")
  holder = config
  for part in path:
    holder = getattr(holder, part)
  setattr(holder, leaf, value)
  with pytest.raises(ValueError, match=rf"config\.{name} must be .*, got {value!r}"):
    config.validate()


def test_stage_two_needs_a_term():
  config = TrainConfig(data=DataConfig(synthetic=1))
  for term in get_args(JNDTerm):
    setattr(config.jnd, f"{term}_weight", 0.0)
  with pytest.raises(ValueError, match=r"at least one term of config\.jnd must be above 0"):
    config.validate()
  config.jnd.jod_weight = 0.1
  config.validate()


def test_aic_needs_the_folders_of_its_networks():
  config = TrainConfig()
  config.data.images = "photos"
  config.jnd.quality_form = "aic"
  for name, file in (("vgg16", "vgg16-397923af.pth"), ("classifier", "CL_resNet34.pth")):
    command = rf"python -m convert\.from_torch --{name} {file} --out DIR"
    advice = rf"a folder .*\(in a clone of the repository: {command}\)"
    with pytest.raises(ValueError, match=rf"config\.jnd\.{name} must be {advice}"):
      config.validate()
    setattr(config.jnd, name, "folder")
  config.validate()

"""What a training run is: every setting, its meaning, its default, and its check.

The files in configs/ fill this in; `--config.x=y` on the command line overrides it.
"""

import dataclasses
from typing import Literal, get_args

from hvsjnd_jax.generator import Resolution
from hvsjnd_jax.losses import JNDConfig, RateDistortionConfig
from hvsjnd_jax.priors import AttentionLayer

Stage = Literal["hvs_sd", "jnd"]


@dataclasses.dataclass(slots=True)
class DataConfig:
  """Where the photographs are and how crops are cut from them."""

  images: str = ""  # a folder, walked recursively
  crop_px: int = 176
  # A crop is cut crop_px/scale wide and resized (bicubic) to crop_px.
  min_scale: float = 0.6
  max_scale: float = 1.0
  threads: int = 2


@dataclasses.dataclass(slots=True)
class OptimizerConfig:
  """Adam with warm-up, cosine decay to a hundredth, and gradient clipping."""

  learning_rate: float = 1e-4
  warmup_steps: int = 100
  clip_norm: float = 5.0
  ema_decay: float = 0.999


@dataclasses.dataclass(slots=True)
class TrainConfig:
  """One stage of training."""

  stage: Stage = "hvs_sd"
  seed: int = 0
  batch_size: int = 4
  num_steps: int = 10_000
  log_every_steps: int = 50
  checkpoint_every_steps: int = 500
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
  hvs_sd: RateDistortionConfig = dataclasses.field(default_factory=RateDistortionConfig)
  jnd: JNDConfig = dataclasses.field(default_factory=JNDConfig)

  def validate(self) -> None:
    """Checks every setting.

    Raises:
      ValueError: Naming the setting, what it must be, and what it is.
    """
    _require(self.stage in get_args(Stage), "stage", "'hvs_sd' or 'jnd'", self.stage)
    for name in ("batch_size", "num_steps", "log_every_steps", "checkpoint_every_steps"):
      _require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))

    data, optimizer, jnd = self.data, self.optimizer, self.jnd
    _require(bool(data.images), "data.images", "a folder of photographs", data.images)
    # MS-SSIM needs more than 160 pixels; HVS-SD needs multiples of 8.
    least = 168 if self.stage == "jnd" else 8
    fits = data.crop_px >= least and data.crop_px % 8 == 0
    _require(fits, "data.crop_px", f"a multiple of 8, at least {least}", data.crop_px)
    scales = 0 < data.min_scale <= data.max_scale
    got = (data.min_scale, data.max_scale)
    _require(scales, "data.min_scale, data.max_scale", "0 < min <= max", got)
    _require(data.threads >= 1, "data.threads", "at least 1", data.threads)

    rate = optimizer.learning_rate
    _require(rate > 0, "optimizer.learning_rate", "above 0", rate)
    warmup = optimizer.warmup_steps
    _require(0 <= warmup < self.num_steps, "optimizer.warmup_steps", "in [0, num_steps)", warmup)
    _require(optimizer.clip_norm > 0, "optimizer.clip_norm", "above 0", optimizer.clip_norm)
    decay = optimizer.ema_decay
    _require(0 <= decay < 1, "optimizer.ema_decay", "in [0, 1)", decay)

    _require(self.hvs_sd.train_lambda > 0, "hvs_sd.train_lambda", "above 0", self.hvs_sd)
    for name in ("lmbda", "magnitude_target"):
      _require(getattr(jnd, name) > 0, f"jnd.{name}", "above 0", getattr(jnd, name))
    for name in ("magnitude", "quality", "attention", "visibility"):
      weight = getattr(jnd, f"{name}_weight")
      _require(weight >= 0, f"jnd.{name}_weight", "at least 0", weight)
    for name, option in (("resolution", Resolution), ("attention", AttentionLayer)):
      value = getattr(jnd, name)
      known = get_args(option)
      _require(value in known, f"jnd.{name}", " or ".join(map(repr, known)), value)


def _require(condition: bool, name: str, wanted: str, got: object) -> None:
  if not condition:
    raise ValueError(f"config.{name} must be {wanted}, got {got!r}")

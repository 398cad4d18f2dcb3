"""What a training run is: every setting, its meaning, its default, and its check.

The files in configs/ fill this in; `--config.x=y` on the command line overrides it.
"""

import dataclasses
import operator
from collections.abc import Callable
from typing import Any, Literal, get_args

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
    positive, counts = (lambda value: value > 0), (lambda value: value >= 1)
    # MS-SSIM needs more than 160 pixels, HVS-SD multiples of 8.
    least_px = 168 if self.stage == "jnd" else 8
    rules: list[tuple[str, Callable[[Any], bool], str]] = [
      ("stage", lambda value: value in get_args(Stage), _either(Stage)),
      ("batch_size", counts, "at least 1"),
      ("num_steps", counts, "at least 1"),
      ("log_every_steps", counts, "at least 1"),
      ("checkpoint_every_steps", counts, "at least 1"),
      ("data.images", bool, "a folder of photographs"),
      (
        "data.crop_px",
        lambda value: value >= least_px and value % 8 == 0,
        f"a multiple of 8, at least {least_px}",
      ),
      ("data.min_scale", positive, "above 0"),
      ("data.max_scale", lambda value: value >= self.data.min_scale, "at least data.min_scale"),
      ("data.threads", counts, "at least 1"),
      ("optimizer.learning_rate", positive, "above 0"),
      ("optimizer.warmup_steps", lambda value: 0 <= value < self.num_steps, "in [0, num_steps)"),
      ("optimizer.clip_norm", positive, "above 0"),
      ("optimizer.ema_decay", lambda value: 0 <= value < 1, "in [0, 1)"),
      ("hvs_sd.train_lambda", positive, "above 0"),
      ("jnd.lmbda", positive, "above 0"),
      ("jnd.magnitude_target", positive, "above 0"),
      *(
        (f"jnd.{term}_weight", lambda value: value >= 0, "at least 0")
        for term in ("magnitude", "quality", "attention", "visibility")
      ),
      ("jnd.resolution", lambda value: value in get_args(Resolution), _either(Resolution)),
      ("jnd.attention", lambda value: value in get_args(AttentionLayer), _either(AttentionLayer)),
    ]
    for name, holds, wanted in rules:
      value = operator.attrgetter(name)(self)
      if not holds(value):
        raise ValueError(f"config.{name} must be {wanted}, got {value!r}")


def _either(option: Any) -> str:
  return " or ".join(map(repr, get_args(option)))

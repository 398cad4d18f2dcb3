"""What a training run is: every setting, its meaning, its default, and its check.

The files in configs/ fill this in; `--config.x=y` on the command line overrides it.
"""

import dataclasses
import math
import operator
from collections.abc import Callable
from typing import Any, Literal, get_args

from hvsjnd_jax.generator import Resolution
from hvsjnd_jax.hvs_sd import STRIDE
from hvsjnd_jax.priors import AttentionLayer

Stage = Literal["hvs_sd", "jnd"]


@dataclasses.dataclass(slots=True)
class DataConfig:
  """Where the photographs are and how crops are cut from them.

  Each photograph gives one crop an epoch, cut crop_px/scale wide and resized (bicubic).
  Deviation: the published code cuts 4·H·W/176² crops from each.
  """

  # One of the two: a folder, walked recursively; or a TensorFlow dataset, by its name or
  # by the folder that it was prepared in (`python -m hvsjnd_jax.data build`).
  images: str = ""
  tfds: str = ""
  tfds_split: str = "train"
  crop_px: int = 176
  min_scale: float = 0.6
  max_scale: float = 1.0
  threads: int = 2  # that read and cut ahead of the step


@dataclasses.dataclass(slots=True)
class OptimizerConfig:
  """Adam with linear warm-up and cosine decay to a hundredth of the learning rate."""

  learning_rate: float = 1e-4  # at the end of the warm-up
  warmup_steps: int = 100
  clip_norm: float = 5.0  # longer gradients are shortened to it
  ema_decay: float = 0.999  # of the average of the weights, which is what is exported


@dataclasses.dataclass(slots=True)
class RateDistortionConfig:
  """Stage 1: train_lambda · MSE + bits per pixel."""

  train_lambda: float = 1024.0  # bits per pixel for an MSE of 1, images in [0, 1]


@dataclasses.dataclass(slots=True)
class JNDConfig:
  """Stage 2: targets, weights, and the form of the estimate that is trained."""

  lmbda: float = 10.0  # noise scale at which the map is trained, and meant to be used
  magnitude_target: float = 0.0235  # typical lmbda · map in each channel: 6 gray levels
  # Weights of the terms of `losses.jnd_objective`.
  magnitude_weight: float = 1.0
  quality_weight: float = 1.0
  attention_weight: float = 0.3
  visibility_weight: float = 3.0
  # Written into the weights as the defaults of `estimate`.
  resolution: Resolution = "native"
  attention: AttentionLayer = "reconstruction"


@dataclasses.dataclass(slots=True)
class TrainConfig:
  """One stage of training."""

  stage: Stage = "hvs_sd"
  seed: int = 0  # of initial weights, crops and noise
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

    def positive(value: float) -> bool:
      return value > 0 and math.isfinite(value)

    def counts(value: int) -> bool:
      return value >= 1

    # MS-SSIM, a term of stage 2, needs more than 160 pixels.
    least_px = 168 if self.stage == "jnd" else STRIDE
    rules: list[tuple[str, Callable[[Any], bool], str]] = [
      ("stage", lambda value: value in get_args(Stage), _either(Stage)),
      ("seed", lambda value: 0 <= value < 2**32, "in [0, 2^32)"),
      ("batch_size", counts, "at least 1"),
      ("num_steps", counts, "at least 1"),
      ("log_every_steps", counts, "at least 1"),
      ("checkpoint_every_steps", counts, "at least 1"),
      (
        "data.images",
        lambda value: bool(value) != bool(self.data.tfds),
        "a folder of photographs (or data.tfds a dataset; one of the two)",
      ),
      (
        "data.crop_px",
        lambda value: value >= least_px and value % STRIDE == 0,
        f"a multiple of {STRIDE}, at least {least_px}",
      ),
      ("data.min_scale", positive, "above 0 and finite"),
      (
        "data.max_scale",
        lambda value: self.data.min_scale <= value < math.inf,
        "at least min_scale",
      ),
      ("data.threads", counts, "at least 1"),
      ("optimizer.learning_rate", positive, "above 0 and finite"),
      ("optimizer.warmup_steps", lambda value: 0 <= value < self.num_steps, "in [0, num_steps)"),
      ("optimizer.clip_norm", positive, "above 0 and finite"),
      ("optimizer.ema_decay", lambda value: 0 <= value < 1, "in [0, 1)"),
      ("hvs_sd.train_lambda", positive, "above 0 and finite"),
      ("jnd.lmbda", positive, "above 0 and finite"),
      ("jnd.magnitude_target", positive, "above 0 and finite"),
      *(
        (f"jnd.{term}_weight", lambda value: 0 <= value < math.inf, "at least 0 and finite")
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

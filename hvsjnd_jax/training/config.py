"""What a training run is: every setting, its meaning, its default, and its check.

The files in configs/ fill this in; `--config.x=y` on the command line overrides it.
"""

import dataclasses
import math
import operator
from collections.abc import Callable
from typing import Any, Literal, get_args

from hvsjnd_jax.data.config import DataConfig
from hvsjnd_jax.model.hvs_sd import STRIDE
from hvsjnd_jax.model.jnd_map import Resolution
from hvsjnd_jax.model.priors import AttentionLayer

Stage = Literal["hvs_sd", "jnd"]

StageChoice = Literal["hvs_sd", "jnd", "both"]

ComputeDtype = Literal["float32", "bfloat16"]

# Forms of the terms of stage 2; `losses` says what each computes.
MagnitudeForm = Literal["geometric", "rms", "mean", "total_variation"]

QualityForm = Literal["ms_ssim_gmsd", "ms_ssim", "aic"]

QualityDomain = Literal["perceptual", "pixels"]

AttentionForm = Literal["l1", "kl", "correlation"]

# A setting's name, what holds of its value, and that in words.
_Rule = tuple[str, Callable[[Any], bool], str]


@dataclasses.dataclass(slots=True)
class StageConfig:
  """How long a stage trains, on what batches, and how it descends.

  Adam with linear warm-up and cosine decay to a hundredth of the learning rate.
  """

  num_steps: int
  crop_px: int
  learning_rate: float  # at the end of the warm-up
  batch_size: int = 4  # crops a step, over all devices of all processes
  accumulation_steps: int = 1  # parts that a batch is computed in, one after the other
  warmup_steps: int = 100
  clip_norm: float = 5.0  # longer gradients are shortened to it
  ema_decay: float = 0.999  # of the average of the weights, which is what is exported


@dataclasses.dataclass(slots=True)
class RateDistortionConfig(StageConfig):
  """Stage 1: train_lambda · MSE + bits per pixel."""

  num_steps: int = 7_000
  crop_px: int = 128
  learning_rate: float = 4e-4
  train_lambda: float = 1024.0  # bits per pixel for an MSE of 1, images in [0, 1]


@dataclasses.dataclass(slots=True)
class JNDConfig(StageConfig):
  """Stage 2: targets, weights, and the form of the estimate that is trained."""

  # Weights (a folder, or shipped ones by name) whose HVS-SD the generator is trained behind;
  # "": that of stage 1 in the same workdir.
  hvs_sd: str = ""

  num_steps: int = 600
  crop_px: int = 176
  learning_rate: float = 1e-3
  lmbda: float = 10.0  # noise scale at which the map is trained, and meant to be used
  magnitude_target: float = 0.5  # typical lmbda · map in each channel, in masking thresholds
  # Terms of `losses.jnd_objective`; the first form of each is ours.
  magnitude_form: MagnitudeForm = "geometric"
  quality_form: QualityForm = "ms_ssim_gmsd"
  quality_domain: QualityDomain = "perceptual"  # what is compared: x2 with y2, or x with y
  attention_form: AttentionForm = "l1"
  # Folders of weights, for quality_form "aic" alone; see `python -m convert.from_torch`.
  vgg16: str = ""
  classifier: str = ""
  # Weights of the terms.
  magnitude_weight: float = 1.0
  quality_weight: float = 3.0
  attention_weight: float = 0.3
  visibility_weight: float = 0.25
  visibility_power: float = 2.0  # of the noise; the higher, the more peaks count
  # Written into the weights as the defaults of `estimate`.
  resolution: Resolution = "fine"
  attention: AttentionLayer = "reconstruction"


@dataclasses.dataclass(slots=True)
class TrainConfig:
  """One run: stage 1, stage 2, or both, one after the other."""

  stage: StageChoice = "both"
  seed: int = 0  # of initial weights, crops and noise
  compute_dtype: ComputeDtype = "float32"  # of the layers; parameters are always float32
  log_every_steps: int = 50
  sheet_every_steps: int = 500  # a picture of what the networks make of the first crop
  checkpoint_every_steps: int = 500
  keep_checkpoints: int = 3  # the newest
  keep_every_steps: int = 0  # and, for good, those of every so many steps; 0: none
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  hvs_sd: RateDistortionConfig = dataclasses.field(default_factory=RateDistortionConfig)
  jnd: JNDConfig = dataclasses.field(default_factory=JNDConfig)

  @property
  def stages(self) -> tuple[Stage, ...]:
    """The stages to train, in order."""
    return get_args(Stage) if self.stage == "both" else (self.stage,)

  def settings(self, stage: Stage) -> StageConfig:
    """The settings that a stage has of its own."""
    return self.hvs_sd if stage == "hvs_sd" else self.jnd

  def validate(self, *, photographs: bool = True) -> None:
    """Checks every setting.

    Args:
      photographs: Whether a source of them must be named.

    Raises:
      ValueError: Naming the setting, what it must be, and what it is.
    """

    def positive(value: float) -> bool:
      return value > 0 and math.isfinite(value)

    def counts(value: int) -> bool:
      return value >= 1

    def counts_or_none(value: int) -> bool:
      return value >= 0

    data = self.data
    one_source = sum(map(bool, (data.images, data.tfds, data.synthetic))) == 1
    rules: list[_Rule] = [
      ("stage", lambda value: value in get_args(StageChoice), _either(StageChoice)),
      ("seed", lambda value: 0 <= value < 2**32, "in [0, 2^32)"),
      ("compute_dtype", lambda value: value in get_args(ComputeDtype), _either(ComputeDtype)),
      ("log_every_steps", counts, "at least 1"),
      ("sheet_every_steps", counts, "at least 1"),
      ("checkpoint_every_steps", counts, "at least 1"),
      ("keep_checkpoints", counts, "at least 1"),
      ("keep_every_steps", counts_or_none, "at least 0"),
      ("data.synthetic", counts_or_none, "at least 0"),
      (
        "data.images",
        lambda _: one_source or not photographs,
        "a folder of photographs (or data.tfds a dataset, or data.synthetic a number; one of "
        "the three)",
      ),
      ("data.min_scale", positive, "above 0 and finite"),
      ("data.max_scale", lambda value: data.min_scale <= value < math.inf, "at least min_scale"),
      ("data.threads", counts, "at least 1"),
      ("hvs_sd.train_lambda", positive, "above 0 and finite"),
      (
        "jnd.hvs_sd",
        lambda value: not value or "hvs_sd" not in self.stages,
        "'' where stage 1 is trained too (config.stage 'jnd' trains the second alone)",
      ),
      ("jnd.lmbda", positive, "above 0 and finite"),
      ("jnd.magnitude_target", positive, "above 0 and finite"),
      ("jnd.visibility_power", lambda value: 1 <= value < math.inf, "at least 1 and finite"),
      *(
        (f"jnd.{term}_weight", lambda value: 0 <= value < math.inf, "at least 0 and finite")
        for term in ("magnitude", "quality", "attention", "visibility")
      ),
      *(
        (f"jnd.{name}", lambda value, form=form: value in get_args(form), _either(form))
        for name, form in (
          ("magnitude_form", MagnitudeForm),
          ("quality_form", QualityForm),
          ("quality_domain", QualityDomain),
          ("attention_form", AttentionForm),
        )
      ),
      *(
        (
          f"jnd.{name}",
          lambda value: value or self.jnd.quality_form != "aic",
          "a folder of weights for quality_form 'aic' (python -m convert.from_torch "
          f"--{name} {file} --out DIR)",
        )
        for name, file in (("vgg16", "vgg16-397923af.pth"), ("classifier", "CL_resNet34.pth"))
      ),
      ("jnd.resolution", lambda value: value in get_args(Resolution), _either(Resolution)),
      ("jnd.attention", lambda value: value in get_args(AttentionLayer), _either(AttentionLayer)),
    ]
    # MS-SSIM, a term of stage 2, needs more than 160 pixels.
    least_sides: dict[Stage, int] = {"hvs_sd": STRIDE, "jnd": 168}
    for stage, least_px in least_sides.items():
      settings = self.settings(stage)
      stage_rules: list[_Rule] = [
        ("num_steps", counts, "at least 1"),
        (
          "crop_px",
          lambda value, least=least_px: value >= least and value % STRIDE == 0,
          f"a multiple of {STRIDE}, at least {least_px}",
        ),
        ("learning_rate", positive, "above 0 and finite"),
        ("batch_size", counts, "at least 1"),
        (
          "accumulation_steps",
          lambda value, batch=settings.batch_size: value >= 1 and batch % value == 0,
          f"a divisor of batch_size, {settings.batch_size}",
        ),
        (
          "warmup_steps",
          lambda value, steps=settings.num_steps: 0 <= value < steps,
          "in [0, num_steps)",
        ),
        ("clip_norm", positive, "above 0 and finite"),
        ("ema_decay", lambda value: 0 <= value < 1, "in [0, 1)"),
      ]
      rules += [(f"{stage}.{name}", holds, wanted) for name, holds, wanted in stage_rules]
    for name, holds, wanted in rules:
      value = operator.attrgetter(name)(self)
      if not holds(value):
        raise ValueError(f"config.{name} must be {wanted}, got {value!r}")


def _either(option: Any) -> str:
  return " or ".join(map(repr, get_args(option)))

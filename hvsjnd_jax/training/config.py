"""Settings of a training run: their meaning, their defaults, and their checks.

The files in configs/ fill them in; `--config.x=y` on the command line overrides them.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import ClassVar, Literal, get_args

from hvsjnd_jax.data.config import DataConfig, check_choices, check_setting
from hvsjnd_jax.model.hvs_sd import STRIDE
from hvsjnd_jax.model.jnd_map import Resolution
from hvsjnd_jax.model.priors import AttentionLayer

Stage = Literal["hvs_sd", "jnd"]

StageChoice = Literal["hvs_sd", "jnd", "both"]

ComputeDtype = Literal["float32", "bfloat16"]

# Forms of the terms of stage 2; `objectives.jnd_objective` says what each computes.
MagnitudeForm = Literal["geometric", "rms", "mean", "total_variation"]

QualityForm = Literal["distance", "ms_ssim_gmsd", "ms_ssim", "aic"]

QualityDomain = Literal["perceptual", "pixels"]

AttentionForm = Literal["l1", "kl", "correlation"]

# What sets the amount of noise: `lmbda` times the map, or a PSNR that is drawn for each image.
NoiseAmount = Literal["psnr", "lmbda"]

# The terms of the loss; each has a weight, and is computed only where that is not 0.
JNDTerm = Literal[
  "butteraugli",
  "peaks",
  "ssimulacra2",
  "jod",
  "structure",
  "departure",
  "magnitude",
  "quality",
  "attention",
  "visibility",
]

# Those that compare what HVS-SD makes of the image and of its distorted copy.
HVS_SD_TERMS: tuple[JNDTerm, ...] = ("quality", "attention")


@dataclasses.dataclass(slots=True)
class StageConfig:
  """How long a stage trains, on which batches, and how it descends.

  The optimiser is Adam, with linear warm-up and cosine decay to a hundredth of the learning
  rate.
  """

  smallest_crop_px: ClassVar[int] = STRIDE

  num_steps: int
  crop_px: int
  learning_rate: float  # at the end of the warm-up
  batch_size: int = 4  # crops a step, over all devices of all processes
  accumulation_steps: int = 1  # parts of a batch that are computed one after the other
  warmup_steps: int = 100
  clip_norm: float = 5.0  # longer gradients are scaled down to this norm
  ema_decay: float = 0.999  # of the moving average of the weights, which is exported

  def validate(self, path: str) -> None:
    """Checks every setting; arguments and errors as in `DataConfig.validate`."""
    check = functools.partial(check_setting, self, path)
    check_choices(self, path)
    check("num_steps", self.num_steps >= 1, "at least 1")
    check(
      "crop_px",
      self.crop_px >= self.smallest_crop_px and self.crop_px % STRIDE == 0,
      f"a multiple of {STRIDE}, at least {self.smallest_crop_px}",
    )
    check("learning_rate", 0 < self.learning_rate < math.inf, "above 0 and finite")
    check("batch_size", self.batch_size >= 1, "at least 1")
    check(
      "accumulation_steps",
      self.accumulation_steps >= 1 and self.batch_size % self.accumulation_steps == 0,
      f"a divisor of batch_size, {self.batch_size}",
    )
    check("warmup_steps", 0 <= self.warmup_steps < self.num_steps, "in [0, num_steps)")
    check("clip_norm", 0 < self.clip_norm < math.inf, "above 0 and finite")
    check("ema_decay", 0 <= self.ema_decay < 1, "in [0, 1)")


@dataclasses.dataclass(slots=True)
class RateDistortionConfig(StageConfig):
  """Stage 1 minimises rate_distortion_lambda · MSE + bits per pixel + ordering_weight · ordering.

  `objectives.rate_distortion_objective` says what each term is.
  """

  num_steps: int = 5_000
  crop_px: int = 128
  learning_rate: float = 5e-4
  channels: int = 64  # width of every hidden layer; 128 in the paper
  rate_distortion_lambda: float = 1024.0  # bits per pixel for an MSE of 1, images in [0, 1]
  ordering_weight: float = 25.0  # of distances in the perceptual domain that follow visibility

  def validate(self, path: str) -> None:
    """Checks every setting; arguments and errors as in `DataConfig.validate`."""
    StageConfig.validate(self, path)  # a dataclass with slots has no zero-argument super()
    check = functools.partial(check_setting, self, path)
    check("channels", self.channels >= 1, "at least 1")
    holds = 0 < self.rate_distortion_lambda < math.inf
    check("rate_distortion_lambda", holds, "above 0 and finite")
    check("ordering_weight", 0 <= self.ordering_weight < math.inf, "at least 0 and finite")
    least = 113  # as SSIMULACRA 2 needs for all of its scales
    check(
      "crop_px",
      self.ordering_weight == 0 or self.crop_px >= least,
      f"at least {least} where ordering_weight is not 0",
    )


@dataclasses.dataclass(slots=True)
class JNDConfig(StageConfig):
  """Stage 2: the terms of its loss, their weights, and the form of the map."""

  smallest_crop_px: ClassVar[int] = 168  # MS-SSIM, a term of the loss, needs more than 160

  # Weights, a folder or shipped ones by name, whose HVS-SD the generator is trained behind;
  # "" takes the HVS-SD that stage 1 trained in the same workdir.
  hvs_sd: str = ""
  generator: str = ""  # weights, as above, whose generator training goes on from; "": a new one
  priors: bool = True  # False: a generator that does without HVS-SD

  num_steps: int = 2_000
  crop_px: int = 320
  batch_size: int = 1
  learning_rate: float = 1e-3
  ema_decay: float = 0.995
  # The generator: "fine" is ours, the others are drawn by the published one. Written into the
  # exported weights, as the defaults of `estimate`.
  resolution: Resolution = "fine"
  attention_layer: AttentionLayer = "reconstruction"
  generator_channels: int = 32  # width of the generator for "fine"
  # The noise that the losses judge.
  noise: NoiseAmount = "psnr"
  min_psnr: float = 29.5  # dB; the PSNR of each image is drawn from this range
  max_psnr: float = 36.5
  own_signs: float = 0.9  # share of the images in which each channel has signs of its own
  lmbda: float = 10.0  # for noise "lmbda", and for the terms magnitude and visibility
  magnitude_target: float = 0.5  # typical lmbda · map in each channel, in masking thresholds
  # Forms of the terms of `objectives.jnd_objective`; the first of each is ours.
  magnitude_form: MagnitudeForm = "geometric"
  quality_form: QualityForm = "distance"
  quality_domain: QualityDomain = "perceptual"  # which pair is compared: x2, y2 or x, y
  attention_form: AttentionForm = "l1"
  # Folders of weights for quality_form "aic" alone; `python -m convert.from_torch` makes them.
  vgg16: str = ""
  classifier: str = ""
  # Weights of the terms: those of the models of vision,
  butteraugli_weight: float = 1.0
  peaks_weight: float = 0.7
  ssimulacra2_weight: float = 1.0
  jod_weight: float = 0.25
  structure_weight: float = 0.3
  departure_weight: float = 0.05  # which holds the map near the masking threshold
  # and those of the paper.
  magnitude_weight: float = 0.0
  quality_weight: float = 0.0
  attention_weight: float = 0.0
  visibility_weight: float = 0.0
  visibility_power: float = 2.0  # of the noise; the higher, the more its peaks count

  def weight(self, term: JNDTerm) -> float:
    """Returns the weight of a term."""
    return getattr(self, f"{term}_weight")

  def validate(self, path: str) -> None:
    """Checks every setting; arguments and errors as in `DataConfig.validate`."""
    StageConfig.validate(self, path)  # a dataclass with slots has no zero-argument super()
    check = functools.partial(check_setting, self, path)
    for name in ("lmbda", "magnitude_target", "min_psnr"):
      check(name, 0 < getattr(self, name) < math.inf, "above 0 and finite")
    check("max_psnr", self.min_psnr <= self.max_psnr < math.inf, "at least min_psnr")
    check("own_signs", 0 <= self.own_signs <= 1, "in [0, 1]")
    check("generator_channels", self.generator_channels >= 1, "at least 1")
    check("visibility_power", 1 <= self.visibility_power < math.inf, "at least 1 and finite")
    for term in get_args(JNDTerm):
      check(f"{term}_weight", 0 <= self.weight(term) < math.inf, "at least 0 and finite")
    if not any(self.weight(term) for term in get_args(JNDTerm)):
      raise ValueError(f"the weight of at least one term of {path} must be above 0, and all are 0")
    self._validate_forms(check)

  def _validate_forms(self, check: Callable[[str, bool, str], None]) -> None:
    check("priors", self.priors or self.resolution == "fine", "true but for resolution 'fine'")
    for term in HVS_SD_TERMS:
      holds = self.priors or self.weight(term) == 0
      check(f"{term}_weight", holds, "0 where priors is false, since the term needs HVS-SD")
    check(
      "departure_weight",
      self.departure_weight == 0 or self.resolution == "fine",
      "0 but for resolution 'fine'",
    )
    for name, file in (("vgg16", "vgg16-397923af.pth"), ("classifier", "CL_resNet34.pth")):
      check(
        name,
        self.quality_form != "aic" or getattr(self, name) != "",
        "a folder of weights for quality_form 'aic' (in a clone of the repository: "
        f"python -m convert.from_torch --{name} {file} --out DIR)",
      )


@dataclasses.dataclass(slots=True)
class TrainConfig:
  """One run: stage 1, stage 2, or both, one after the other."""

  stage: StageChoice = "both"
  seed: int = 0  # of initial weights, crops and noise
  compute_dtype: ComputeDtype = "float32"  # of the layers; parameters are always float32
  log_every_steps: int = 50
  sheet_every_steps: int = 500  # draws what the networks make of the first crop
  checkpoint_every_steps: int = 500
  keep_checkpoints: int = 3  # how many of the newest are kept
  keep_every_steps: int = 0  # also keeps, for good, those of every so many steps; 0: none
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  hvs_sd: RateDistortionConfig = dataclasses.field(default_factory=RateDistortionConfig)
  jnd: JNDConfig = dataclasses.field(default_factory=JNDConfig)

  @property
  def stages(self) -> tuple[Stage, ...]:
    """The stages to train, in order."""
    return get_args(Stage) if self.stage == "both" else (self.stage,)

  def settings(self, stage: Stage) -> StageConfig:
    """Returns the settings of one stage alone."""
    return self.hvs_sd if stage == "hvs_sd" else self.jnd

  def validate(self, *, photographs: bool = True) -> None:
    """Checks every setting; call it once all overrides are in.

    Args:
      photographs: Whether their source must be named.

    Raises:
      ValueError: Naming the setting, what it must be, and what it is.
    """
    check = functools.partial(check_setting, self, "config")
    check_choices(self, "config")
    check("seed", 0 <= self.seed < 2**32, "in [0, 2^32)")
    for name in ("log_every", "sheet_every", "checkpoint_every"):
      check(f"{name}_steps", getattr(self, f"{name}_steps") >= 1, "at least 1")
    check("keep_checkpoints", self.keep_checkpoints >= 1, "at least 1")
    check(
      "keep_every_steps",
      self.keep_every_steps >= 0 and self.keep_every_steps % self.checkpoint_every_steps == 0,
      f"0 or a multiple of checkpoint_every_steps, {self.checkpoint_every_steps}",
    )
    self.data.validate("config.data", photographs=photographs)
    self.hvs_sd.validate("config.hvs_sd")
    self.jnd.validate("config.jnd")
    check_setting(
      self.jnd,
      "config.jnd",
      "hvs_sd",
      not self.jnd.hvs_sd or "hvs_sd" not in self.stages,
      "'' where stage 1 is trained too (config.stage 'jnd' trains the second alone)",
    )
    check_setting(
      self.jnd,
      "config.jnd",
      "priors",
      self.jnd.priors or "hvs_sd" not in self.stages,
      "true where stage 1 is trained too (config.stage 'jnd' trains the second alone)",
    )

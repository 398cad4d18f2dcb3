"""Both stages in small, on pictures drawn at random, to see the trainer work.

python -m hvsjnd_jax.train --config configs/tiny.py --workdir D

Cost: 40 seconds on two CPU cores, of which most compile. The weights are of no use: behind an
HVS-SD of 40 steps, the correction drifts to its bound.
"""

from hvsjnd_jax.data.config import DataConfig
from hvsjnd_jax.training.config import JNDConfig, RateDistortionConfig, TrainConfig


def get_config() -> TrainConfig:
  return TrainConfig(
    # Each stage logs, draws and saves several times within its few steps.
    log_every_steps=5,
    sheet_every_steps=20,
    checkpoint_every_steps=5,
    data=DataConfig(synthetic=16),  # no photographs are needed
    # Without the ordering of copies, whose models of vision take long to compile, crops can be
    # as small as this.
    hvs_sd=RateDistortionConfig(
      channels=32, num_steps=40, crop_px=64, warmup_steps=5, ordering_weight=0.0
    ),
    # The smallest crop that MS-SSIM allows, one a step.
    jnd=JNDConfig(num_steps=20, crop_px=168, batch_size=1, warmup_steps=5),
  )

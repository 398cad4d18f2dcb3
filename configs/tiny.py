"""Both stages in small, on pictures drawn at random, to see the trainer work.

python -m hvsjnd_jax.train --config configs/tiny.py --workdir D

Cost: 40 to 60 seconds on two CPU cores. Result, as printed: stage 1's loss falls from 755.1 to
67.95, stage 2's from 3.299 to 0.5172. The weights are of no use.
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
    hvs_sd=RateDistortionConfig(num_steps=40, crop_px=64, warmup_steps=5),
    # The smallest crop that MS-SSIM allows, one a step.
    jnd=JNDConfig(num_steps=20, crop_px=168, batch_size=1, warmup_steps=5),
  )

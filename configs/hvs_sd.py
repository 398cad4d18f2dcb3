"""Stage 1 alone: HVS-SD, which loses what vision loses.

python -m hvsjnd_jax.train --config configs/hvs_sd.py --workdir D --config.data.images=PHOTOS
"""

from hvsjnd_jax.training.config import RateDistortionConfig, TrainConfig


def get_config() -> TrainConfig:
  return TrainConfig(
    stage="hvs_sd",
    checkpoint_every_steps=500,
    hvs_sd=RateDistortionConfig(
      channels=64,
      num_steps=5_000,
      crop_px=128,
      batch_size=4,
      learning_rate=5e-4,
      clip_norm=5.0,
      ema_decay=0.999,
      rate_distortion_lambda=1024.0,
      ordering_weight=25.0,
    ),
  )

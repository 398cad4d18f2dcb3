"""Stage 1: HVS-SD as a rate-distortion autoencoder.

python -m hvsjnd_jax.train --config configs/hvs_sd.py --workdir D --config.data.images=PHOTOS
"""

from hvsjnd_jax.config import DataConfig, OptimizerConfig, TrainConfig


def get_config() -> TrainConfig:
  return TrainConfig(
    stage="hvs_sd",
    batch_size=4,
    num_steps=7_000,
    data=DataConfig(crop_px=128),
    optimizer=OptimizerConfig(learning_rate=4e-4),
  )

"""Stage 2: the JND generator, with HVS-SD frozen.

python -m hvsjnd_jax.train --config configs/jnd.py --workdir D --config.data.images=PHOTOS
"""

from hvsjnd_jax.config import DataConfig, OptimizerConfig, TrainConfig


def get_config() -> TrainConfig:
  return TrainConfig(
    stage="jnd",
    batch_size=4,
    num_steps=1_600,
    data=DataConfig(crop_px=176),
    optimizer=OptimizerConfig(learning_rate=1e-3),
  )

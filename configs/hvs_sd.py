"""Stage 1 alone: HVS-SD as a rate-distortion autoencoder.

python -m hvsjnd_jax.train --config configs/hvs_sd.py --workdir D --config.data.images=PHOTOS

Cost: 7,000 steps at 16 crops a second on two CPU cores, 30 minutes. Result on 258
photographs: 30.7 dB at 1.14 bits per pixel over the last 500 steps, with noise on the
feature. Both measured for the default weights (see their model card), which an earlier
trainer made, with other crops and noise.
"""

from hvsjnd_jax.training.config import TrainConfig


def get_config() -> TrainConfig:
  return TrainConfig(stage="hvs_sd")

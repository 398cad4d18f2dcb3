"""Stage 2: the JND generator, with HVS-SD frozen; stage 1 must stand in the same workdir.

python -m hvsjnd_jax.train --config configs/jnd.py --workdir D --config.data.images=PHOTOS

Cost: 3,200 steps at 4 crops a second on two CPU cores, an hour. Result on 258 photographs:
total 0.121 over the last 400 steps, 34.0 dB on Kodak at lmbda 10. All measured; these are
the default weights (see their model card).
"""

from hvsjnd_jax.config import DataConfig, OptimizerConfig, TrainConfig


def get_config() -> TrainConfig:
  return TrainConfig(
    stage="jnd",
    batch_size=4,
    num_steps=3_200,
    data=DataConfig(crop_px=176),
    optimizer=OptimizerConfig(learning_rate=1e-3),
  )

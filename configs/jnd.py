"""Stage 2 alone: the JND generator, with HVS-SD of the same workdir frozen.

python -m hvsjnd_jax.train --config configs/jnd.py --workdir D --config.data.images=PHOTOS

Cost: 3,200 steps at 4 crops a second on two CPU cores, an hour. Result on 258 photographs:
total 0.121 over the last 400 steps, 34.0 dB on Kodak at lmbda 10. All measured for the
default weights (see their model card), which an earlier trainer made, with other crops and
noise, and in two parts.
"""

from hvsjnd_jax.config import TrainConfig


def get_config() -> TrainConfig:
  return TrainConfig(stage="jnd")

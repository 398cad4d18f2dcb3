"""Stage 2 alone: the JND generator, with HVS-SD of the same workdir frozen.

python -m hvsjnd_jax.train --config configs/jnd.py --workdir D --config.data.images=PHOTOS

Cost: 600 steps at 6 crops a second on two CPU cores, 7 minutes. Result on 258 photographs:
total 0.079 over the last 50 steps; on Kodak, noise that hides better than that of classical
models at the same PSNR (the default weights' model card). --config.jnd.hvs_sd=W trains behind
the HVS-SD of weights W instead: converted ones, or shipped ones by name.
"""

from hvsjnd_jax.training.config import TrainConfig


def get_config() -> TrainConfig:
  return TrainConfig(stage="jnd")

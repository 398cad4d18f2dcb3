"""Both stages, one after the other, with the settings of the default weights.

python -m hvsjnd_jax.train --config configs/default.py --workdir D --config.data.images=PHOTOS

Cost: some 40 minutes on two CPU cores; what each stage costs and gives stands in
configs/hvs_sd.py and configs/jnd.py, which train one alone.
"""

from hvsjnd_jax.training.config import TrainConfig


def get_config() -> TrainConfig:
  return TrainConfig()

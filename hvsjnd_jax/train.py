"""Train a stage, or export the result.

python -m hvsjnd_jax.train --config configs/hvs_sd.py --workdir D --config.data.images=PHOTOS
python -m hvsjnd_jax.train --config configs/jnd.py --workdir D --config.data.images=PHOTOS
python -m hvsjnd_jax.train export --workdir D --out W
"""

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from hvsjnd_jax.config import TrainConfig
from hvsjnd_jax.training import TrainError, train

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run: a file of configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Working folder of both stages.", required=True)


def _print_figures(step: int, figures: dict[str, float]) -> None:
  print(f"step {step}  " + "  ".join(f"{k} {v:.4g}" for k, v in figures.items()), flush=True)


def _run(argv: list[str]) -> int:
  logging.set_verbosity(logging.WARNING)  # Orbax tells every step of a save at INFO
  config: TrainConfig = _CONFIG.value
  try:
    config.validate()
  except ValueError as error:
    print(f"train: {error}", file=sys.stderr)
    return 2
  try:
    train(config, Path(_WORKDIR.value), report=_print_figures)
  except TrainError as error:
    print(f"train: {error}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  app.run(_run)

"""Train the two stages, one after the other, and export the result.

  python -m hvsjnd_jax.train --config configs/hvs_sd.py --workdir D --config.data.images=PHOTOS
  python -m hvsjnd_jax.train --config configs/jnd.py --workdir D --config.data.images=PHOTOS
  python -m hvsjnd_jax.train export --workdir D --out W

PHOTOS is a folder of photographs, walked recursively. A run that was stopped goes on from
its newest checkpoint when the same command is given again. W is what `hvsjnd_jax.load(W)`
and `python -m hvsjnd_jax.eval --weights W` take. Every setting of a config can be
overridden as --config.name=value.
"""

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from hvsjnd_jax.config import TrainConfig
from hvsjnd_jax.training import TrainError, export, train
from hvsjnd_jax.weights import WeightsError

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run: a file of configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Working folder of both stages.", required=True)
_OUT = flags.DEFINE_string("out", None, "With `export`: the folder of weights to write.")


def main(argv: list[str]) -> int:
  """The command; returns its exit status."""
  logging.set_verbosity(logging.WARNING)  # at INFO, Orbax tells every step of a save
  workdir = Path(_WORKDIR.value)
  try:
    match argv[1:]:
      case []:
        _train(_CONFIG.value, workdir)
      case ["export"]:
        _export(workdir)
      case words:
        raise _UsageError(f"expected no word or 'export', got {' '.join(words)!r}")
  except (TrainError, WeightsError, _UsageError) as error:
    print(f"train: {error}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("train: interrupted; the same command goes on from the newest checkpoint")
    return 130
  return 0


class _UsageError(Exception):
  """The command line asks for something that cannot be done."""


def _train(config: TrainConfig | None, workdir: Path) -> None:
  if config is None:
    raise _UsageError("--config is needed: configs/hvs_sd.py, then configs/jnd.py")
  try:
    config.validate()
  except ValueError as error:
    raise _UsageError(str(error)) from None

  def report(step: int, figures: dict[str, float]) -> None:
    left = (config.num_steps - step) * config.batch_size / figures["images_per_second"]
    terms = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
    print(f"step {step}/{config.num_steps}  {terms}  {left / 60:.0f} min left", flush=True)

  train(config, workdir, report=report)


def _export(workdir: Path) -> None:
  if _OUT.value is None:
    raise _UsageError("export needs --out, the folder of weights to write")
  export(workdir, Path(_OUT.value))
  print(f"{_OUT.value}: weights written")


if __name__ == "__main__":
  app.run(main)

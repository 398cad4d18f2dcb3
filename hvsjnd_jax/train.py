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


def main() -> int:
  """The command, reading `sys.argv`; returns its exit status."""
  logging.set_verbosity(logging.WARNING)  # at INFO, Orbax tells every step of a save
  try:
    words, config = _parse()
    workdir = Path(_WORKDIR.value)
    if not words:
      _train(config, workdir)
    elif words == ["export"]:
      _export(workdir)
    else:
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


def _parse() -> tuple[list[str], TrainConfig | None]:
  """The words that are no flags, and the checked config; the flags become global."""
  app.define_help_flags()
  try:
    words, config = flags.FLAGS(sys.argv)[1:], _CONFIG.value
    if config is not None:
      config.validate()
  except (flags.Error, LookupError, TypeError, ValueError, OSError) as error:
    # A config file is read and overridden while flags are parsed; where that failed, the
    # first use of the config says so.
    reason = str(error.args[0] if error.args else error)
    raise _UsageError(reason.partition("failure to load: ")[2] or reason) from None
  return words, config


def _train(config: TrainConfig | None, workdir: Path) -> None:
  if config is None:
    raise _UsageError("--config is needed: configs/hvs_sd.py, then configs/jnd.py")

  def report(step: int, figures: dict[str, float]) -> None:
    left = (config.num_steps - step) * config.batch_size / figures["images_per_second"]
    figures = {"loss": figures["loss"]} | figures  # the loss first
    told = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
    print(f"step {step}/{config.num_steps}  {told}  {left / 60:.0f} min left", flush=True)

  train(config, workdir, report=report)


def _export(workdir: Path) -> None:
  if _OUT.value is None:
    raise _UsageError("export needs --out, the folder of weights to write")
  export(workdir, Path(_OUT.value))
  print(f"{_OUT.value}: weights written")


if __name__ == "__main__":
  sys.exit(main())

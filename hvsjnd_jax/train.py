"""Train the two stages, one after the other, and export the result.

  python -m hvsjnd_jax.train --config configs/hvs_sd.py --workdir D --config.data.images=PHOTOS
  python -m hvsjnd_jax.train --config configs/jnd.py --workdir D --config.data.images=PHOTOS
  python -m hvsjnd_jax.train export --workdir D --out W

PHOTOS is a folder of photographs, walked recursively; --config.data.tfds=NAME takes a dataset of
TensorFlow Datasets instead. A run that was stopped goes on from
its newest checkpoint when the same command is given again. W is what `hvsjnd_jax.load(W)`
and `python -m hvsjnd_jax.eval --weights W` take. Every setting of a config can be
overridden as --config.name=value.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from hvsjnd_jax.config import TrainConfig
from hvsjnd_jax.data import DataError
from hvsjnd_jax.training import TrainError, export, train
from hvsjnd_jax.weights import WeightsError


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit status."""
  logging.set_verbosity(logging.WARNING)  # at INFO, Orbax tells every step of a save
  args, overrides = _parse(argv)
  try:
    if args.action == "export":
      export(args.workdir, args.out)
      print(f"{args.out}: weights written")
    else:
      _train(_load_config(args.config, overrides), args.workdir)
  except (DataError, TrainError, WeightsError, _UsageError) as error:
    print(f"train: {error}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("train: interrupted; the same command starts from the newest checkpoint", file=sys.stderr)
    return 130
  except OSError as error:
    print(f"train: {error}", file=sys.stderr)
    return 2
  return 0


class _UsageError(Exception):
  """The command line asks for something that cannot be done."""


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
  parser = argparse.ArgumentParser(
    prog="python -m hvsjnd_jax.train",
    description="Train a stage from a config, or export the weights of both stages.",
    epilog="Any setting of the config can be overridden: --config.name=value.",
    allow_abbrev=False,
  )
  parser.add_argument("action", nargs="?", choices=("export",), help="write weights for eval")
  parser.add_argument(
    "--config", metavar="FILE", help="the run: configs/hvs_sd.py, then configs/jnd.py"
  )
  parser.add_argument(
    "--workdir", type=Path, required=True, metavar="DIR", help="working folder of both stages"
  )
  parser.add_argument(
    "--out", type=Path, metavar="DIR", help="with export: the folder of weights to write"
  )
  words = sys.argv[1:] if argv is None else argv
  for word in words:
    if word.startswith("--config.") and "=" not in word:
      parser.error(f"{word}: expected {word}=value, in one word")
  args, rest = parser.parse_known_args(words)
  overrides = [word for word in rest if word.startswith("--config.")]
  if overrides != rest:
    unknown = [word for word in rest if word not in overrides]
    parser.error(f"unknown arguments: {' '.join(unknown)} (overrides are --config.name=value)")
  needed = "--out" if args.action == "export" else "--config"
  if getattr(args, needed.strip("-")) is None:
    parser.error(f"{needed} is needed")
  return args, overrides


def _load_config(file: str, overrides: list[str]) -> TrainConfig:
  words = ["train", f"--config={file}", *overrides]
  values = flags.FlagValues()
  flag = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=words)
  try:
    values(words)
    config: TrainConfig = flag.value
    config.validate()
  except Exception as error:  # a config file is a program, and may do anything
    # Where the file could not be read, the first use of the config says so.
    reason = str(error.args[0] if error.args else error)
    raise _UsageError(reason.partition("failure to load: ")[2] or reason) from None
  return config


def _train(config: TrainConfig, workdir: Path) -> None:
  def report(step: int, figures: dict[str, float]) -> None:
    left = (config.num_steps - step) * config.batch_size / figures["images_per_second"]
    figures = {"loss": figures["loss"]} | figures  # the loss first
    told = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
    print(f"step {step}/{config.num_steps}  {told}  {left / 60:.0f} min left", flush=True)

  print(f"{workdir}: stage {config.stage}; the first step waits for the compiler", flush=True)
  train(config, workdir, report=report)
  print(f"{workdir}: stage {config.stage} is trained, {config.num_steps} steps", flush=True)


if __name__ == "__main__":
  sys.exit(main())

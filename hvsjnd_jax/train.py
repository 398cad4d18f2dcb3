"""Train both stages, one after the other; export their weights; compile for a pod.

  python -m hvsjnd_jax.train --config configs/default.py --workdir D --config.data.images=PHOTOS
  python -m hvsjnd_jax.train export --workdir D --out W

PHOTOS is a folder of photographs, walked recursively; --config.data.tfds=NAME takes a
dataset of TensorFlow Datasets instead. Every setting of a config can be overridden as
--config.name=value. W is what `hvsjnd_jax.load(W)` and `python -m hvsjnd_jax.eval --weights W`
take.

A run that was stopped goes on from its newest checkpoint when the same command is given
again; on SIGTERM it saves first. TensorBoard shows it: tensorboard --logdir D.

On many hosts, give the same command with --multihost on each, with a folder D that all of
them see. What a pod would need, without one:

  python -m hvsjnd_jax.train aot --config configs/tpu_pod.py --topology v5e:16x16

The exit status is 0 when all is done, 2 when something is wrong, 130 when interrupted, and
143 after SIGTERM.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self, get_args

import jax
from absl import flags, logging
from ml_collections import config_flags
from tqdm import tqdm

from hvsjnd_jax.aot import TopologyError, compile_ahead, open_topology
from hvsjnd_jax.checkpoint import CheckpointError, silence
from hvsjnd_jax.compilation import keep_compilations
from hvsjnd_jax.config import (
  AttentionForm,
  ComputeDtype,
  MagnitudeForm,
  QualityForm,
  Stage,
  StageChoice,
  TrainConfig,
)
from hvsjnd_jax.data import DataError
from hvsjnd_jax.generator import Resolution
from hvsjnd_jax.priors import AttentionLayer
from hvsjnd_jax.runs import TrainError, export
from hvsjnd_jax.sharding import JoinError, join_processes
from hvsjnd_jax.training import Figures, PreemptedError, train
from hvsjnd_jax.weights import WeightsError

# The options that each action takes; the first ones it needs.
_OPTIONS = {
  None: ("config", "workdir", "multihost"),
  "export": ("workdir", "out"),
  "aot": ("config", "topology"),
}


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit status."""
  # Below ERROR, Orbax tells every step of a save, and warns of folders that a killed run left
  # half deleted, of which nothing is wanted.
  logging.set_verbosity(logging.ERROR)
  args, overrides = _parse(argv)
  try:
    if args.action == "export":
      export(args.workdir, args.out)
      print(f"{args.out}: weights written")
    elif args.action == "aot":
      _compile_ahead(_load_config(args.config, overrides, photographs=False), args.topology)
    else:
      config = _load_config(args.config, overrides, photographs=True)
      if args.multihost:
        join_processes()
      keep_compilations()
      _train(config, args.workdir)
  except PreemptedError as error:
    print(f"train: {error}; the same command goes on from there", file=sys.stderr)
    return 143  # 128 + SIGTERM
  except (
    *(CheckpointError, DataError, JoinError, TopologyError, TrainError, WeightsError),
    *(_UsageError, OSError),
  ) as error:
    print(f"train: {error}", file=sys.stderr)
    if args.multihost and jax.process_count() > 1:
      # An orderly exit would wait for the others, who wait for this one.
      sys.stderr.flush()
      os._exit(2)
    if isinstance(error, CheckpointError):
      silence()
    return 2
  except KeyboardInterrupt:
    print("train: interrupted; the same command starts from the newest checkpoint", file=sys.stderr)
    return 130
  return 0


class _UsageError(Exception):
  """The command line asks for something that cannot be done."""


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
  description, _, notes = (__doc__ or "").partition("\n\n")
  parser = argparse.ArgumentParser(
    prog="python -m hvsjnd_jax.train",
    description=description,
    epilog=notes,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument(
    "action",
    nargs="?",
    choices=("export", "aot"),
    help="export: write weights for eval; aot: compile for TPUs that need not be there",
  )
  parser.add_argument("--config", metavar="FILE", help="the run, such as configs/default.py")
  parser.add_argument("--workdir", type=Path, metavar="DIR", help="working folder of both stages")
  parser.add_argument(
    "--multihost", action="store_true", help="join the other hosts' processes (TPU pod, SLURM, ...)"
  )
  parser.add_argument(
    "--out", type=Path, metavar="DIR", help="with export: the folder of weights to write"
  )
  parser.add_argument("--topology", metavar="NAME", help="with aot: the slice, such as v5e:16x16")
  words = sys.argv[1:] if argv is None else argv
  for word in words:
    if word.startswith("--config.") and "=" not in word:
      parser.error(f"{word}: expected {word}=value, in one word")
  args, rest = parser.parse_known_args(words)
  overrides = [word for word in rest if word.startswith("--config.")]
  if overrides != rest:
    unknown = [word for word in rest if word not in overrides]
    parser.error(f"unknown arguments: {' '.join(unknown)} (overrides are --config.name=value)")
  taken = _OPTIONS[args.action]
  for name in taken[:2]:
    if getattr(args, name) is None:
      parser.error(f"--{name} is needed")
  given = [name for name, value in vars(args).items() if value and name != "action"]
  given += ["config"] * bool(overrides)
  for name in given:
    if name not in taken:
      parser.error(f"--{name} is of no use with {args.action or 'training'}")
  if "://" in str(args.workdir):
    parser.error(f"--workdir {args.workdir}: expected a folder; mount the bucket as one")
  return args, overrides


def _load_config(file: str, overrides: list[str], *, photographs: bool) -> TrainConfig:
  if not Path(file).is_file():
    raise _UsageError(f"--config {file}: no such file")
  forms = (MagnitudeForm, QualityForm, AttentionForm)
  for option in (StageChoice, ComputeDtype, Resolution, AttentionLayer, *forms):
    parser = flags.EnumParser(get_args(option))
    config_flags.register_flag_parser_for_type(option, parser)
  words = ["train", f"--config={file}", *overrides]
  values = flags.FlagValues()
  flag = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=words)
  try:
    values(words)
    config: TrainConfig = flag.value
    config.validate(photographs=photographs)
  except Exception as error:  # a config file is a program, and may do anything
    # Where the file could not be read, the first use of the config says so.
    reason = str(error.args[0] if error.args else error)
    raise _UsageError(reason.partition("failure to load: ")[2] or reason) from None
  return config


def _train(config: TrainConfig, workdir: Path) -> None:
  with _Progress(config) as progress:
    progress.say(
      f"{workdir}: training on {_describe_devices()}; the first step of a stage compiles"
    )
    train(config, workdir, report=progress)
    for stage in config.stages:
      steps = config.settings(stage).num_steps
      progress.say(f"{workdir}: stage {stage} is trained, {steps} steps")


def _describe_devices() -> str:
  kind, count = jax.devices()[0].device_kind, jax.device_count()
  hosts = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
  return f"{count} {kind} device{'s' * (count > 1)}{hosts}"


class _Progress:
  """A line of figures now and then and, in a terminal, a bar. The first process speaks."""

  def __init__(self, config: TrainConfig):
    self._config = config
    self._stage: Stage | None = None
    self._bar = tqdm(disable=True)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._bar.close()

  def __call__(self, stage: Stage, step: int, figures: Figures | None) -> None:
    if jax.process_index() > 0:
      return
    settings = self._config.settings(stage)
    if stage != self._stage:
      self._bar.close()
      self._stage = stage
      self._bar = tqdm(
        total=settings.num_steps, initial=step - 1, desc=stage, unit="step", disable=None
      )
    self._bar.update()
    if figures is None:
      return
    names = sorted(figures.keys() - {"images_per_second"})
    last = ("gradient_norm", "learning_rate")
    names.sort(key=lambda name: (name != "loss", name in last))
    told = [f"{name} {figures[name]:.4g}" for name in names]
    # The first step, which compiles, has no rate.
    if rate := figures.get("images_per_second"):
      seconds = (settings.num_steps - step) * settings.batch_size / rate
      told += [f"{rate:.3g} images/s", f"{_describe_time(seconds)} left"]
    self.say(f"{stage} {step}/{settings.num_steps}  {'  '.join(told)}")

  def say(self, line: str) -> None:
    """Prints a line above the bar."""
    if jax.process_index() == 0:
      tqdm.write(line, file=sys.stdout)
      sys.stdout.flush()


def _describe_time(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _compile_ahead(config: TrainConfig, topology: str) -> None:
  jax.config.update("jax_platforms", "cpu")  # nothing is run: a TPU that is there stays free
  devices = open_topology(topology)
  for stage in config.stages:
    print(f"{stage}: compiling for {len(devices)} chips of {topology} ...", flush=True)
    print(compile_ahead(config, stage, devices).describe(topology), flush=True)


if __name__ == "__main__":
  sys.exit(main())

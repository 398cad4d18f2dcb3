"""Train a JND model on photographs; export its weights; compile its training for a TPU pod.

  python -m hvsjnd_jax.train --config configs/default.py --workdir D --config.data.images=PHOTOS
  python -m hvsjnd_jax.train export --workdir D --out W

The first command trains both stages, one after the other. PHOTOS is a folder of photographs,
which is searched recursively; --config.data.tfds=NAME reads a dataset of TensorFlow Datasets
instead. D is the working folder, which keeps checkpoints and logs; `tensorboard --logdir D`
shows the progress. Every setting of a config can be overridden as --config.name=value. To see
training work first, in a minute and without photographs:

  python -m hvsjnd_jax.train --config configs/tiny.py --workdir D

The second command writes the folder W of trained weights, for `hvsjnd_jax.load("W")`. Training
leaves the level of the maps open; they are given that of the shipped weights, roughly, at which
the noise of lmbda 10 is just noticeable. For the exact one, find with `hvsjnd_jax.calibrate --model
W` the lmbda M that is just noticeable, and export again with --level of M times 0.0009.

A run that was stopped goes on from its newest checkpoint when the same command is given
again. On SIGTERM it saves first.

To train on many hosts, give each of them the same command with --multihost, and a folder D
that all of them see. To learn what a step would cost on a pod, without one:

  python -m hvsjnd_jax.train aot --config configs/tpu_pod.py --topology v5e:16x16

The exit status is 0 when all is done, 2 when something is wrong, 130 when interrupted, and
143 after SIGTERM.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
from absl import logging

from hvsjnd_jax.cli.command import make_parser, report_error, run_command
from hvsjnd_jax.cli.config_file import load_config
from hvsjnd_jax.cli.options import (
  add_max_megapixels,
  apply_max_megapixels,
  parse_level,
  parse_path,
)
from hvsjnd_jax.cli.train_progress import TrainProgress
from hvsjnd_jax.runtime.compilation_cache import keep_compilations
from hvsjnd_jax.runtime.cpu import keep_freed_memory, use_cores_as_devices
from hvsjnd_jax.runtime.processes import join_processes
from hvsjnd_jax.training.checkpoints import CheckpointError, silence
from hvsjnd_jax.training.config import TrainConfig
from hvsjnd_jax.training.loop import train
from hvsjnd_jax.training.step_cost import compile_ahead, open_topology
from hvsjnd_jax.training.workdir import TYPICAL_LEVEL, export

# The options of each action; the first two are required.
_OPTIONS = {
  None: ("config", "workdir", "multihost", "max_megapixels"),
  "export": ("workdir", "out", "level"),
  "aot": ("config", "topology", "slices"),
}

_MOST_SLICES = 256  # more would only be a mistyped number


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  args, overrides = _parse(sys.argv[1:] if argv is None else argv)
  return run_command(
    "train",
    lambda: _run(args, overrides),
    interrupted="interrupted; the same command starts from the newest checkpoint",
  )


def _run(args: argparse.Namespace, overrides: list[str]) -> int:
  # Below ERROR, Orbax reports every step of a save, and warns of the half-deleted folders that
  # a killed run leaves behind, which are harmless.
  logging.set_verbosity(logging.ERROR)
  try:
    if args.action == "export":
      export(args.workdir, args.out, level=args.level or TYPICAL_LEVEL)
      print(f"{args.out}: weights written")
    elif args.action == "aot":
      config = load_config(args.config, overrides, photographs=False)
      _compile_ahead(config, args.topology, args.slices or 1)
    else:
      config = load_config(args.config, overrides, photographs=True)
      apply_max_megapixels(args)
      keep_freed_memory()
      if args.multihost:
        join_processes()
      else:
        use_cores_as_devices()
      keep_compilations(partial(report_error, "train"))
      _train(config, args.workdir)
  except CheckpointError:
    silence()
    raise
  return 0


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
  """Splits the command line into the options and the overrides of the config."""
  parser = _make_parser()
  for word in argv:
    if word.startswith("--config.") and "=" not in word:
      parser.error(f"{word}: expected {word}=value, in one word")
  args, rest = parser.parse_known_args(argv)
  overrides = [word for word in rest if word.startswith("--config.")]
  if overrides != rest:
    unknown = [word for word in rest if word not in overrides]
    parser.error(f"unknown arguments: {' '.join(unknown)} (overrides are --config.name=value)")
  _check_options(parser, args, overrides)
  return args, overrides


def _make_parser() -> argparse.ArgumentParser:
  parser = make_parser("train", __doc__)
  parser.usage = "%(prog)s [export | aot] [options] [--config.name=value ...]"
  parser.add_argument(
    "action",
    nargs="?",
    choices=("export", "aot"),
    help="nothing: train; export: write the trained weights; aot: compile for TPUs that need "
    "not be there, and print what a step costs",
  )
  parser.add_argument("--config", metavar="FILE", help="the settings, such as configs/default.py")
  parser.add_argument(
    "--workdir",
    type=parse_path,
    metavar="DIR",
    help="the working folder of the run, on a disk or in an object store (gs://BUCKET/FOLDER)",
  )
  parser.add_argument(
    "--multihost", action="store_true", help="join the other hosts' processes (TPU pod, SLURM, ...)"
  )
  add_max_megapixels(parser)
  parser.add_argument(
    "--out", type=parse_path, metavar="DIR", help="with export: the folder of weights to write"
  )
  parser.add_argument(
    "--level",
    type=parse_level,
    metavar="L",
    help="with export: factor on the maps of a generator for 'fine', which gives lmbda its meaning "
    f"(default: {TYPICAL_LEVEL})",
  )
  parser.add_argument(
    "--topology", metavar="NAME", help="with aot: the TPU slice, such as v5e:16x16"
  )
  parser.add_argument(
    "--slices",
    type=_parse_slices,
    metavar="N",
    help="with aot: as many such slices, joined by the data centre's network (default: 1)",
  )
  return parser


def _parse_slices(text: str) -> int:
  if not (text.isdecimal() and 1 <= int(text) <= _MOST_SLICES):
    raise argparse.ArgumentTypeError(
      f"expected a whole number from 1 to {_MOST_SLICES}, got {text}"
    )
  return int(text)


def _check_options(
  parser: argparse.ArgumentParser, args: argparse.Namespace, overrides: list[str]
) -> None:
  """Ends the command where an option is missing, or is of no use with the action."""
  allowed = _OPTIONS[args.action]
  for name in allowed[:2]:
    if getattr(args, name) is None:
      parser.error(f"--{name} is needed")
  given = [name for name, value in vars(args).items() if value and name != "action"]
  given += ["config"] * bool(overrides)
  for name in given:
    if name not in allowed:
      parser.error(f"--{name.replace('_', '-')} is of no use with {args.action or 'training'}")


def _train(config: TrainConfig, workdir: Path) -> None:
  with TrainProgress(config) as progress:
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


def _compile_ahead(config: TrainConfig, topology: str, slices: int) -> None:
  jax.config.update("jax_platforms", "cpu")  # nothing is run, so a TPU that is there stays free
  # A program from the cache would be printed with the time of reading it.
  jax.config.update("jax_enable_compilation_cache", False)
  devices = open_topology(topology, slices=slices)
  where = topology if slices == 1 else f"{slices} slices {topology}"
  for stage in config.stages:
    print(f"{stage}: compiling for {len(devices)} chips of {where} ...", flush=True)
    print(compile_ahead(config, stage, devices).describe(topology), flush=True)


if __name__ == "__main__":
  sys.exit(main())

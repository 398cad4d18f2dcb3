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

import jax
from absl import logging

from hvsjnd_jax.cli.command import UsageError
from hvsjnd_jax.cli.config_file import load_config
from hvsjnd_jax.cli.train_progress import TrainProgress
from hvsjnd_jax.data.sources import DataError
from hvsjnd_jax.runtime.compilation_cache import keep_compilations
from hvsjnd_jax.runtime.processes import JoinError, join_processes
from hvsjnd_jax.training.checkpoints import CheckpointError, silence
from hvsjnd_jax.training.config import TrainConfig
from hvsjnd_jax.training.loop import PreemptedError, train
from hvsjnd_jax.training.step_cost import TopologyError, compile_ahead, open_topology
from hvsjnd_jax.training.workdir import TrainError, export
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
      _compile_ahead(load_config(args.config, overrides, photographs=False), args.topology)
    else:
      config = load_config(args.config, overrides, photographs=True)
      if args.multihost:
        join_processes()
      keep_compilations()
      _train(config, args.workdir)
  except PreemptedError as error:
    print(f"train: {error}; the same command goes on from there", file=sys.stderr)
    return 143  # 128 + SIGTERM
  except (
    *(CheckpointError, DataError, JoinError, TopologyError, TrainError, WeightsError),
    *(UsageError, OSError),
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


def _compile_ahead(config: TrainConfig, topology: str) -> None:
  jax.config.update("jax_platforms", "cpu")  # nothing is run: a TPU that is there stays free
  devices = open_topology(topology)
  for stage in config.stages:
    print(f"{stage}: compiling for {len(devices)} chips of {topology} ...", flush=True)
    print(compile_ahead(config, stage, devices).describe(topology), flush=True)


if __name__ == "__main__":
  sys.exit(main())

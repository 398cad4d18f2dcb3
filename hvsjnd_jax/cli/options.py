"""Options that several commands share."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from hvsjnd_jax.cli.command import UsageError
from hvsjnd_jax.evaluation.estimators import is_model, list_models
from hvsjnd_jax.model.jnd_map import Resolution
from hvsjnd_jax.model.priors import AttentionLayer
from hvsjnd_jax.weights import SHIPPED


def add_photographs(parser: argparse.ArgumentParser) -> None:
  """The options of every command that reads photographs."""
  parser.add_argument(
    "--path",
    type=Path,
    nargs="+",
    action="extend",
    metavar="FILE|DIR",
    help="images, and folders to walk; without it, four photographs from scikit-image",
  )
  parser.add_argument(
    "--seed", type=_seed, default=0, metavar="S", help="of the noise's signs (default: 0)"
  )
  parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")


def add_weights(parser: argparse.ArgumentParser) -> None:
  """The options of a command that runs one model."""
  parser.add_argument(
    "--weights",
    default="default",
    metavar="DIR",
    help=f"a folder of weights, or shipped ones: {' or '.join(SHIPPED)} (default: default)",
  )
  parser.add_argument(
    "--resolution", choices=get_args(Resolution), help="default: the weights' own"
  )
  parser.add_argument(
    "--attention", choices=get_args(AttentionLayer), help="default: the weights' own"
  )
  parser.add_argument(
    "--dtype",
    choices=("float32", "bfloat16"),
    default="float32",
    help="what the networks compute in (default: float32)",
  )


def _seed(text: str) -> int:
  largest = 2**32 - 1
  if not (text.isdecimal() and int(text) <= largest):
    raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {largest}, got {text}")
  return int(text)


def parse_psnr(text: str) -> float:
  """A PSNR in dB, the type of an option.

  Raises:
    ArgumentTypeError: If it is no number between 0 and 100.
  """
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 < value < 100:
    raise argparse.ArgumentTypeError(f"expected a number of dB between 0 and 100, got {text}")
  return value


def check_models(option: str, names: Sequence[str]) -> None:
  """Refuses a name that no JND model has.

  Raises:
    UsageError: If there is one.
  """
  for name in names:
    if not is_model(name):
      known = ", ".join(list_models())
      raise UsageError(f"{option}: unknown model {name!r}; known: {known}, folders of weights")

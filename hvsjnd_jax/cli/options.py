"""Options that several commands share."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from hvsjnd_jax import weights
from hvsjnd_jax.cli.command import UsageError
from hvsjnd_jax.data import paths
from hvsjnd_jax.data.formats import limit_pixels
from hvsjnd_jax.evaluation import scores
from hvsjnd_jax.evaluation.estimators import has_networks, is_estimator, list_estimators
from hvsjnd_jax.model.jnd_map import Resolution
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.model.priors import AttentionLayer

# A series of lmbdas goes on to so many.
_MOST_LMBDAS = 1000


def add_photographs(parser: argparse.ArgumentParser) -> None:
  """Adds the options of every command that reads photographs."""
  parser.add_argument(
    "--path",
    type=parse_path,
    nargs="+",
    action="extend",
    metavar="FILE|DIR",
    help="images, videos, and folders to search for images; quoted patterns such as 'a/**/*.png'; "
    "- for a list on standard input (default: four photographs of scikit-image)",
  )
  parser.add_argument(
    "--seed", type=_parse_seed, default=0, metavar="S", help="seed of the noise (default: 0)"
  )
  add_json(parser)
  add_max_megapixels(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
  """Adds the option of every command that writes a report."""
  parser.add_argument(
    "--json",
    type=parse_path,
    metavar="FILE",
    help="write all results as JSON; - is standard output, and all else then goes to stderr",
  )


def add_max_megapixels(parser: argparse.ArgumentParser) -> None:
  """Adds the option of a command that reads images, for `apply_max_megapixels`."""
  parser.add_argument(
    "--max-megapixels",
    type=_parse_megapixels,
    metavar="M",
    help="refuse larger images unread, as a small file may claim a size that fills all memory "
    "(default: 179)",
  )


def apply_max_megapixels(args: argparse.Namespace) -> None:
  """Sets the size above which images are refused, if the option was given."""
  if args.max_megapixels is not None:
    limit_pixels(round(args.max_megapixels * 1e6))


def add_model(parser: argparse.ArgumentParser) -> None:
  """Adds the options of a command that runs one model with networks."""
  parser.add_argument(
    "--model",
    default="default",
    metavar="M",
    help=f"{' or '.join(weights.SHIPPED)}, or a folder of weights (default: default)",
  )
  parser.add_argument(
    "--resolution",
    choices=get_args(Resolution),
    help="resolution of the map (default: that of the model)",
  )
  parser.add_argument(
    "--attention-layer",
    choices=get_args(AttentionLayer),
    help="layer that attention is read from (default: that of the model)",
  )
  parser.add_argument(
    "--dtype",
    choices=("float32", "bfloat16"),
    default="float32",
    help="number format that the networks compute in (default: float32)",
  )


def load_model(args: argparse.Namespace) -> JNDModel:
  """Loads the model that the options of `add_model` name.

  Raises:
    UsageError: If there is no such model, it has no networks, or it does not draw such maps.
    WeightsError: If its weights are damaged.
  """
  if not is_estimator(args.model):
    raise _describe_unknown("--model", args.model, known=weights.SHIPPED)
  if not has_networks(args.model):
    raise UsageError(
      f"--model {args.model}: expected a model with networks: {', '.join(weights.SHIPPED)}, or a "
      f"folder of weights; compare and calibrate take {args.model}"
    )
  model = weights.load(args.model, dtype=args.dtype)
  try:
    model.choose_options(args.resolution, args.attention_layer)
  except ValueError as error:
    raise UsageError(f"--model {args.model}: {error}") from None
  return model


def add_vgg16(parser: argparse.ArgumentParser) -> None:
  """Adds the option of a command that measures `--metrics`, of which DISTS needs weights."""
  parser.add_argument(
    "--vgg16",
    type=parse_path,
    metavar="DIR",
    help="for dists: a folder with VGG16's weights, made by convert.from_torch in a clone",
  )


def parse_metrics(text: str) -> tuple[str, ...]:
  """Parses the names of `--metrics`, separated by commas.

  Raises:
    UsageError: If one is unknown.
  """
  try:
    return scores.parse_metrics(text)
  except ValueError as error:
    raise UsageError(f"--metrics: {error}") from None


def check_models(option: str, names: Sequence[str]) -> None:
  """Refuses names that no JND model has.

  Raises:
    UsageError: If there is one.
  """
  for name in names:
    if not is_estimator(name):
      raise _describe_unknown(option, name, known=list_estimators())


def _describe_unknown(option: str, name: str, *, known: Sequence[str]) -> UsageError:
  listed = ", ".join(known)
  return UsageError(f"{option}: unknown model {name!r}; known: {listed}, folders of weights")


def parse_path(text: str) -> Path:
  """Parses a path on a disk or in an object store (gs://), as the type of an option.

  Raises:
    ArgumentTypeError: If it can be neither.
  """
  try:
    return paths.parse_path(text)
  except paths.PathError as error:
    raise argparse.ArgumentTypeError(str(error)) from None


def parse_local_path(text: str) -> Path:
  """Parses a path on a disk, as the type of an option of what cannot work in an object store.

  Raises:
    ArgumentTypeError: If it is an address.
  """
  if "://" in text:
    raise argparse.ArgumentTypeError(
      f"{text}: must be on a disk; gcloud storage cp -r copies folders from and to gs://"
    )
  return Path(text)


def parse_psnr(text: str) -> float:
  """Parses a PSNR in dB, as the type of an option.

  Raises:
    ArgumentTypeError: If it is not a number between 0 and 100.
  """
  value = _parse_number(text)
  if not 0 < value < 100:
    raise argparse.ArgumentTypeError(f"expected a number of dB between 0 and 100, got {text}")
  return value


def parse_scales(text: str, *, largest: float = math.inf, zero: bool = False) -> tuple[float, ...]:
  """Parses scales of the noise, separated by commas, as the type of an option.

  After two or more of them, "..." goes on in equal steps to the last one.

  Args:
    text: What was given.
    largest: The largest scale allowed.
    zero: Whether 0 is allowed, which adds no noise.

  Returns:
    The scales, in order; one that is given twice counts once.

  Raises:
    ArgumentTypeError: If one is no such number.

  Examples:
    >>> parse_scales("1,2,5")
    (1.0, 2.0, 5.0)
    >>> parse_scales("2,4,...,10")
    (2.0, 4.0, 6.0, 8.0, 10.0)
  """
  parts = text.replace("…", "...").split(",")
  if parts[2:] and parts[-2] == "...":
    known = [_parse_number(part) for part in parts[:-2]]
    values = [*known, *_go_on(known, _parse_number(parts[-1]))]
  else:
    values = [_parse_number(part) for part in parts]
  if not all(
    0 <= value <= largest and math.isfinite(value) and (value or zero) for value in values
  ):
    low, high = "from" if zero else "above", "" if math.isinf(largest) else f" to {largest:.2g}"
    raise argparse.ArgumentTypeError(
      f"expected numbers {low} 0{high}, such as 1,2,5 or 2,4,...,20, got {text}"
    )
  return tuple(dict.fromkeys(values))


def _go_on(known: Sequence[float], last: float) -> list[float]:
  """Returns the numbers after the known ones, up to the last; [nan] where they miss that."""
  step = known[-1] - known[-2] if len(known) > 1 else math.nan
  count = (last - known[-1]) / step if step else math.nan
  if not (0.5 < count < _MOST_LMBDAS and abs(count - round(count)) < 1e-6):
    return [math.nan]
  values = [known[-1] + step * (i + 1) for i in range(round(count) - 1)]
  return [*(float(f"{value:.12g}") for value in values), last]  # 0.3, not 0.30000000000000004


def parse_level(text: str) -> float:
  """Parses the level of a model's maps, as the type of an option.

  Raises:
    ArgumentTypeError: If it is not a number above 0 and at most 1.
  """
  value = _parse_number(text)
  if not 0 < value <= 1:
    raise argparse.ArgumentTypeError(f"expected a number above 0 and at most 1, got {text}")
  return value


def _parse_megapixels(text: str) -> float:
  value = _parse_number(text)
  if not 0 < value < 1e6:
    raise argparse.ArgumentTypeError(f"expected a number above 0, such as 1000, got {text}")
  return value


def _parse_number(text: str) -> float:
  try:
    return float(text)
  except ValueError:
    return math.nan


def _parse_seed(text: str) -> int:
  largest = 2**32 - 1
  if not (text.isdecimal() and int(text) <= largest):
    raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {largest}, got {text}")
  return int(text)

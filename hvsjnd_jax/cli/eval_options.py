"""The options of `eval`."""

import argparse
from collections.abc import Sequence
from functools import partial

from hvsjnd_jax.cli.command import make_parser
from hvsjnd_jax.cli.options import (
  add_model,
  add_photographs,
  add_vgg16,
  parse_path,
  parse_psnr,
  parse_scales,
)
from hvsjnd_jax.cli.saved_images import OUTPUTS, parse_outputs
from hvsjnd_jax.evaluation.evaluate import LARGEST_LMBDA
from hvsjnd_jax.metrics import METRICS
from hvsjnd_jax.model import windows

LARGEST_JND = 1e6


def parse(argv: Sequence[str] | None, *, doc: str | None) -> argparse.Namespace:
  """Parses the command line.

  Args:
    argv: Its words; None means those that the program was started with.
    doc: The docstring of the command's module.
  """
  parser = make_parser("eval", doc)
  add_photographs(parser)
  _add_noise(parser)
  add_model(parser)
  _add_results(parser)
  _add_corpora(parser)
  args = parser.parse_args(argv)
  _check_combinations(parser, args)
  if args.lmbda is None and args.psnr is None and args.jnd is None:
    args.lmbda = (1.0,)
  return args


def _add_noise(parser: argparse.ArgumentParser) -> None:
  strength = parser.add_mutually_exclusive_group()
  strength.add_argument(
    "--lmbda",
    type=partial(parse_scales, largest=LARGEST_LMBDA, zero=True),
    metavar="L[,L]",
    help="scale of the noise: y = clip(x + L * sign * JND, 0, 1); the published README runs 10 "
    "(default: 1); several values give a copy of each image for each of them",
  )
  strength.add_argument(
    "--psnr",
    type=parse_psnr,
    metavar="DB",
    help="in place of --lmbda: the total PSNR that each image is given",
  )
  strength.add_argument(
    "--jnd",
    type=partial(parse_scales, largest=LARGEST_JND, zero=True),
    metavar="J[,J]",
    help="in place of --lmbda: scales in JNDs of a study with people; needs --calibration",
  )
  parser.add_argument(
    "--calibration",
    type=parse_path,
    metavar="FILE",
    help="the calibration.json of a study with people, which has the lmbda of --jnd 1",
  )


def _add_results(parser: argparse.ArgumentParser) -> None:
  lower_is_better = [name for name, metric in METRICS.items() if metric.better == "lower"]
  parser.add_argument(
    "--metrics",
    default="psnr",
    metavar="M,M",
    help=f"what to report: {', '.join(METRICS)} (default: psnr); lower is better for "
    f"{', '.join(lower_is_better)}, higher for the others",
  )
  add_vgg16(parser)
  parser.add_argument(
    "--save",
    type=parse_path,
    metavar="DIR",
    help="write pictures of each image to this folder, and index.html, a page to look at them",
  )
  parser.add_argument(
    "--outputs",
    type=parse_outputs,
    metavar="O,O",
    help=f"with --save: what to write: {', '.join(OUTPUTS)} (default: all, of the "
    "vision models those among --metrics); the page needs original.png and distorted.png",
  )


def _add_corpora(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--jsonl",
    type=parse_path,
    metavar="FILE",
    help="write a line of JSON for each image as soon as it is done, and go on from FILE if it "
    "exists",
  )
  parser.add_argument(
    "--retry",
    action="store_true",
    help="with --jsonl: also try images that are left out because runs were killed on them",
  )
  parser.add_argument(
    "--multihost",
    action="store_true",
    help="share the images with the processes of other hosts (TPU pod, SLURM, ...); needs --jsonl",
  )
  parser.add_argument(
    "--tfds", metavar="NAME|DIR", help="in place of --path: a dataset of TensorFlow Datasets"
  )
  parser.add_argument(
    "--tfds-split", default="train", metavar="S", help="with --tfds: the split (default: train)"
  )
  parser.add_argument(
    "--window",
    type=_parse_window,
    metavar="HxW",
    help="sides of the window, multiples of 8 above 112 (default: chosen for all images)",
  )


def _check_combinations(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
  if args.tfds is not None and args.path is not None:
    parser.error("argument --tfds: not allowed with argument --path")
  if args.multihost and args.jsonl is None:
    parser.error("--multihost needs --jsonl FILE, in a folder that all processes see")
  if args.retry and args.jsonl is None:
    parser.error("--retry needs --jsonl FILE")
  if args.json is not None and args.json == args.jsonl:
    parser.error("--json and --jsonl need a file each")
  if (args.jnd is None) != (args.calibration is None):
    parser.error("--jnd J and --calibration FILE need each other")
  if args.outputs is not None and args.save is None:
    parser.error("--outputs needs --save DIR")


def _parse_window(text: str) -> windows.Window:
  sides = text.split("x")
  if not (len(sides) == 2 and all(side.isdecimal() for side in sides)):
    raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, such as 512x768, got {text}")
  try:
    return windows.check_window((int(sides[0]), int(sides[1])))
  except ValueError as error:
    raise argparse.ArgumentTypeError(str(error)) from None

"""Time the weights "fast" beside "default", "paper" and the published pipeline in PyTorch.

  python -m tests.benchmarks.fast
  python -m tests.benchmarks.fast --size 2160x3840 --runs 3

All estimate one image in turn, in one process, and the medians are printed, with how many times
as long as "fast" each took. "paper" has the networks of the paper, as had the default weights of
commit e282939; `torch_twin` is the same mathematics in PyTorch, which the package itself does not
need: eager in both memory layouts and, on a GPU, compiled.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp

import hvsjnd_jax
from hvsjnd_jax.cli.command import make_parser, run_command
from tests.benchmarks import machine
from tests.benchmarks.contenders import Run, list_forms, take_turns
from tests.benchmarks.pictures import draw_image
from tests.benchmarks.speed_estimate import prepare_theirs
from tests.benchmarks.tables import align

_FAST = "fast"


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  parser = make_parser("fast", __doc__, module="tests.benchmarks.fast")
  parser.add_argument("--size", default="512x768", metavar="HEIGHTxWIDTH", help="(512x768)")
  parser.add_argument("--runs", type=int, default=9, metavar="N", help="(default: 9)")
  args = parser.parse_args(argv)
  machine.share_gpu()
  return run_command("fast", lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
  image = draw_image(*map(int, args.size.split("x")))
  runs = {name: _prepare(name, image) for name in (_FAST, "default", "paper")}
  paper = hvsjnd_jax.load("paper")
  runs |= {name: prepare_theirs(paper, image, form=form) for name, form in list_forms().items()}
  with machine.multiplying_in("float32"):
    seconds, _, _ = take_turns(runs, args.runs)
  medians = {name: statistics.median(each) for name, each in seconds.items()}
  rows = [["", "ms", "times fast"]]
  rows += [
    [name, f"{1e3 * median:.1f}", f"{median / medians[_FAST]:.1f}"]
    for name, median in medians.items()
  ]
  print(args.size, *machine.describe("float32"), sep="\n")
  print(align(rows))
  return 0


def _prepare(name: str, image: jax.typing.ArrayLike) -> Run:
  model, on_device = hvsjnd_jax.load(name), jnp.asarray(image)
  return lambda: jax.block_until_ready(hvsjnd_jax.estimate(model, on_device))


if __name__ == "__main__":
  sys.exit(main())

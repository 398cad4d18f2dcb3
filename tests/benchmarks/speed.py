"""Time the estimate, the command and the training against an eager PyTorch twin.

  python -m tests.benchmarks.speed
  python -m tests.benchmarks.speed estimate layers --sizes 176x176 512x768 --memory
  python -m tests.benchmarks.speed folder train --runs 9 --json FILE

estimate  one image through `hvsjnd_jax.estimate`, whole and through windows, and through the
          twin
layers    the convolutions of that estimate one by one, and a kernel gradient; also in XLA's
          own form, without those of `model/layers.py`
folder    24 images of Kodak's sizes through `python -m hvsjnd_jax.eval`, with an empty
          compilation cache and again with a full one, and through the twin that reloads the
          networks for every image, as the published script does (`torch_folder`)
train     a step of each stage, with the batch and crops of the config "paper", on all devices that
          JAX_NUM_CPU_DEVICES makes of a CPU

This needs torch, which the package itself does not. `torch_twin` is the same mathematics with the
same weights in plain PyTorch. Both must first give the same numbers, or the command ends. "differs
by" is the largest difference: of maps relative to their maximum, of the mean PSNR in dB (which
depends on the signs of the noise), and of a step's loss and gradient norm relatively.

Contenders take turns in one process. The result is the median of the runs without the first, which
compiles and is shown as "first s". `folder` runs each contender once, in a process of its own, from
start to end. "share" is our rate over that of a float32 matrix product in the faster library.

The machine should do nothing else: a busy one slows PyTorch's threads, which wait for each other,
far more than JAX's. The environment is left as it is and printed, because PyTorch is faster where
malloc keeps freed memory (MALLOC_*, GLIBC_TUNABLES).

On a GPU that both libraries see, the twin also runs compiled, and both multiply in float32 or, with
--tf32, in TF32.
"""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from hvsjnd_jax.cli.command import make_parser
from tests.benchmarks import machine
from tests.benchmarks.speed_estimate import Size, measure_estimate, measure_memory
from tests.benchmarks.speed_folder import measure_folder
from tests.benchmarks.speed_layers import measure_layers
from tests.benchmarks.speed_train import measure_train
from tests.benchmarks.tables import Row, align, say, tabulate, to_markdown

_SIZES = ((176, 176), (512, 768), (2160, 3840))

_PARTS = {
  "estimate": measure_estimate,
  "layers": measure_layers,
  "folder": measure_folder,
  "train": measure_train,
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  args = _parse(argv)
  machine.share_gpu()
  precision = "tf32" if args.tf32 else "float32"
  with machine.multiplying_in(precision):
    _measure(args, machine.describe(precision))
  return 0


def _measure(args: argparse.Namespace, described: list[str]) -> None:
  print("\n".join(described))
  rates = machine.measure_matmul(precision="tf32" if args.tf32 else "float32")
  print("matrix product, GFLOP/s:", ", ".join(f"{k} {v:.0f}" for k, v in rates.items()))
  report: dict[str, Any] = {"machine": described, "matmul_gflops": rates}
  rows: list[Row] = []
  for part in args.parts or _PARTS:
    say(part)
    measured = _PARTS[part](args, max(rates.values()))
    print(f"\n{part}\n{align(tabulate(measured))}", flush=True)
    report[part] = [dataclasses.asdict(row) | row.summarize() for row in measured]
    rows += measured
  if args.memory:
    report["memory"] = measure_memory(args.sizes)
  print(f"\n{to_markdown(tabulate(rows))}")
  if args.json is not None:
    args.json.write_text(json.dumps(report, indent=2) + "\n")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("speed", __doc__, module="tests.benchmarks.speed")
  parser.add_argument(
    "parts", nargs="*", metavar="part", help=", ".join(_PARTS) + " (default: all)"
  )
  parser.add_argument(
    "--runs", type=int, default=7, metavar="N", help="runs of each contender, after the first"
  )
  parser.add_argument(
    "--sizes",
    type=_size,
    nargs="+",
    default=_SIZES,
    metavar="HxW",
    help="sizes of the images to estimate",
  )
  parser.add_argument(
    "--memory",
    action="store_true",
    help="also measure the peak memory of every estimate, each in its own process; on a CPU",
  )
  parser.add_argument(
    "--tf32", action="store_true", help="multiply in TF32 on a GPU; differences then end no run"
  )
  parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements as JSON")
  args = parser.parse_args(argv)
  if unknown := sorted(set(args.parts) - set(_PARTS)):
    parser.error(f"unknown part {', '.join(unknown)}: choose from {', '.join(_PARTS)}")
  if args.memory and jax.default_backend() != "cpu":
    parser.error("--memory reads the host's memory, and JAX runs on a GPU here")
  return args


def _size(text: str) -> Size:
  match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
  if not match or int(match[1]) % 8 or int(match[2]) % 8:
    raise argparse.ArgumentTypeError(f"expected HxW, multiples of 8 (the twin's), got {text}")
  return int(match[1]), int(match[2])


if __name__ == "__main__":
  sys.exit(main())

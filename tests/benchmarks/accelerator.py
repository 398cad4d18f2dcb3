"""Measure this package on an accelerator: speed, precision, and the share of its matrix rate.

  python -m tests.benchmarks.accelerator --json FILE
  python -m tests.benchmarks.accelerator estimate --budget 120 --json FILE
  python -m tests.benchmarks.accelerator --quick --json FILE

upsampling  the two kinds of transposed convolutions in the paper's decoder, as the four phases of
            `model/layers.py` and in XLA's own form: which is faster here
estimate    `hvsjnd_jax.estimate`, whole, with the weights "default", "fast" and "paper", the last
            of which PyTorch's twin computes as well
train       a step of each stage of configs/paper.py, also in PyTorch, and of configs/default.py
vision      Butteraugli, SSIMULACRA 2, and ColorVideoVDP's JOD

Each is measured in float32, TF32 and bfloat16, on the first device. A CPU has no TF32, and
multiplies float32 arrays in float32. The layers of our networks compute in bfloat16 by
`load(dtype=...)`, and PyTorch's by autocast. The models of vision multiply in float32 always; here
alone, their products take less, to see what that would give.

"share" is the rate over that of a matrix product in the same precision, the faster of both
libraries'. The operations of a task are those that XLA counts in our float32 program. "error" is
|x - x32| / |x32| in the 2-norm, with x32 in float32 from the same library: of maps, of scores, and
of the gradient of a step. In float32 itself it is the difference from the task's first contender.

A number is the median of rounds, each of as many calls as fill 0.15 s, after two calls that warm
up; calls take turns with three inputs, and a round waits for its last call. "ready" is the time to
compile and to run once. The most telling is measured first, and nothing is begun that might not
end within the budget; what was left out is named. FILE is written anew after each measurement.
Without torch its part is left out. Several processes on one GPU are not measured.
"""

import argparse
import gc
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hvsjnd_jax.cli.command import make_parser, run_command
from hvsjnd_jax.data.atomic import whole_file
from tests.benchmarks import machine
from tests.benchmarks.accelerator_ours import (
  PHASES,
  PLAIN,
  list_estimates,
  list_steps,
  list_upsampling,
  list_vision,
)
from tests.benchmarks.machine import Precision
from tests.benchmarks.tables import align, say
from tests.benchmarks.work import Clock, Sizes, Subject, Timing, find_error, time_subject

PARTS = ("upsampling", "estimate", "train", "vision")

_WHOLE = Sizes((512, 768), (16, 1), 16, {}, 8192, 7, 0.15)
_ON_CPU = _WHOLE._replace(batches=(4, 1), crops=4, matmul_side=2048)
_QUICK = Sizes((48, 64), (2, 1), 2, {"hvs_sd": 64, "jnd": 168}, 256, 2, 0.0)

# In this order: all is measured in the first wave before anything is in the second.
_WAVES: tuple[tuple[Precision, ...], ...] = (("float32", "bfloat16"), ("tf32",))

# What a program is expected to take before one like it has been measured.
_UNKNOWN_SECONDS = 30.0

_PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
_PRECISIONS_OF_CPU: tuple[Precision, ...] = ("float32", "bfloat16")

Report = dict[str, Any]  # what is written as JSON


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  args = _parse(argv)
  machine.share_gpu()
  return run_command("accelerator", lambda: _run(args))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("accelerator", __doc__, module="tests.benchmarks.accelerator")
  parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)} (default: all)")
  parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="the measurements")
  parser.add_argument(
    "--budget", type=float, default=450.0, metavar="S", help="seconds in all (default: 450)"
  )
  parser.add_argument(
    "--quick", action="store_true", help="small images and few runs: to see that all of it works"
  )
  args = parser.parse_args(argv)
  args.parts = args.parts or PARTS
  if unknown := sorted(set(args.parts) - set(PARTS)):
    parser.error(f"unknown part {', '.join(unknown)}: choose from {', '.join(PARTS)}")
  return args


def _run(args: argparse.Namespace) -> int:
  clock = Clock(args.budget)
  on_cpu = jax.default_backend() == "cpu"
  sizes = _QUICK if args.quick else _ON_CPU if on_cpu else _WHOLE
  precisions = _PRECISIONS_OF_CPU if on_cpu else _PRECISIONS
  print(*machine.describe(), sep="\n", flush=True)
  say("matrix product")
  report: Report = {
    "machine": machine.identify(),
    "quick": args.quick,
    "sizes": sizes._asdict(),
    "matmul_gflops": {
      precision: machine.measure_matmul(side=sizes.matmul_side, precision=precision)
      for precision in precisions
    },
    "measured": [],
    "left_out": [] if machine.HAS_TORCH else ["PyTorch, which is not installed"],
    "failed": [],
  }
  subjects = [subject for subject in list_subjects(sizes) if subject.part in args.parts]
  _write(report, args.json, clock)
  for _ in measure(subjects, sizes, clock, report):
    _write(report, args.json, clock)
  _write(report, args.json, clock)  # with what was left out
  print(describe(report), flush=True)
  return 0


def _write(report: Report, file: Path, clock: Clock) -> None:
  """Writes all there is so far, so that a run that is cut off leaves it."""
  report["seconds"] = clock.spent_seconds
  with whole_file(file) as partial:
    partial.write_text(json.dumps(report, indent=2) + "\n")


def list_subjects(sizes: Sizes) -> list[Subject]:
  """Lists what is measured, the most telling first."""
  subjects = [
    *list_estimates("default", sizes),
    *list_estimates("fast", sizes),
    *list_upsampling(sizes),
    *list_steps("paper", sizes),
    *list_vision(sizes),
    *list_estimates("paper", sizes),
  ]
  if machine.HAS_TORCH:
    from tests.benchmarks.accelerator_torch import list_theirs

    subjects += list_theirs(sizes, compiled=False) + list_theirs(sizes, compiled=True)
  return subjects + list_steps("default", sizes)


def measure(
  subjects: Sequence[Subject], sizes: Sizes, clock: Clock, report: Report
) -> Iterator[None]:
  """Measures one after the other, and adds each to the report, until the budget is spent."""
  references: dict[tuple[str, str], np.ndarray] = {}
  costs: dict[tuple[str, ...], float] = {}
  for precision, subject in _order(subjects, list(report["matmul_gflops"])):
    title = f"{subject.task}, {subject.contender}, {precision}"
    own, like = (subject.task, subject.contender), (subject.part, "like", subject.contender)
    if not clock.allows(costs.get(own) or costs.get(like, _UNKNOWN_SECONDS)):
      report["left_out"].append(title)
      continue
    say(f"{clock.spent_seconds:4.0f} s  {title}")
    start = clock.spent_seconds
    try:
      timing = time_subject(subject, precision, sizes)
    # One that does not fit into memory, or that a library refuses, must not cost all others.
    except Exception as error:
      reason = (str(error).strip() or type(error).__name__).splitlines()[0]
      say(f"        failed: {reason}")
      report["failed"].append({"what": title, "reason": reason})
    else:
      report["measured"].append(_record(subject, precision, timing, references, report))
    gc.collect()  # frees what a program held on the device
    costs[own] = clock.spent_seconds - start
    costs[like] = max(costs[own], costs.get(like, 0))
    yield


def _order(
  subjects: Sequence[Subject], precisions: Sequence[Precision]
) -> Iterator[tuple[Precision, Subject]]:
  for wave in _WAVES:
    for subject in subjects:
      for precision in wave:
        if precision in precisions:
          yield precision, subject


def _record(
  subject: Subject,
  precision: Precision,
  timing: Timing,
  references: dict[tuple[str, str], np.ndarray],
  report: Report,
) -> dict[str, Any]:
  own = (subject.task, subject.contender)
  if precision == "float32":
    # Libraries hold gradients in different orders.
    others = [k for k in references if k[0] == subject.task and subject.part != "train"]
    compared = others[0] if others else None
    references[own] = timing.result
  else:
    compared = own if own in references else None
  error = None if compared is None else find_error(timing.result, references[compared])
  known = [r["flop"] for r in report["measured"] if r["task"] == subject.task]
  flop = max((known[0] if known else timing.flop).values(), default=None)
  rate = None if flop is None else 1e-9 * flop / timing.median
  return {
    "part": subject.part,
    "task": subject.task,
    "contender": subject.contender,
    "precision": precision,
    "images_per_second": subject.images / timing.median,
    "spread": max(timing.seconds) / min(timing.seconds) - 1,
    "share": None if rate is None else rate / max(report["matmul_gflops"][precision].values()),
    "error": error,
    "error_against": None if compared is None else compared[1],
    "ready_seconds": timing.ready_seconds,
    "seconds": timing.seconds,
    "calls": timing.calls,
    "images": subject.images,
    "flop": timing.flop,
  }


def describe(report: Report) -> str:
  """Describes what was measured, for a terminal."""
  lines = ["", "matrix product, TFLOP/s"]
  for precision, rates in report["matmul_gflops"].items():
    lines.append(f"  {precision}: " + ", ".join(f"{k} {v / 1e3:.2f}" for k, v in rates.items()))
  lines += ["", align(_tabulate(report["measured"])), "", *_judge_forms(report["measured"])]
  lines += [f"failed: {failed['what']}: {failed['reason']}" for failed in report["failed"]]
  lines += [f"left out: {name}" for name in report["left_out"]]
  lines.append(f"{report['seconds']:.0f} s in all")
  return "\n".join(lines)


def _tabulate(records: Sequence[dict[str, Any]]) -> list[list[str]]:
  precisions = [p for p in _PRECISIONS if any(r["precision"] == p for r in records)]
  heading = ["images a second"]
  for precision in precisions:
    heading += [precision, "spread", "share", "error"]
  cells = [[*heading, "ready s"]]
  for task in dict.fromkeys(record["task"] for record in records):
    cells.append([task, *[""] * len(heading)])
    for contender in dict.fromkeys(r["contender"] for r in records if r["task"] == task):
      own = {r["precision"]: r for r in records if (r["task"], r["contender"]) == (task, contender)}
      row = [f"  {contender}"]
      for precision in precisions:
        row += _format(own[precision]) if precision in own else [""] * 4
      ready = max(record["ready_seconds"] for record in own.values())
      cells.append([*row, f"{ready:.0f}"])
  return cells


def _format(record: dict[str, Any]) -> list[str]:
  share, error = record["share"], record["error"]
  return [
    f"{record['images_per_second']:.4g}",
    f"{record['spread']:.0%}",
    "" if share is None else f"{share:.1%}",
    "" if error is None else f"{error:.0e}",
  ]


def _judge_forms(records: Sequence[dict[str, Any]]) -> list[str]:
  """Says which form of the transposed convolutions is faster, by task and precision."""
  rates: dict[tuple[str, str], dict[str, float]] = {}
  for record in records:
    if record["part"] == "upsampling":
      key = (record["task"], record["precision"])
      rates.setdefault(key, {})[record["contender"]] = record["images_per_second"]
  return [
    f"{task}, {precision}: {max(pair, key=pair.__getitem__)} is faster, "
    f"{max(pair.values()) / min(pair.values()):.2f} times"
    for (task, precision), pair in rates.items()
    if len(pair) == len((PLAIN, PHASES))
  ]


if __name__ == "__main__":
  sys.exit(main())

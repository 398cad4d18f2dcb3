"""Time the three models of vision against their originals, on one pair of images and a CPU.

  python -m tests.benchmarks.vision --cvvdp-python VENV/bin/python
  python -m tests.benchmarks.vision --runs 9 --models butteraugli,cvvdp

Ours are timed with and without the gradient, after compiling; "compiled in" is what that takes for
both. What training pays is timed too: value and gradient of the three together, for 4 crops of
128x128. The originals compute values alone:

butteraugli  the program butteraugli_main (Debian: libjxl-devtools), 0.7, which starts and reads
             two PNG files; "own" is its time less that for 8x8 images
cvvdp        cvvdp 0.5.7 of PyPI, in eager PyTorch, under the interpreter that --cvvdp-python names
ssimulacra2  ssimulacra2 of PyPI, in NumPy, which reads two PNG files. Its borders and scales are
             not the program's, so that only the time can be compared

One that is missing is left out, and the reason printed. The runs of a contender follow each other.
The machine should do nothing else.
"""

import argparse
import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hvsjnd_jax.cli.command import make_parser
from hvsjnd_jax.data.images import to_uint8, write_png
from hvsjnd_jax.metrics import butteraugli, cvvdp, ssimulacra2
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.runtime.cpu import count_cores
from tests.benchmarks.pictures import draw_image
from tests.support.butteraugli_program import PROGRAM, run_butteraugli

_METRICS: dict[str, Callable[..., jax.Array]] = {
  "ssimulacra2": ssimulacra2,
  "butteraugli": butteraugli,
  "cvvdp": cvvdp,
}

_CROPS, _CROP_PX = 4, 128

# Runs in cvvdp's interpreter: two PNG files, the number of runs; prints JOD and seconds.
_CVVDP = """
import json, sys, time
import numpy as np, torch, pycvvdp
from PIL import Image
pair = [np.asarray(Image.open(file)) for file in sys.argv[1:3]]
model = pycvvdp.cvvdp(display_name="standard_4k", device=torch.device("cpu"), quiet=True)
seconds = []
for _ in range(int(sys.argv[3]) + 1):
  start = time.perf_counter()
  with torch.no_grad():
    jod = model.predict(*pair, dim_order="HWC")[0].item()
  seconds.append(time.perf_counter() - start)
print(json.dumps({"score": jod, "seconds": seconds[1:]}))
"""

Run = Callable[[], object]


class LeftOut(NamedTuple):
  """Why an original was not timed."""

  reason: str


class Original(NamedTuple):
  """An original's score, and the seconds of each run by what was timed."""

  score: float
  seconds: dict[str, list[float]]


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  args = _parse(argv)
  print(f"{args.height}x{args.width}, medians of {args.runs} runs", end=", ")
  print(f"{count_cores()} cores", end=", ")
  print(f"load {os.getloadavg()[0]:.1f}, JAX {jax.__version__} on {jax.default_backend()}")
  reference = draw_image(args.height, args.width)
  noise = np.random.default_rng(1).standard_normal(reference.shape, np.float32)
  # In 8 bits, so that programs that read files see the same pair.
  pair = [to_uint8(images)[0] for images in (reference + 0.03 * noise, reference)]
  for name in args.models:
    compare(name, *pair, runs=args.runs, cvvdp_python=args.cvvdp_python)
  time_crops(args.models, runs=args.runs)
  return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("vision", __doc__, module="tests.benchmarks.vision")
  parser.add_argument("--height", type=int, default=512)
  parser.add_argument("--width", type=int, default=768)
  parser.add_argument("--runs", type=int, default=7)
  parser.add_argument(
    "--models",
    type=lambda text: text.split(","),
    default=list(_METRICS),
    metavar="M,M",
    help=f"of {', '.join(_METRICS)} (default: all)",
  )
  parser.add_argument(
    "--cvvdp-python", metavar="FILE", help="a Python interpreter that has the package cvvdp"
  )
  args = parser.parse_args(argv)
  if unknown := set(args.models) - _METRICS.keys():
    parser.error(f"--models: unknown {min(unknown)}; known: {', '.join(_METRICS)}")
  return args


def compare(
  name: str, distorted: Pixels, reference: Pixels, *, runs: int, cvvdp_python: str | None
) -> None:
  """Times a metric and its original, and prints both."""
  batch = [jnp.asarray(pixels[None], jnp.float32) / 255 for pixels in (distorted, reference)]
  metric = _METRICS[name]
  value, value_s = compile_run(lambda d, r: metric(d, r)[0], batch)
  gradient, gradient_s = compile_run(jax.value_and_grad(lambda d, r: metric(d, r)[0]), batch)
  print(f"\n{name}: {float(value()):.4f}; compiled in {value_s + gradient_s:.0f} s")
  ours = show("ours", measure(value, runs))
  show("ours, with gradient", measure(gradient, runs))
  with tempfile.TemporaryDirectory() as folder:
    files = [Path(folder, f"{side}.png") for side in ("distorted", "reference")]
    for file, pixels in zip(files, (distorted, reference), strict=True):
      write_png(file, pixels)
    match name:
      case "butteraugli":
        original = time_program(distorted, reference, files, runs=runs)
      case "cvvdp":
        original = time_cvvdp(cvvdp_python, files, runs=runs)
      case _:
        original = time_ssimulacra2(files, runs=runs)
  if isinstance(original, LeftOut):
    print(f"  original left out: {original.reason}")
    return
  print(f"  original: {original.score:.4f}")
  for what, seconds in original.seconds.items():
    theirs = show(what, seconds)
    print(f"  {'ours / ' + what:24}{ours / theirs:10.2f}")


def compile_run(
  function: Callable[..., object], arguments: Sequence[jax.Array]
) -> tuple[Callable[[], jax.Array], float]:
  """Compiles a function; returns its call with these arguments, and the seconds it took."""
  start = time.perf_counter()
  compiled = jax.jit(function).lower(*arguments).compile()
  seconds = time.perf_counter() - start
  return lambda: jax.block_until_ready(compiled(*arguments)), seconds


def measure(run: Run, runs: int) -> list[float]:
  """Times runs, after one that is not counted."""
  run()
  seconds = []
  for _ in range(runs):
    start = time.perf_counter()
    run()
    seconds.append(time.perf_counter() - start)
  return seconds


def show(what: str, seconds: Sequence[float]) -> float:
  """Prints the median, and returns it."""
  median = statistics.median(seconds)
  print(f"  {what:24}{1e3 * median:10.1f} ms")
  return median


def time_program(
  distorted: Pixels, reference: Pixels, files: Sequence[Path], *, runs: int
) -> Original | LeftOut:
  """Times butteraugli_main, and what it needs besides starting."""
  if PROGRAM is None:
    return LeftOut("butteraugli_main is not on the PATH: apt install libjxl-devtools")
  program = PROGRAM
  score = run_butteraugli(distorted, reference, files[0].parent)["butteraugli_3norm"]
  tiny = [file.with_name(f"tiny_{file.name}") for file in files]
  for file, pixels in zip(tiny, (distorted, reference), strict=True):
    write_png(file, pixels[:8, :8])

  def run(pair: Sequence[Path]) -> None:
    subprocess.run([program, *reversed(pair)], capture_output=True, check=True)

  whole, start = (measure(partial(run, pair), runs) for pair in (files, tiny))
  own = [seconds - statistics.median(start) for seconds in whole]
  return Original(score, {"butteraugli_main": whole, "butteraugli_main, own": own})


def time_cvvdp(python: str | None, files: Sequence[Path], *, runs: int) -> Original | LeftOut:
  """Times the package cvvdp in its own interpreter."""
  if python is None:
    return LeftOut("no --cvvdp-python given")
  command = [python, "-c", _CVVDP, *map(str, files), str(runs)]
  environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  try:
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
  except OSError as error:
    return LeftOut(f"{python}: {error.strerror}")
  if done.returncode:
    return LeftOut(f"{python}: {done.stderr.strip().rpartition(chr(10))[2]}")
  printed = json.loads(done.stdout.splitlines()[-1])
  return Original(printed["score"], {"cvvdp, PyTorch": printed["seconds"]})


def time_ssimulacra2(files: Sequence[Path], *, runs: int) -> Original | LeftOut:
  """Times the package ssimulacra2, if it is installed."""
  if importlib.util.find_spec("ssimulacra2") is None:
    return LeftOut("pip install --no-deps ssimulacra2 would bring one, of other borders")
  score = importlib.import_module("ssimulacra2").compute_ssimulacra2
  pair = [str(file) for file in reversed(files)]
  return Original(score(*pair), {"ssimulacra2, NumPy": measure(lambda: score(*pair), runs)})


def time_crops(models: Sequence[str], *, runs: int) -> None:
  """Times value and gradient of the metrics together, for a batch of crops."""
  reference = np.concatenate([draw_image(_CROP_PX, _CROP_PX, seed=i) for i in range(_CROPS)])
  noise = np.random.default_rng(1).standard_normal(reference.shape, np.float32)
  batch = [jnp.asarray(images) for images in (np.clip(reference + 0.03 * noise, 0, 1), reference)]

  def loss(distorted: jax.Array, reference: jax.Array) -> jax.Array:
    scores = (_METRICS[name](distorted, reference) for name in models)
    return sum((score.sum() for score in scores), start=jnp.zeros(()))

  run, seconds = compile_run(jax.value_and_grad(loss), batch)
  print(f"\n{' + '.join(models)}, {_CROPS} crops of {_CROP_PX}; compiled in {seconds:.0f} s")
  show("ours, with gradient", measure(run, runs))


if __name__ == "__main__":
  sys.exit(main())

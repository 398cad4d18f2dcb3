"""A folder of images, timed from start to end in a process for each contender."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image

import hvsjnd_jax
from hvsjnd_jax.data.images import to_uint8
from tests.benchmarks import machine
from tests.benchmarks.contenders import NCHW, build_twin, check_difference
from tests.benchmarks.pictures import draw_image
from tests.benchmarks.tables import OURS, THEIRS, Row, say

_PSNR_TOLERANCE_DB = 0.05

_ROOT = Path(__file__).parents[2]
_KODAK = ((512, 768),) * 18 + ((768, 512),) * 6


def measure_folder(args: argparse.Namespace, _machine_gflops: float) -> list[Row]:
  """Times the command with an empty and a full compilation cache, and the twin's."""
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    images, weights, report = folder / "images", folder / "twin.pt", folder / "ours.json"
    images.mkdir()
    for i, (height, width) in enumerate(_KODAK):
      pixels = to_uint8(draw_image(height, width, seed=i)[0])
      Image.fromarray(pixels).save(images / f"{i:02}.png")
    torch.save(build_twin(hvsjnd_jax.load("paper"), NCHW).state_dict(), weights)
    ours = f"hvsjnd_jax.eval --path {images} --lmbda 10 --json {report}"
    ours += " --model paper --resolution native"
    theirs = f"tests.benchmarks.torch_folder {images} --lmbda 10 --weights {weights}"
    theirs += f" --device {machine.torch_device()}"
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    say("  ours, empty cache")
    cold, _ = _time_command(ours, cache)
    say("  ours, full cache")
    warm, _ = _time_command(ours, cache)
    say("  theirs")
    their_seconds, printed = _time_command(theirs, {})
    psnr = json.loads(report.read_text())["mean"]["psnr"]
  difference = abs(psnr - float(printed.split()[-1]))
  check_difference("mean PSNR", difference, _PSNR_TOLERANCE_DB, args)
  return [
    Row(
      f"eval {len(_KODAK)} images, {cached} cache",
      {OURS: [seconds], f"{THEIRS} nchw": [their_seconds]},
      difference=difference,
    )
    for cached, seconds in (("empty", cold), ("full", warm))
  ]


def _time_command(command: str, environment: Mapping[str, str]) -> tuple[float, str]:
  """Times `python -m command` from start to end, and returns what it printed."""
  start = time.perf_counter()
  done = subprocess.run(
    [sys.executable, "-m", *command.split()],
    env=os.environ | environment,
    cwd=_ROOT,
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  )
  return time.perf_counter() - start, done.stdout

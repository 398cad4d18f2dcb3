"""Count the crops that a core cuts in a second: from photographs, and from tiles of them.

  python -m tests.benchmarks.input --images KODAK

The photographs are linked many times, because Grain needs a millisecond to shuffle a folder of
twenty-four, and tiles are built of them, as many as there are links. Both then go through
`crop_stream`, as in training, with the crops of configs/tpu_pod.py (176 pixels) and of
configs/default.py (128 and 320), from tiles for crops of that size. The contenders take turns, and
the median of the rounds is printed. A core's rate is the number of crops over the seconds of CPU
time that all processes needed, which a busy machine changes less than the time of a clock. Files
are in the page cache.

The stages follow, each alone, in microseconds of CPU time a crop; "handed over" is what the
training process itself needs where a worker cuts.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np
from PIL import Image

from hvsjnd_jax.cli.command import make_parser
from hvsjnd_jax.data.__main__ import main as build
from hvsjnd_jax.data.config import DataConfig
from hvsjnd_jax.data.crops import RandomCrop, crop_stream
from hvsjnd_jax.data.images import find_images, read_image
from hvsjnd_jax.data.sources import open_photos
from hvsjnd_jax.data.tiles import TileFolder
from hvsjnd_jax.runtime.cpu import keep_freed_memory
from tests.benchmarks.tables import align

_SIZES_PX = (176, 128, 320)
_BATCH_SIZE = 32
# What a host of eight v5e chips could train on in a second, by stage (docs/training.md).
_BOUNDS = (23_000, 6_700)

# The number of workers, and of batches to measure, of each contender; the last is what a pod needs.
_CONTENDERS = {"folder": (0, 4), "tiles": (0, 100), "worker": (1, 100)}

_STAGE_SECONDS = 0.1  # of each of five times that a stage is measured


class Rate(NamedTuple):
  """What a stream of crops costs.

  Attributes:
    crops_per_core_second: Crops over CPU time.
    handing_us: CPU time of the process that takes the batches, a crop.
  """

  crops_per_core_second: float
  handing_us: float


def measure_stream(config: DataConfig, *, crop_px: int, batches: int) -> Rate:
  """Measures the batches of a stream, after the first few."""
  settings = {"crop_px": crop_px, "batch_size": _BATCH_SIZE, "seed": 0}
  with closing(crop_stream(open_photos(config), config, **settings)) as stream:
    for _ in range(2 + 4 * config.threads * max(1, config.workers)):  # what is cut ahead
      next(stream)
    everyone, alone = _cpu_seconds(), time.process_time()
    for _ in range(batches):
      next(stream)
    everyone, alone = _cpu_seconds() - everyone, time.process_time() - alone
  crops = batches * _BATCH_SIZE
  return Rate(crops / everyone, 1e6 * alone / crops)


def _cpu_seconds() -> float:
  """The CPU time of this process and its workers so far."""
  seconds = time.process_time()
  for worker in multiprocessing.active_children():
    fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
    seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
  return seconds


def measure_stages(photographs: Path, tiles: Path, *, crop_px: int) -> dict[str, float]:
  """Measures each stage alone; returns microseconds of CPU time a crop."""
  config = DataConfig(images=str(tiles))
  paths, _ = find_images([photographs])
  photo, folder = read_image(paths[0]), TileFolder(tiles)
  record = folder[0]
  rng = np.random.default_rng(0)
  order = [int(i) for i in rng.integers(len(folder), size=1024)]
  wanted = iter(order * 1000)
  resized = RandomCrop(config, crop_px=crop_px)
  copied = RandomCrop(DataConfig(min_scale=1, max_scale=1), crop_px=crop_px)
  shuffled = grain.MapDataset.range(len(folder)).shuffle(seed=0).repeat(None)
  chunk = [copied.random_map((0, record), rng).pixels for _ in range(_BATCH_SIZE)]
  stages: dict[str, tuple[Callable[[], object], int]] = {
    "photograph decoded": (lambda: read_image(paths[next(wanted) % len(paths)]), 1),
    "crop resized": (lambda: resized.random_map((0, photo), rng), 1),
    "tile read": (lambda: folder[next(wanted)], 1),
    "tiles read at once": (
      lambda: folder._records.__getitems__([next(wanted) for _ in range(_BATCH_SIZE)]),
      _BATCH_SIZE,
    ),
    "tile cut": (lambda: copied.random_map((0, record), rng), 1),
    "index shuffled": (lambda: shuffled[next(wanted)], 1),
    "crops stacked": (lambda: np.stack(chunk), _BATCH_SIZE),
  }
  return {name: _time(run) / crops for name, (run, crops) in stages.items()}


def _time(run: Callable[[], object]) -> float:
  run()
  took = []
  for _ in range(5):
    start, runs = time.process_time(), 0
    while not runs or time.process_time() - start < _STAGE_SECONDS:
      run()
      runs += 1
    took.append(1e6 * (time.process_time() - start) / runs)
  return statistics.median(took)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  args = _parse(argv)
  keep_freed_memory()  # as `train`
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    photographs = _link(args.images, folder / "photographs", args.links)
    tiles = {px: _build(args.images, folder / f"tiles{px}", args.links, px) for px in _SIZES_PX}
    print(f"{_describe(photographs)}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(align(list(_measure_rates(photographs, tiles, args.rounds))), flush=True)
    stages = {px: measure_stages(photographs, tiles[px], crop_px=px) for px in _SIZES_PX}
  cells = [["CPU time a crop, us", *(f"{px} px" for px in _SIZES_PX)]]
  for stage in stages[_SIZES_PX[0]]:
    cells.append([stage, *(f"{stages[px][stage]:.0f}" for px in _SIZES_PX)])
  print(f"\n{align(cells)}")
  return 0


def _measure_rates(photographs: Path, tiles: dict[int, Path], rounds: int) -> Iterator[list[str]]:
  """Yields the cells of the table, a row for each size of crops."""
  yield [
    "crops a second a core",
    *_CONTENDERS,
    *(f"{name} / folder" for name in _CONTENDERS if name != "folder"),
    "handed over, us",
    *(f"cores for {bound:,}" for bound in _BOUNDS),
  ]
  for px in _SIZES_PX:
    taken: dict[str, list[Rate]] = {name: [] for name in _CONTENDERS}
    for _ in range(rounds):
      for name, (workers, batches) in _CONTENDERS.items():
        images = photographs if name == "folder" else tiles[px]
        config = DataConfig(images=str(images), workers=workers)
        taken[name].append(measure_stream(config, crop_px=px, batches=batches))
    rates = {
      name: statistics.median(rate.crops_per_core_second for rate in found)
      for name, found in taken.items()
    }
    *_, last = rates
    handing_us = statistics.median(rate.handing_us for rate in taken[last])
    yield [
      f"{px} px",
      *(f"{rate:.0f}" for rate in rates.values()),
      *(f"{rate / rates['folder']:.0f}" for name, rate in rates.items() if name != "folder"),
      f"{handing_us:.0f}",
      *(f"{bound / rates[last]:.1f}" for bound in _BOUNDS),
    ]


def _link(images: Path, folder: Path, links: int) -> Path:
  folder.mkdir()
  for index, path in enumerate(find_images([images])[0]):
    for copy in range(links):
      (folder / f"{copy:03d}_{index:04d}{path.suffix}").symlink_to(path.absolute())
  return folder


def _build(images: Path, folder: Path, count: int, crop_px: int) -> Path:
  options = ("--images", images, "--out", folder, "--tiles", count, "--crop-px", crop_px)
  if build(["build", *map(str, options)]):
    raise SystemExit("input: tiles could not be built")
  return folder


def _describe(photographs: Path) -> str:
  paths, _ = find_images([photographs])
  with Image.open(paths[0]) as first:
    size = f"{first.height}x{first.width} {first.format}"
  return f"{len(paths)} links to photographs, the first {size}"


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("input", __doc__, module="tests.benchmarks.input")
  parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="photographs")
  parser.add_argument(
    "--links", type=int, default=64, metavar="N", help="links to, and tiles of each photograph"
  )
  parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of measuring")
  return parser.parse_args(argv)


if __name__ == "__main__":
  sys.exit(main())

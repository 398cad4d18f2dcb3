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
train     a step of each stage, with the batch and crops of the default config

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
import concurrent.futures
import dataclasses
import functools
import json
import math
import multiprocessing
import operator
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.grad import conv2d_weight

import hvsjnd_jax
from hvsjnd_jax.data.crops import Crops
from hvsjnd_jax.data.images import to_uint8
from hvsjnd_jax.model import windows
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.model.layers import downsampling_conv, upsampling_conv
from hvsjnd_jax.model.windows import plan_window
from hvsjnd_jax.runtime.sharding import make_mesh, replicate, shard_batch
from hvsjnd_jax.training.config import Stage, TrainConfig
from hvsjnd_jax.training.train_state import init_state, split_model
from hvsjnd_jax.training.train_step import make_step
from tests.benchmarks import machine
from tests.benchmarks.pictures import draw_image
from tests.benchmarks.tables import OURS, THEIRS, Row, align, tabulate, to_markdown
from tests.benchmarks.torch_twin import Trainer, Twin, estimate

# Relative to the map's maximum, which is small; 1.5e-6 was measured.
ESTIMATE_TOLERANCE = 1e-4
# Relative difference of a first step's loss and gradient norm; 3e-6 was measured.
STEP_TOLERANCE = 1e-4
_PSNR_TOLERANCE_DB = 0.05

_ROOT = Path(__file__).parents[2]
_SIZES = ((176, 176), (512, 768), (2160, 3840))
_LARGE_PX = 2**20  # larger images get a third of the runs
_KODAK = ((512, 768),) * 18 + ((768, 512),) * 6

Size = tuple[int, int]
Run = Callable[[], Any]  # returns an array or a tensor, NHWC, once it is computed


class Form(NamedTuple):
  """How the twin runs."""

  layout: torch.memory_format
  compiled: bool = False


NCHW = Form(torch.contiguous_format)
CHANNELS_LAST = Form(torch.channels_last)


def list_forms() -> dict[str, Form]:
  """Lists the twin's forms by name."""
  forms = {f"{THEIRS} nchw": NCHW, f"{THEIRS} channels-last": CHANNELS_LAST}
  if machine.torch_device() == "cuda":
    forms[f"{THEIRS} compiled"] = Form(torch.channels_last, compiled=True)
  return forms


def list_estimators() -> dict[str, Callable[[JNDModel, np.ndarray], Run]]:
  """Lists the contenders by name; each is a column of the tables."""
  return {
    OURS: prepare_ours,
    f"{OURS}, windows": prepare_windows,
    **{k: functools.partial(prepare_theirs, form=form) for k, form in list_forms().items()},
  }


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  if torch.cuda.is_available():  # JAX would otherwise reserve most of its memory
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  args = _parse(argv)
  machine.set_precision(tf32=args.tf32)
  described = machine.describe(tf32=args.tf32)
  print("\n".join(described))
  rates = machine.measure_matmul()
  print("matrix product, GFLOP/s:", ", ".join(f"{k} {v:.0f}" for k, v in rates.items()))
  report: dict[str, Any] = {"machine": described, "matmul_gflops": rates}
  rows: list[Row] = []
  for part in args.parts or _PARTS:
    _say(part)
    measured = _PARTS[part](args, max(rates.values()))
    print(f"\n{part}\n{align(tabulate(measured))}", flush=True)
    report[part] = [dataclasses.asdict(row) | row.summarize() for row in measured]
    rows += measured
  if args.memory:
    report["memory"] = _measure_memory(args.sizes)
  print(f"\n{to_markdown(tabulate(rows))}")
  if args.json is not None:
    args.json.write_text(json.dumps(report, indent=2) + "\n")
  return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  description, _, notes = (__doc__ or "").partition("\n\n")
  parser = argparse.ArgumentParser(
    prog="python -m tests.benchmarks.speed",
    description=description,
    epilog=notes,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
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


def _say(text: str) -> None:
  print(text, file=sys.stderr, flush=True)


def _take_turns(runs: Mapping[str, Run], count: int) -> tuple[dict[str, list[float]], float, list]:
  """Runs every contender once, then `count` times in turn.

  Returns:
    Seconds by name, without the first runs; those of our first run; the results of the first runs.
  """
  first_seconds, results = 0.0, []
  for name, run in runs.items():
    start = time.perf_counter()
    result = run()
    if name == OURS:
      first_seconds = time.perf_counter() - start
    results.append(np.asarray(result.cpu() if isinstance(result, Tensor) else result))
  seconds: dict[str, list[float]] = {name: [] for name in runs}
  for _ in range(count):
    for name, run in runs.items():
      seconds[name].append(machine.timed(run))
  return seconds, first_seconds, results


def _check(what: str, difference: float, tolerance: float, args: argparse.Namespace) -> None:
  if not (difference <= tolerance or args.tf32):
    raise SystemExit(f"speed: {what}: ours and theirs differ by {difference:.2g} > {tolerance:g}")


# The estimate.


def prepare_ours(model: JNDModel, image: np.ndarray) -> Run:
  """Prepares our estimate of an image."""
  on_device = jnp.asarray(image)
  return lambda: jax.block_until_ready(hvsjnd_jax.estimate(model, on_device))


def prepare_windows(model: JNDModel, image: np.ndarray) -> Run:
  """Prepares our estimate through windows of a shape that fits."""
  window = plan_window([(image.shape[1], image.shape[2])])

  def run() -> np.ndarray:
    return windows.analyze(model, image, window=window).jnd

  return run


def prepare_theirs(model: JNDModel, image: np.ndarray, *, form: Form) -> Run:
  """Prepares the twin's estimate."""
  twin, on_device = build_twin(model, form), _to_torch(image, form)

  def run() -> Tensor:
    jnd = estimate(twin, on_device)
    machine.synchronize()
    return jnd.permute(0, 2, 3, 1)

  return run


def build_twin(model: JNDModel, form: Form) -> Twin:
  """Builds the twin with the model's weights."""
  twin = Twin().fill(model).to(machine.torch_device())
  twin.to(memory_format=form.layout)  # pyright: ignore[reportCallIssue]  # not in torch's types
  if form.compiled:
    hvs_sd = twin.hvs_sd
    for network in (hvs_sd.encoder, hvs_sd.decoder, hvs_sd.bit_estimator, twin.generator):
      network.compile()
  return twin


def _to_torch(images: np.ndarray, form: Form) -> Tensor:
  tensor = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
  return tensor.to(machine.torch_device()).contiguous(memory_format=form.layout)


def _measure_estimate(args: argparse.Namespace, machine_gflops: float) -> list[Row]:
  model = hvsjnd_jax.load()
  rows = []
  for height, width in args.sizes:
    _say(f"  {height}x{width}")
    image = draw_image(height, width)
    runs = {name: prepare(model, image) for name, prepare in list_estimators().items()}
    count = args.runs if height * width < _LARGE_PX else max(1, args.runs // 3)
    seconds, first_seconds, (ours, *others) = _take_turns(runs, count)
    difference = max(float(np.abs(jnd - ours).max() / ours.max()) for jnd in others)
    _check(f"estimate {height}x{width}", difference, ESTIMATE_TOLERANCE, args)
    gflop = 1e-9 * height * width * sum(count_flop(model).values())
    name = f"estimate {height}x{width}"
    rows.append(Row(name, seconds, first_seconds, difference, gflop, machine_gflops))
  return rows


# The side in pixels of a layer's cell, in each of which its kernel is multiplied once: one pixel of
# the layer's input or output, whichever is smaller.
_CELLS_PX = {
  "hvs_sd.encoder": {"conv1": 2, "gdn1": 2, "conv2": 4, "gdn2": 4, "conv3": 8},
  "hvs_sd.decoder": {"deconv1": 8, "igdn1": 4, "deconv2": 4, "igdn2": 2, "deconv3": 2},
  "generator": {"conv1": 1, "conv2": 2, "conv3": 2, "conv4": 4, "conv5": 4, "conv6": 4},
}


def count_flop(model: JNDModel) -> dict[str, float]:
  """Counts the floating-point operations of an estimate for each pixel, by layer; 341,036 in all.

  Every entry of a kernel (in GDN, of gamma) is multiplied and added once in each of the layer's
  cells, which is 2 · entries / cell² a pixel. HVS-SD counts twice, because the input gradient runs
  the transpose of each of its linear maps. Everything but matrix products is left out.
  """
  flop = {}
  for network, cells in _CELLS_PX.items():
    passes = 1 if network == "generator" else 2
    for name, cell_px in cells.items():
      layer = operator.attrgetter(f"{network}.{name}")(model)
      entries = (layer.gamma if "gdn" in name else layer.kernel)[...].size
      flop[f"{network}.{name}"] = passes * 2 * entries / cell_px**2
  return flop


def _measure_memory(sizes: Iterable[Size]) -> list[dict[str, Any]]:
  """Measures and prints the peak memory by size and contender."""
  names = list(list_estimators())
  peaks, cells = [], [["peak MiB (before the estimate)", *names]]
  for height, width in sizes:
    cells.append([f"{height}x{width}"])
    for name in names:
      _say(f"memory {height}x{width} {name}")
      context = multiprocessing.get_context("spawn")
      with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
          before, peak = pool.submit(_read_peaks, name, (height, width)).result()
        except BrokenProcessPool:
          cells[-1].append("killed")
          continue
      cells[-1].append(f"{peak} ({before})")
      peaks.append({"size": [height, width], "name": name, "peak_mib": peak, "before_mib": before})
  print(f"\nmemory\n{align(cells)}", flush=True)
  return peaks


def _read_peaks(name: str, size: Size) -> tuple[int, int]:
  """Reads the peak memory of this process before an estimate, and after it."""
  run = list_estimators()[name](hvsjnd_jax.load(), draw_image(*size))
  before = machine.peak_mib()
  run()
  return before, machine.peak_mib()


# The layers of the estimate.


class LayerRun(NamedTuple):
  """A layer in both libraries, with the shapes of its images, NHWC, and kernel, HWIO."""

  ours: Callable[..., jax.Array]
  plain: Callable[..., jax.Array] | None  # XLA's own form, where ours differs
  theirs: Callable[..., Tensor]  # takes tensors NCHW and OIHW
  images: tuple[int, ...]
  kernel: tuple[int, ...]


def list_layers() -> dict[str, LayerRun]:
  """Lists the layers of an estimate of 512x768, and the kernel gradient that training adds."""
  down = functools.partial(torch.nn.functional.conv2d, stride=2, padding=2)
  up = functools.partial(
    torch.nn.functional.conv_transpose2d, stride=2, padding=2, output_padding=1
  )

  def plain_up(images: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
      images,
      kernel[::-1, ::-1].swapaxes(2, 3),
      (1, 1),
      ((2, 3), (2, 3)),
      lhs_dilation=(2, 2),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )

  # This is that of the transposed convolution, in which the output's gradient is the larger array.
  def kernel_gradient(conv: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    def run(large: jax.Array, kernel: jax.Array) -> jax.Array:
      return jax.vjp(functools.partial(conv, large[:, ::2, ::2]), kernel)[1](large)[0]

    return run

  def their_kernel_gradient(large: Tensor, kernel: Tensor) -> Tensor:
    small = large[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last)
    return conv2d_weight(large, kernel.shape, small, stride=2, padding=2)

  wide, narrow = (5, 5, 128, 128), (5, 5, 3, 128)
  return {
    "conv 3 to 128": LayerRun(downsampling_conv, None, down, (1, 512, 768, 3), narrow),
    "conv 128 to 128": LayerRun(downsampling_conv, None, down, (1, 256, 384, 128), wide),
    "transposed 128 to 128": LayerRun(upsampling_conv, plain_up, up, (1, 128, 192, 128), wide),
    "transposed 128 to 3": LayerRun(upsampling_conv, plain_up, up, (1, 256, 384, 128), narrow),
    "its kernel gradient, 4 crops": LayerRun(
      kernel_gradient(upsampling_conv),
      kernel_gradient(plain_up),
      their_kernel_gradient,
      (4, 64, 64, 128),
      wide,
    ),
  }


def _measure_layers(args: argparse.Namespace, machine_gflops: float) -> list[Row]:
  rng = np.random.default_rng(0)
  rows = []
  for name, layer in list_layers().items():
    images, kernel = (rng.standard_normal(s, np.float32) for s in (layer.images, layer.kernel))
    runs: dict[str, Run] = {}
    for contender, function in ((OURS, layer.ours), (f"{OURS}, plain XLA", layer.plain)):
      if function is not None:
        run = functools.partial(jax.jit(function), jnp.asarray(images), jnp.asarray(kernel))
        runs[contender] = lambda run=run: jax.block_until_ready(run())
    for form_name, form in list_forms().items():
      arrays = _to_torch(images, form), torch.from_numpy(kernel).permute(3, 2, 0, 1)
      arrays = arrays[0], arrays[1].to(arrays[0].device).contiguous(memory_format=form.layout)
      runs[form_name] = functools.partial(_run_torch, layer.theirs, *arrays)
    seconds, first_seconds, _ = _take_turns(runs, args.runs)
    # Each entry of the kernel is multiplied once for every pixel of the smaller side.
    cells = math.prod(layer.images[:3]) / (1 if name.startswith("transposed") else 4)
    gflop = 2e-9 * cells * kernel.size
    rows.append(Row(name, seconds, first_seconds, None, gflop, machine_gflops))
  return rows


def _run_torch(function: Callable[..., Tensor], *arrays: Tensor) -> Tensor:
  with torch.inference_mode():
    result = function(*arrays)
  machine.synchronize()
  return result


# A folder of images.


def _measure_folder(args: argparse.Namespace, _machine_gflops: float) -> list[Row]:
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    images, weights, report = folder / "images", folder / "twin.pt", folder / "ours.json"
    images.mkdir()
    for i, (height, width) in enumerate(_KODAK):
      pixels = to_uint8(draw_image(height, width, seed=i)[0])
      Image.fromarray(pixels).save(images / f"{i:02}.png")
    torch.save(build_twin(hvsjnd_jax.load(), NCHW).state_dict(), weights)
    ours = f"hvsjnd_jax.eval --path {images} --lmbda 10 --json {report}"
    theirs = f"tests.benchmarks.torch_folder {images} --lmbda 10 --weights {weights}"
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    _say("  ours, empty cache")
    cold, _ = _time_command(ours, cache)
    _say("  ours, full cache")
    warm, _ = _time_command(ours, cache)
    _say("  theirs")
    their_seconds, printed = _time_command(theirs, {})
    psnr = json.loads(report.read_text())["mean"]["psnr"]
  difference = abs(psnr - float(printed.split()[-1]))
  _check("mean PSNR", difference, _PSNR_TOLERANCE_DB, args)
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


# Training.


def _measure_train(args: argparse.Namespace, _machine_gflops: float) -> list[Row]:
  config = TrainConfig()
  rows = []
  for stage in config.stages:
    _say(f"  {stage}")
    settings = config.settings(stage)
    crops = draw_crops(settings.batch_size, settings.crop_px)
    runs = {OURS: prepare_our_step(config, stage, crops)} | {
      name: prepare_their_step(config, stage, crops, form=form)
      for name, form in list_forms().items()
    }
    seconds, first_seconds, (ours, *others) = _take_turns(runs, args.runs)
    difference = max(float(np.abs(figures / ours - 1).max()) for figures in others)
    _check(f"train {stage}", difference, STEP_TOLERANCE, args)
    name = f"train {stage}, {settings.batch_size} of {settings.crop_px}x{settings.crop_px}"
    rows.append(Row(name, seconds, first_seconds, difference))
  return rows


def draw_crops(batch_size: int, crop_px: int) -> Crops:
  """Draws a batch, as the trainer reads it."""
  images = np.concatenate([draw_image(crop_px, crop_px, seed=i) for i in range(batch_size)])
  indices = np.arange(batch_size)
  return Crops(to_uint8(images), indices.astype(np.uint32), indices)


def prepare_our_step(config: TrainConfig, stage: Stage, crops: Crops) -> Run:
  """Prepares steps of our training from the default weights; each returns loss and norm."""
  mesh = make_mesh(jax.devices()[:1])
  graph, params, frozen = split_model(hvsjnd_jax.load(), stage)
  state = replicate(init_state(params, config.settings(stage)), mesh)
  frozen, batch = replicate(frozen, mesh), shard_batch(crops, mesh)
  run_step = make_step(config, stage, graph, mesh)
  step = 0

  def run() -> np.ndarray:
    nonlocal state, step
    state, terms = jax.block_until_ready(run_step(state, step, frozen, batch, None))
    step += 1
    return np.asarray([float(terms["loss"]), float(terms["gradient_norm"])])

  return run


def prepare_their_step(config: TrainConfig, stage: Stage, crops: Crops, *, form: Form) -> Run:
  """Prepares the twin's steps; the first uses the noise of our first, to compare the two."""
  trainer = Trainer(build_twin(hvsjnd_jax.load(), form), config, stage)
  pixels, our_noise = _to_torch(crops.pixels, form), _to_torch(_draw_our_noise(crops, stage), form)

  def run() -> np.ndarray:
    images = pixels / 255
    noise = trainer.draw_noise(images) if trainer.steps else our_noise
    loss, norm = trainer.step(images, noise)
    machine.synchronize()
    return np.asarray([loss.item(), norm.item()])

  return run


def _draw_our_noise(crops: Crops, stage: Stage) -> np.ndarray:
  """Draws the noise that the objectives draw for a batch, NHWC."""
  side = crops.pixels.shape[1]

  def draw(seed: jax.Array) -> jax.Array:
    key = jax.random.key(seed)
    if stage == "hvs_sd":
      return jax.random.uniform(key, (side // 8, side // 8, 128), minval=-0.5, maxval=0.5)
    return hvsjnd_jax.random_signs(key, (side, side))[..., None]

  return np.asarray(jax.vmap(draw)(jnp.asarray(crops.noise_seeds)))


_PARTS = {
  "estimate": _measure_estimate,
  "layers": _measure_layers,
  "folder": _measure_folder,
  "train": _measure_train,
}

if __name__ == "__main__":
  sys.exit(main())

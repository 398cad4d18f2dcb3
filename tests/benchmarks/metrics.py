"""Time the metrics against those of piq (PyTorch) on one pair of images.

  pip install --no-deps piq
  python -m tests.benchmarks.metrics
  python -m tests.benchmarks.metrics --gradient --runs 9

This needs torch and piq, which the package itself does not. The five metrics are SSIM, MS-SSIM,
GMSD, FSIM and DISTS; the two libraries take turns. Compare the medians on a machine that does
nothing else. A busy one slows PyTorch's threads, which wait for each other, far more than JAX's,
and then the minima are fairer. JAX's functions are compiled before the clock starts; the time
that this needs is printed beside them.

piq's SSIM is told not to downsample the images, since ours does not. Two of piq's formulas differ
in cost from ours: its GMSD uses luma only, a third of our work, and its DISTS interpolates to a
shorter side of 256 where ours averages, to the same size. DISTS runs with random weights of VGG16,
the same in both, so that no file is needed; the time does not depend on them. piq imports
torchvision only for VGG16's layers, which are built here instead.
"""

import argparse
import functools
import importlib
import statistics
import sys
import time
import types
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import nn

from hvsjnd_jax import metrics
from hvsjnd_jax.cli.command import make_parser
from hvsjnd_jax.metrics.backbones import VGG16
from hvsjnd_jax.metrics.dists import load_weights
from tests.benchmarks.pictures import draw_image

_WIDTHS = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  args = _parse(argv)
  vgg16 = VGG16(rngs=nnx.Rngs(0))
  piq = _import_piq(vgg16)
  distorted, reference = _draw_pair(args.height, args.width)
  ours: dict[str, Callable[..., jax.Array]] = {
    "ssim": metrics.ssim,
    "ms_ssim": metrics.ms_ssim,
    "gmsd": metrics.gmsd,
    "fsim": metrics.fsim,
    "dists": functools.partial(metrics.dists, vgg16=vgg16),
  }
  theirs: dict[str, Callable[..., Any]] = {
    "ssim": functools.partial(piq.ssim, downsample=False),
    "ms_ssim": piq.multi_scale_ssim,
    "gmsd": piq.gmsd,
    "fsim": piq.fsim,
    "dists": piq.DISTS(),
  }
  what = "value and gradient" if args.gradient else "value"
  print(f"{what}, {args.height}x{args.width}, {args.runs} runs, {jax.devices()[0]}")
  print(f"{torch.get_num_threads()} threads in PyTorch {torch.__version__}, piq {piq.__version__}")
  print(f"{'':8}{'median':^23}{'least':^23}")
  print(f"{'metric':8}" + "  jax ms  piq ms  ratio" * 2 + "   compile s    score   piq's")
  totals = np.zeros((2, 2))
  for name in ours:
    run_ours, compile_seconds = _prepare_ours(ours[name], distorted, reference, args.gradient)
    run_theirs = _prepare_theirs(theirs[name], distorted, reference, args.gradient)
    scores = run_ours(), run_theirs()  # also fills caches and wakes threads
    seconds = [[], []]
    for _ in range(args.runs):
      for taken, run in zip(seconds, (run_ours, run_theirs), strict=True):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    kinds = (statistics.median, min)
    milliseconds = np.asarray([[1e3 * kind(taken) for taken in seconds] for kind in kinds])
    totals += milliseconds
    print(_row(name, milliseconds) + f"   {compile_seconds:9.1f}{scores[0]:9.5f}{scores[1]:8.5f}")
  print(_row("all five", totals))
  return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("metrics", __doc__, module="tests.benchmarks.metrics")
  parser.add_argument("--height", type=int, default=512)
  parser.add_argument("--width", type=int, default=768)
  parser.add_argument("--runs", type=int, default=7)
  parser.add_argument(
    "--gradient", action="store_true", help="also compute the gradient with respect to `distorted`"
  )
  return parser.parse_args(argv)


def _row(name: str, milliseconds: np.ndarray) -> str:
  """Formats medians, then minima, ours and theirs."""
  return f"{name:8}" + "".join(f"{a:8.1f}{b:8.1f}{a / b:7.2f}" for a, b in milliseconds)


def _draw_pair(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
  reference = draw_image(height, width)
  noise = np.random.default_rng(1).standard_normal(reference.shape, np.float32)
  return np.clip(reference + 0.05 * noise, 0, 1), reference


def _prepare_ours(
  metric: Callable[..., jax.Array], distorted: np.ndarray, reference: np.ndarray, gradient: bool
) -> tuple[Callable[[], float], float]:
  def score(distorted: jax.Array, reference: jax.Array) -> jax.Array:
    return metric(distorted, reference)[0]

  pair = jnp.asarray(distorted), jnp.asarray(reference)
  start = time.perf_counter()
  compiled = jax.jit(jax.value_and_grad(score) if gradient else score).lower(*pair).compile()
  seconds = time.perf_counter() - start

  def run() -> float:
    result = jax.block_until_ready(compiled(*pair))
    return float(result[0] if gradient else result)

  return run, seconds


def _prepare_theirs(
  metric: Callable[..., Any], distorted: np.ndarray, reference: np.ndarray, gradient: bool
) -> Callable[[], float]:
  first, second = (
    torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))
    for image in (distorted, reference)
  )

  def run() -> float:
    with torch.set_grad_enabled(gradient):
      score = metric(first.clone().requires_grad_(gradient), second)
    if gradient:
      score.backward()
    return score.item()

  return run


def _import_piq(vgg16: VGG16) -> types.ModuleType:
  """piq, with VGG16's layers in torchvision's place and nothing downloaded."""

  def build_vgg16(*_: object, **__: object) -> nn.Module:
    layers: list[nn.Module] = []
    inputs = 3
    for widths, block in zip(_WIDTHS, vgg16.blocks, strict=True):
      for outputs, ours in zip(widths, block, strict=True):
        conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        kernel = np.asarray(ours.kernel[...]).transpose(3, 2, 0, 1)
        conv.weight = nn.Parameter(torch.from_numpy(np.ascontiguousarray(kernel)))
        conv.bias = nn.Parameter(torch.from_numpy(np.array(ours.bias[...])))
        layers += [conv, nn.ReLU(inplace=True)]
        inputs = outputs
      layers.append(nn.MaxPool2d(2, 2))
    network = nn.Module()
    network.features = nn.Sequential(*layers)
    return network

  def load_state(*_: object, **__: object) -> dict[str, torch.Tensor]:
    alphas, betas = zip(*load_weights(), strict=True)
    stages = {"alpha": alphas, "beta": betas}
    return {
      name: torch.from_numpy(np.concatenate(parts).astype(np.float32))[None, :, None, None]
      for name, parts in stages.items()
    }

  torchvision, models = (types.ModuleType(name) for name in ("torchvision", "torchvision.models"))
  # Base classes of a network that is not used here.
  inception = types.SimpleNamespace(**{f"Inception{letter}": nn.Module for letter in "ABCDE"})
  vars(models).update(vgg16=build_vgg16, vgg19=build_vgg16, inception=inception)
  vars(torchvision).update(models=models)
  sys.modules |= {"torchvision": torchvision, "torchvision.models": models}
  torch.hub.load_state_dict_from_url = load_state
  return importlib.import_module("piq")


if __name__ == "__main__":
  sys.exit(main())

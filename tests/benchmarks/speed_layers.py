"""The layers of an estimate, and a kernel gradient, timed one by one in both libraries."""

import argparse
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor
from torch.nn.grad import conv2d_weight

from hvsjnd_jax.model.layers import _convolve_dilated, downsampling_conv, upsampling_conv
from tests.benchmarks import machine
from tests.benchmarks.contenders import Run, list_forms, take_turns, to_torch
from tests.benchmarks.tables import OURS, Row


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
    "transposed 128 to 128": LayerRun(
      upsampling_conv, _convolve_dilated, up, (1, 128, 192, 128), wide
    ),
    "transposed 128 to 3": LayerRun(upsampling_conv, None, up, (1, 256, 384, 128), narrow),
    "its kernel gradient, 4 crops": LayerRun(
      kernel_gradient(upsampling_conv),
      kernel_gradient(_convolve_dilated),
      their_kernel_gradient,
      (4, 64, 64, 128),
      wide,
    ),
  }


def measure_layers(args: argparse.Namespace, machine_gflops: float) -> list[Row]:
  """Times each layer."""
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
      arrays = to_torch(images, form), torch.from_numpy(kernel).permute(3, 2, 0, 1)
      arrays = arrays[0], arrays[1].to(arrays[0].device).contiguous(memory_format=form.layout)
      runs[form_name] = functools.partial(_run_torch, layer.theirs, *arrays)
    seconds, first_seconds, _ = take_turns(runs, args.runs)
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

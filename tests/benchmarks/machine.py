"""Describes the machine that benchmarks run on: devices, arithmetic and memory."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch

_MATMUL_SIDE = 2048
_MATMUL_RUNS = 10
# How the names of environment variables begin that change the speed of either library.
_TELLING = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "OMP_", "MKL_", "XLA_", "JAX_")


def torch_device() -> str:
  """Names PyTorch's device: the GPU only if JAX runs on one too."""
  both = jax.default_backend() == "gpu" and torch.cuda.is_available()
  return "cuda" if both else "cpu"


def synchronize() -> None:
  """Waits until PyTorch's work on the GPU is done."""
  if torch_device() == "cuda":
    torch.cuda.synchronize()


def set_precision(*, tf32: bool) -> None:
  """Sets how both libraries multiply on a GPU; a CPU always multiplies in float32."""
  if torch_device() == "cuda":
    jax.config.update("jax_default_matmul_precision", "tensorfloat32" if tf32 else "float32")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32


def describe(*, tf32: bool) -> list[str]:
  """Describes the device, versions, threads, and what the environment sets."""
  device = jax.devices()[0]
  name = device.device_kind if device.platform == "gpu" else _cpu_model()
  telling = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith(_TELLING)]
  cores = len(os.sched_getaffinity(0))
  return [
    f"{name}, {cores} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}",
    f"JAX {jax.__version__} on {device.platform}; PyTorch {torch.__version__} on "
    f"{torch_device()}, {torch.get_num_threads()} threads; {'TF32' if tf32 else 'float32'}",
    f"environment: {' '.join(telling) or 'none of ' + ' '.join(_TELLING)}",
  ]


def _cpu_model() -> str:
  lines = Path("/proc/cpuinfo").read_text().splitlines()
  names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
  return names[0] if names else platform.machine()


def measure_matmul() -> dict[str, float]:
  """Measures each library's GFLOP/s in a product of two 2048x2048 matrices, the best of ten."""
  matrix = np.random.default_rng(0).random((_MATMUL_SIDE,) * 2, np.float32)
  ours, theirs = jnp.asarray(matrix), torch.from_numpy(matrix).to(torch_device())
  product = jax.jit(jnp.matmul)

  def run_theirs() -> None:
    torch.matmul(theirs, theirs)
    synchronize()

  runs: dict[str, Callable[[], object]] = {
    "JAX": lambda: jax.block_until_ready(product(ours, ours)),
    "PyTorch": run_theirs,
  }
  rates = {}
  for name, run in runs.items():
    run()  # compiles, and wakes the threads
    rates[name] = 2e-9 * _MATMUL_SIDE**3 / min(timed(run) for _ in range(_MATMUL_RUNS))
  return rates


def timed(run: Callable[[], object]) -> float:
  """Times one run, in seconds."""
  start = time.perf_counter()
  run()
  return time.perf_counter() - start


def peak_mib() -> int:
  """Reads the peak memory of this process so far."""
  # The maximum of `resource.getrusage` would include what the parent process held.
  lines = Path("/proc/self/status").read_text().splitlines()
  return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) // 1024

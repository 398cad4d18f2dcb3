"""Describes the machine that benchmarks run on: devices, arithmetic and memory.

PyTorch is imported where it is used, so that what needs JAX alone runs without it.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from hvsjnd_jax.runtime.cpu import count_cores

Precision = Literal["float32", "tf32", "bfloat16"]  # what matrices are multiplied in

HAS_TORCH = importlib.util.find_spec("torch") is not None

# As JAX calls them. A TPU has no TF32, and multiplies three times in bfloat16 for it.
_JAX_PRECISIONS = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}
_PRECISION_NAMES = {"float32": "float32", "tf32": "TF32", "bfloat16": "bfloat16"}

_MATMUL_SIDE = 2048
_MATMUL_RUNS = 10
# How the names of environment variables begin that change the speed of either library.
_TELLING = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "OMP_", "MKL_", "XLA_", "JAX_")


def torch_device() -> str:
  """Names PyTorch's device: the GPU only if JAX runs on one too."""
  import torch

  both = jax.default_backend() == "gpu" and torch.cuda.is_available()
  return "cuda" if both else "cpu"


def synchronize() -> None:
  """Waits until PyTorch's work on the GPU is done."""
  import torch

  if torch_device() == "cuda":
    torch.cuda.synchronize()


@contextlib.contextmanager
def multiplying_in(precision: Precision) -> Iterator[None]:
  """Sets what both libraries multiply float32 matrices in; a CPU always takes float32.

  For bfloat16 PyTorch casts what it multiplies (autocast), on a CPU as well. JAX leaves float32
  arrays to the platform, and a GPU takes TF32: load weights in bfloat16 besides.
  """
  with contextlib.ExitStack() as stack:
    if jax.default_backend() != "cpu":
      stack.enter_context(jax.default_matmul_precision(_JAX_PRECISIONS[precision]))
    if HAS_TORCH:
      stack.enter_context(_torch_multiplying_in(precision))
    yield


@contextlib.contextmanager
def _torch_multiplying_in(precision: Precision) -> Iterator[None]:
  import torch

  before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
  torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
  torch.backends.cudnn.allow_tf32 = precision == "tf32"
  try:
    with torch.autocast(torch_device(), torch.bfloat16, enabled=precision == "bfloat16"):
      yield
  finally:
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def describe(precision: Precision | None = None) -> list[str]:
  """Describes the device, versions, threads, and what the environment sets."""
  device = jax.devices()[0]
  name = _cpu_model() if device.platform == "cpu" else device.device_kind
  telling = [f"{k}={v}" for k, v in _read_telling().items()]
  cores = count_cores()
  libraries = [f"JAX {jax.__version__} on {device.platform}", _describe_torch()]
  if precision is not None:
    libraries.append(_PRECISION_NAMES[precision])
  return [
    f"{name}, {cores} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}",
    "; ".join(libraries),
    f"environment: {' '.join(telling) or 'none of ' + ' '.join(_TELLING)}",
  ]


def _describe_torch() -> str:
  if not HAS_TORCH:
    return "no PyTorch"
  import torch

  return f"PyTorch {torch.__version__} on {torch_device()}, {torch.get_num_threads()} threads"


def share_gpu() -> None:
  """Leaves PyTorch, if it is there, its share of a GPU: JAX would reserve most of the memory."""
  if HAS_TORCH:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def identify() -> dict[str, Any]:
  """Identifies device, versions, environment and commit, for a report that is read later."""
  device = jax.devices()[0]
  packages = ("jax", "jaxlib", "flax", "numpy", "torch")
  return {
    "device": device.device_kind,
    "platform": device.platform,
    "devices": jax.device_count(),
    "host": _cpu_model(),
    "cores": count_cores(),
    "load": os.getloadavg()[0],
    "versions": {"python": platform.python_version()}
    | {name: _find_version(name) for name in packages},
    "environment": _read_telling(),
    "commit": _find_commit(),
  }


def _read_telling() -> dict[str, str]:
  return {k: v for k, v in sorted(os.environ.items()) if k.startswith(_TELLING)}


def _find_version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def _find_commit() -> str | None:
  """Names the commit, and whether files differ from it; None outside of a repository."""
  command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
  try:
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
  except FileNotFoundError:
    return None
  return done.stdout.strip() or None


def _cpu_model() -> str:
  file = Path("/proc/cpuinfo")  # of Linux
  lines = file.read_text().splitlines() if file.exists() else []
  names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
  return names[0] if names else platform.machine()


def measure_matmul(
  *, side: int = _MATMUL_SIDE, precision: Precision = "float32"
) -> dict[str, float]:
  """Measures each library's GFLOP/s in a product of two square matrices, the best of ten."""
  matrix = np.random.default_rng(0).random((side, side), np.float32)
  with multiplying_in(precision):
    runs = {"JAX": _prepare_our_matmul(matrix, precision)}
    if HAS_TORCH:
      runs["PyTorch"] = _prepare_their_matmul(matrix, precision)
    rates = {}
    for name, run in runs.items():
      run()  # compiles, and wakes the threads
      rates[name] = 2e-9 * side**3 / min(timed(run) for _ in range(_MATMUL_RUNS))
  return rates


def _prepare_our_matmul(matrix: np.ndarray, precision: Precision) -> Callable[[], object]:
  ours = jnp.asarray(matrix, jnp.bfloat16 if precision == "bfloat16" else jnp.float32)
  product = jax.jit(jnp.matmul)
  return lambda: jax.block_until_ready(product(ours, ours))


def _prepare_their_matmul(matrix: np.ndarray, precision: Precision) -> Callable[[], object]:
  import torch

  dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
  theirs = torch.from_numpy(matrix).to(torch_device(), dtype)

  def run() -> None:
    torch.matmul(theirs, theirs)
    synchronize()

  return run


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

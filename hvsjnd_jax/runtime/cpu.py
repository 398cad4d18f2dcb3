"""What lets a program that repeats itself, such as training, make full use of a CPU."""

import contextlib
import ctypes
import os

import jax

# Of glibc's malloc.h. An option takes an int.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8

_NEVER = 2**31 - 1

_PAD_BYTES = 2**28

_DEVICES_FLAG = "xla_force_host_platform_device_count"


def keep_freed_memory() -> bool:
  """Sets glibc's malloc to keep what is freed, for what is allocated next.

  On a CPU, XLA allocates the memory of a step anew in every step. By default glibc gives large
  blocks back to the system at once, which clears every page before it is used again: training
  was seen to spend more than half of its time in that. The program's memory then only grows;
  call this in a program that repeats itself.

  Returns:
    Whether it could be set; other C libraries than glibc have no such options.
  """
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError):
    return False
  options = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _PAD_BYTES}
  taken = [mallopt(option, value) for option, value in options.items()]
  return all(taken)


def use_cores_as_devices() -> None:
  """Gives JAX a device for each core of the CPU, among which a batch can be split.

  XLA gives all cores to one operation, and not every operation can use them. Devices, each with
  its own part of the batch, fill the gaps: docs/speed.md has the gain. What the user chose by
  JAX_NUM_CPU_DEVICES or XLA's flag is kept, and so are the devices of a JAX that has started.
  """
  if jax.config.values["jax_num_cpu_devices"] >= 0 or _DEVICES_FLAG in os.getenv("XLA_FLAGS", ""):
    return
  with contextlib.suppress(RuntimeError):  # JAX has started
    jax.config.update("jax_num_cpu_devices", count_cores())


def count_cores() -> int:
  """Counts the cores that this process may use; on macOS, those of the machine."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

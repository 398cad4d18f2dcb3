"""Freed memory is used again without being cleared by the system, and cores become devices."""

import os
import subprocess
import sys

import pytest

# Counts the pages that the system hands out while a step's memory is allocated ten times.
COUNT_PAGES = """
import resource, sys
import numpy as np
from hvsjnd_jax.runtime.cpu import keep_freed_memory
if sys.argv[1] == "keep":
  assert keep_freed_memory()
for i in range(11):
  if i == 1:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  np.ones(2**22)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

PAGES = 2**22 * 8 // 4096


@pytest.mark.skipif(sys.platform != "linux", reason="malloc's options are glibc's")
def test_pages_are_handed_out_once():
  counts = [
    int(subprocess.check_output([sys.executable, "-c", COUNT_PAGES, mode], text=True))
    for mode in ("keep", "default")
  ]
  assert counts[0] < PAGES
  assert counts[1] > counts[0]


# Prints how many devices there are, on eight cores.
COUNT_DEVICES = """
import sys
import jax
from hvsjnd_jax.runtime import cpu
cpu.count_cores = lambda: 8
if sys.argv[1] == "started":
  jax.devices()
cpu.use_cores_as_devices()
print(jax.device_count())
"""


def count_devices(when: str = "at first", **environment: str) -> int:
  variables = {k: v for k, v in os.environ.items() if k not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}
  command = [sys.executable, "-c", COUNT_DEVICES, when]
  return int(subprocess.check_output(command, env=variables | environment, text=True))


def test_every_core_becomes_a_device():
  assert count_devices() == 8


def test_a_user_and_a_started_jax_keep_their_devices():
  assert count_devices(JAX_NUM_CPU_DEVICES="2") == 2
  assert count_devices(XLA_FLAGS="--xla_force_host_platform_device_count=3") == 3
  assert count_devices("started") == 1

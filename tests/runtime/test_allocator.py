"""Memory that is freed is used again, without being cleared by the system."""

import subprocess
import sys

import pytest

# Counts the pages that the system hands out while a step's memory is allocated ten times.
SCRIPT = """
import resource, sys
import numpy as np
from hvsjnd_jax.runtime.allocator import keep_freed_memory
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
    int(subprocess.check_output([sys.executable, "-c", SCRIPT, mode], text=True))
    for mode in ("keep", "default")
  ]
  assert counts[0] < PAGES
  assert counts[1] > counts[0]

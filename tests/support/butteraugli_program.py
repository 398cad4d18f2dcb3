"""Butteraugli as libjxl 0.7's program measures it, where it is installed: an oracle.

Debian and Ubuntu ship it: apt install libjxl-devtools.
"""

import re
import shutil
import subprocess
from pathlib import Path

from hvsjnd_jax.data.images import write_png
from hvsjnd_jax.ops.types import Pixels

PROGRAM = shutil.which("butteraugli_main")


def run_butteraugli(distorted: Pixels, reference: Pixels, folder: Path) -> dict[str, float]:
  """Measures the distances; an `AssertionError` repeats what the program said if it failed.

  Args:
    distorted: An image, read as sRGB.
    reference: An image of the same shape.
    folder: An empty folder, for the files that the program reads.

  Returns:
    `butteraugli_3norm`, over all pixels, and `butteraugli_max`, of the worst one.
  """
  assert PROGRAM is not None, "butteraugli_main is not installed"
  files = [folder / f"{name}.png" for name in ("reference", "distorted")]
  for file, pixels in zip(files, (reference, distorted), strict=True):
    write_png(file, pixels)
  done = subprocess.run([PROGRAM, *files], capture_output=True, text=True)
  number = r"(\d+(?:\.\d+)?)"
  printed = re.fullmatch(rf"{number}\n3-norm: {number}", done.stdout.strip())
  assert printed is not None, done
  return {"butteraugli_3norm": float(printed[2]), "butteraugli_max": float(printed[1])}

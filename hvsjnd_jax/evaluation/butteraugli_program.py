"""Butteraugli, a model of what people see, measured by libjxl's program where it is installed.

Source: Alakuijala et al., arXiv 1703.10114.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from hvsjnd_jax.data.images import write_png
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.ops.types import Pixels

PROGRAM = "butteraugli_main"

ADVICE = f"{PROGRAM} is not on the PATH; Debian and Ubuntu have it: apt install libjxl-devtools"


class ButteraugliError(HVSJNDError):
  """The program failed; the message repeats what it said."""


def find_butteraugli() -> str | None:
  """Finds the program; None if it is not installed."""
  return shutil.which(PROGRAM)


def butteraugli(program: str, distorted: Pixels, reference: Pixels) -> dict[str, float]:
  """Measures Butteraugli's distances; lower is better, 0 for equal images.

  Args:
    program: What `find_butteraugli` returned.
    distorted: An image, read as sRGB.
    reference: An image of the same shape.

  Returns:
    `butteraugli_3norm`, over all pixels, and `butteraugli_max`, of the worst one.

  Raises:
    ButteraugliError: If the program cannot run, fails, or prints something else.
  """
  with tempfile.TemporaryDirectory() as folder:
    files = [Path(folder, f"{name}.png") for name in ("reference", "distorted")]
    for file, pixels in zip(files, (reference, distorted), strict=True):
      write_png(file, pixels)
    try:
      done = subprocess.run([program, *files], capture_output=True, text=True, errors="replace")
    except OSError as error:
      raise ButteraugliError(f"{PROGRAM} cannot be run: {error.strerror}") from None
  if done.returncode:
    said = (done.stderr or done.stdout).strip().rpartition("\n")[2]
    raise ButteraugliError(f"{PROGRAM} ended with {done.returncode}: {said}")
  number = r"(\d+(?:\.\d+)?)"
  printed = re.fullmatch(rf"{number}\n3-norm: {number}", done.stdout.strip())
  if printed is None:
    raise ButteraugliError(
      f"{PROGRAM}: expected a number and '3-norm: x', got {done.stdout.strip()!r}"
    )
  return {"butteraugli_3norm": float(printed[2]), "butteraugli_max": float(printed[1])}

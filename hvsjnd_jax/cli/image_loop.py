"""The loop of every command over its photographs; what fails on one image ends no run."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax

from hvsjnd_jax.cli.command import advise_packages, report_error
from hvsjnd_jax.cli.photographs import Photographs
from hvsjnd_jax.cli.prefetch import read_ahead
from hvsjnd_jax.data.images import ImageError, Picture
from hvsjnd_jax.model import windows
from hvsjnd_jax.model.jnd_model import MIN_SIDE_PX
from hvsjnd_jax.model.windows import Window
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.runtime.jobs import Job, count_waiting, run_jobs
from hvsjnd_jax.runtime.memory import MemoryLimit, find_memory_limit, measure_memory

_Result = TypeVar("_Result")

# An image and what was computed of its pixels, or the error that stood in the way.
Outcome = tuple[Picture, _Result] | HVSJNDError


class Memory(NamedTuple):
  """The memory that a command needs.

  Attributes:
    host_bytes: Of the host, for each pixel of an image.
    device_bytes: Of the device, for each pixel of an image that it computes whole. Devices that
      have no memory of their own take it from the host.
    window: The window that images are computed through; None if there is none.
  """

  host_bytes: int
  device_bytes: int = 0
  window: Window | None = None


@contextlib.contextmanager
def computing(
  command: str,
  photographs: Photographs,
  compute: Callable[[Picture], Job[_Result]],
  *,
  memory: Memory,
  smallest_px: int = MIN_SIDE_PX,
) -> Iterator[Iterator[tuple[Path, Outcome[_Result]]]]:
  """Computes a result for each photograph, and prints a line for each that fails.

  Where there are several devices or an accelerator, several images are under way at a time, so that
  their windows fill the devices' batches. Outcomes and lines keep the photographs' order.

  An image that is too small, or that takes more memory than there is, fails before it is
  decoded: the system would end the whole run, not the image, if it ran out of memory.
  What was remarkable about reading one is printed, too, and at the end what to install for the
  formats that could not be read.

  Args:
    command: The command's name, which opens the lines.
    photographs: Which ones, and how they are read; or pairs of them, pixels [2, H, W, 3].
    compute: Starts the job that computes a result from a picture. An error of ours that the job
      raises is the image's.
    memory: What that needs.
    smallest_px: The shortest side that it can use.

  Yields:
    An iterator over the paths and their outcomes.
  """
  check = partial(_check_size, plan=_plan_memory(memory), smallest_px=smallest_px)
  # Not the errors: they would keep what they were raised from, and the images with it.
  packages: set[str | None] = set()

  def read(path: Path) -> Picture:
    size = photographs.read_size(path)
    if size is not None:
      check(size)
    picture = photographs.read(path)
    check(picture.pixels.shape[-3:-1])  # a damaged header may have lied
    return picture

  def report(
    path: Path, remarks: Sequence[str], outcome: Outcome[_Result]
  ) -> tuple[Path, Outcome[_Result]]:
    for remark in remarks:
      report_error(command, path, remark)
    if isinstance(outcome, HVSJNDError):
      report_error(command, path, outcome)
      packages.add(outcome.package if isinstance(outcome, ImageError) else None)
    return path, outcome

  at_once = 1 if memory.window is None else windows.count_at_once(memory.window)
  with read_ahead(photographs.paths, read) as images:
    jobs = (_compute_one(path, picture, compute) for path, picture in images)
    yield starmap(report, run_jobs(jobs, parts_per_device=at_once))
  advise_packages(command, packages)


def _compute_one(
  path: Path, picture: Picture | ImageError, compute: Callable[[Picture], Job[_Result]]
) -> Job[tuple[Path, Sequence[str], Outcome[_Result]]]:
  """Computes an image's outcome; its remarks wait until it is reported."""
  if isinstance(picture, ImageError):
    return path, (), picture
  try:
    with _blaming_image(picture.pixels):
      result = yield from compute(picture)
  except HVSJNDError as error:
    return path, picture.remarks, error
  return path, picture.remarks, (picture, result)


class _MemoryPlan(NamedTuple):
  """What memory there is, and for what.

  Attributes:
    fixed_bytes: The memory that is taken whatever the image, also by others under way.
    bytes_per_pixel: The memory that each of its pixels takes.
    limit: The most that may be taken.
  """

  fixed_bytes: int
  bytes_per_pixel: int
  limit: MemoryLimit


def _plan_memory(memory: Memory) -> _MemoryPlan:
  fixed, bytes_per_pixel = measure_memory(), memory.host_bytes
  if jax.default_backend() == "cpu":
    bytes_per_pixel += memory.device_bytes
    fixed += math.prod(memory.window or (0,)) * windows.BYTES_PER_PIXEL
  if memory.window is not None:
    waiting = count_waiting(windows.count_at_once(memory.window))
    fixed += waiting * math.prod(memory.window) * memory.host_bytes
  return _MemoryPlan(fixed, bytes_per_pixel, find_memory_limit())


def _check_size(size: tuple[int, int], *, plan: _MemoryPlan, smallest_px: int) -> None:
  """Refuses an image that is too small, or for which there is too little memory."""
  height, width = size
  if min(size) < smallest_px:
    raise ImageError(f"{width}x{height} pixels; at least {smallest_px}x{smallest_px} are needed")
  if plan.fixed_bytes > plan.limit.size:
    raise ImageError(
      f"images of any size need about {plan.fixed_bytes / 1e9:.1f} GB of memory here, and "
      f"{plan.limit.source} {plan.limit.size / 1e9:.1f} GB; a smaller window needs less"
    )
  need = plan.fixed_bytes + height * width * plan.bytes_per_pixel
  if need > plan.limit.size:
    raise ImageError(
      f"{width}x{height} pixels need about {need / 1e9:.1f} GB of memory, and {plan.limit.source} "
      f"{plan.limit.size / 1e9:.1f} GB; reduce the image"
    )


@contextlib.contextmanager
def _blaming_image(pixels: Pixels) -> Iterator[None]:
  """Turns running out of memory, the device's or the host's, into an `ImageError`."""
  try:
    yield
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    height, width = pixels.shape[-3:-1]
    reason = str(error).partition("\n")[0]
    raise ImageError(f"{width}x{height} pixels cannot be computed here: {reason}") from None

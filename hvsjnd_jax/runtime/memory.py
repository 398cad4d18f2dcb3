"""How much memory this process has, and how much it may have."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class MemoryLimit(NamedTuple):
  """The memory that a process may use before the system ends it.

  Attributes:
    size: The limit in bytes.
    source: Who sets it, as the subject and verb of a sentence that goes on with the size.
  """

  size: int
  source: str


def find_memory_limit(root: Path = Path("/")) -> MemoryLimit:
  """Finds the lowest of the limits that hold: the machine's, the cgroups' and the process's own.

  A container is a cgroup, and the system kills a process that exceeds the limit of its cgroup,
  or of one around it, however much memory the machine has.

  Args:
    root: The folder that holds proc and sys.

  Source: https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/memory.html.
  """
  limits = [
    MemoryLimit(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "this machine has"),
    *(MemoryLimit(size, "this container allows") for size in _list_cgroup_limits(root)),
    *(MemoryLimit(size, "ulimit -v allows") for size in _list_own_limits()),
  ]
  return min(limits, key=lambda limit: limit.size)


def measure_memory() -> int:
  """Measures the memory that this process holds, in bytes."""
  try:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
  except OSError:  # macOS has no /proc; there this is the most that was held, in bytes
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return pages * os.sysconf("SC_PAGE_SIZE")


def _list_own_limits() -> Iterator[int]:
  import resource  # Windows has none

  soft, _ = resource.getrlimit(resource.RLIMIT_AS)
  if soft != resource.RLIM_INFINITY:
    yield soft


def _list_cgroup_limits(root: Path) -> Iterator[int]:
  """Yields every limit on this process's cgroups, of both versions, and on those around them."""
  if not sys.platform.startswith("linux"):
    return
  for mount, version in _find_mounts(root):
    folder = _locate_cgroup(root, mount, version)
    # In version 1, a cgroup knows the limits of those around it, even if they are not mounted.
    yield from _read_numbers(folder / "memory.stat", "hierarchical_memory_limit")
    for cgroup in (folder, *folder.parents):
      for name in ("memory.max", "memory.limit_in_bytes"):
        yield from _read_numbers(cgroup / name)
      if cgroup == mount.point:
        break


class _Mount(NamedTuple):
  """Where a hierarchy of cgroups is mounted, and which of them is at the mount's top."""

  point: Path
  top: str


def _find_mounts(root: Path) -> Iterator[tuple[_Mount, int]]:
  """Yields the mounts of cgroups that may limit memory, and their versions."""
  for line in _read_lines(root / "proc/self/mountinfo"):
    # Such as: 35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
    fields, _, described = line.partition(" - ")
    kind, _, options = described.partition(" ")
    top, point = fields.split()[3:5]
    if kind == "cgroup2":
      yield _Mount(root / point.lstrip("/"), top), 2
    elif kind == "cgroup" and "memory" in options.split()[-1].split(","):
      yield _Mount(root / point.lstrip("/"), top), 1


def _locate_cgroup(root: Path, mount: _Mount, version: int) -> Path:
  """Returns the folder of this process's cgroup, or the mount's own if it lies outside."""
  for line in _read_lines(root / "proc/self/cgroup"):
    # Such as 4:memory:/docker/1a2b in version 1, and 0::/user.slice in version 2.
    _, _, described = line.partition(":")
    controllers, _, name = described.partition(":")
    if name and ("memory" in controllers.split(",") if version == 1 else not controllers):
      inside = os.path.relpath(name, mount.top)
      # A process in a namespace of its own sees cgroups above it as "..", and cannot read them.
      return mount.point if inside.startswith("..") else mount.point / inside
  return mount.point


def _read_numbers(file: Path, name: str = "") -> Iterator[int]:
  """Yields the number in a file, or behind a name in it; none for "max"."""
  for line in _read_lines(file):
    before, _, number = line.rpartition(" ")
    if before == name and number.isdecimal():
      yield int(number)


def _read_lines(file: Path) -> list[str]:
  try:
    return file.read_text().splitlines()
  except (OSError, ValueError):
    return []

"""The memory that a process may use: the lowest limit of machine, container and shell."""

import mmap
import resource
import sys
from pathlib import Path

import pytest

from hvsjnd_jax.runtime import memory
from hvsjnd_jax.runtime.memory import find_memory_limit, measure_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cgroups are Linux's")

UNLIMITED = "9223372036854771712"  # what version 1 says


class Tree:
  """A tree of proc and sys, as the kernel would show it to a process."""

  def __init__(self, root: Path):
    self.root = root
    (root / "proc/self").mkdir(parents=True)

  def mount(self, *lines: str) -> None:
    numbered = [f"{i} 1 0:{i} {line}\n" for i, line in enumerate(lines)]
    (self.root / "proc/self/mountinfo").write_text("".join(numbered))

  def belong(self, *lines: str) -> None:
    (self.root / "proc/self/cgroup").write_text("\n".join(lines) + "\n")

  def write(self, file: str, text: str) -> None:
    path = self.root / "sys/fs/cgroup" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
  return Tree(tmp_path)


V2 = "/ /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "{} /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory"
OTHER = "/ /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct"
DISK = "/ / rw - ext4 /dev/sda1 rw"


def test_version_2(tree: Tree):
  tree.mount(DISK, V2)
  tree.belong("0::/")
  tree.write("memory.max", "600000000")
  assert find_memory_limit(tree.root) == (600000000, "this container allows")


@pytest.mark.parametrize(
  ("outer", "inner", "wanted"),
  [("500", "max", 500), ("max", "400", 400), ("500", "400", 400), ("300", "400", 300)],
)
def test_lowest_of_nested_limits_holds(tree: Tree, outer: str, inner: str, wanted: int):
  tree.mount(V2)
  tree.belong("0::/user.slice/job.scope")
  tree.write("user.slice/memory.max", outer)
  tree.write("user.slice/job.scope/memory.max", inner)
  tree.write("other.slice/memory.max", "1")
  assert find_memory_limit(tree.root).size == wanted


def test_version_1_beside_others(tree: Tree):
  tree.mount(DISK, OTHER, V1.format("/"))
  tree.belong("9:cpu,cpuacct:/elsewhere", "4:memory:/docker/1a", "0::/")
  tree.write("memory/memory.limit_in_bytes", UNLIMITED)
  tree.write("memory/docker/memory.limit_in_bytes", UNLIMITED)
  tree.write("memory/docker/1a/memory.limit_in_bytes", "700000000")
  assert find_memory_limit(tree.root).size == 700000000


def test_container_whose_own_cgroup_is_mounted(tree: Tree):
  """As Docker mounts it: outside, the path is that of the host."""
  tree.mount(V1.format("/docker/1a"))
  tree.belong("4:memory:/docker/1a/job")
  tree.write("memory/memory.limit_in_bytes", UNLIMITED)
  tree.write("memory/job/memory.limit_in_bytes", "800000000")
  assert find_memory_limit(tree.root).size == 800000000


def test_cgroup_outside_the_namespace(tree: Tree):
  tree.mount(V2)
  tree.belong("0::/../../elsewhere")
  tree.write("memory.max", "900000000")
  assert find_memory_limit(tree.root).size == 900000000


def test_limit_around_the_container_of_version_1(tree: Tree):
  """That of a Kubernetes pod, whose cgroup is not mounted."""
  tree.mount(V1.format("/pod/1a"))
  tree.belong("4:memory:/pod/1a")
  tree.write("memory/memory.limit_in_bytes", UNLIMITED)
  tree.write("memory/memory.stat", "cache 1\nhierarchical_memory_limit 650000000\ntotal_rss 5")
  assert find_memory_limit(tree.root).size == 650000000


@pytest.mark.parametrize("text", ["max", "", "a", UNLIMITED])
def test_no_limit_but_the_machine_s(tree: Tree, text: str, monkeypatch: pytest.MonkeyPatch):
  monkeypatch.setattr(memory, "_list_own_limits", lambda: [])
  tree.mount(V2)
  tree.belong("0::/", "torn")
  tree.write("memory.max", text)
  size, source = find_memory_limit(tree.root)
  assert 10**8 < size < 10**15
  assert source == "this machine has"


def test_machine_without_cgroups(tmp_path: Path):
  assert find_memory_limit(tmp_path).size > 10**8


def test_limit_of_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  monkeypatch.setattr(resource, "getrlimit", lambda _: (10**7, 10**8))
  assert find_memory_limit(tmp_path) == (10**7, "ulimit -v allows")


def test_memory_that_is_held_grows():
  before = measure_memory()
  with mmap.mmap(-1, 10**8) as held:  # what Python frees may be kept, and taken again
    for start in range(0, len(held), mmap.PAGESIZE):
      held[start] = 1
    assert 0.9e8 < measure_memory() - before < 1.5e8

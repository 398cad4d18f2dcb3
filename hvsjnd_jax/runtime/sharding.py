"""The devices of a run, of one process or many, and how arrays are placed on them.

This is data parallelism in JAX's multi-controller runtime, the successor of `jax.pmap`: every
host runs the same program, and `jax.jit` over arrays with a `NamedSharding` sees all devices as
one machine. A mesh of one axis, "data", holds every device. Parameters are replicated on each,
and a batch is sharded over them.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

PyTree = Any  # a tree of arrays

AXIS = "data"

SHARDED = PartitionSpec(AXIS)

REPLICATED = PartitionSpec()


def choose_devices(*, parts: int) -> list[jax.Device]:
  """Returns the devices of every process; of those of a CPU, as many as can share the parts evenly.

  Args:
    parts: Into how many parts a batch can be split.
  """
  devices = jax.devices()
  if devices[0].platform != "cpu" or jax.process_count() > 1:
    return devices
  return devices[: next(n for n in range(len(devices), 0, -1) if parts % n == 0)]


def make_mesh(devices: list[jax.Device]) -> Mesh:
  """Returns a mesh of the devices in one row."""
  return Mesh(np.asarray(devices), (AXIS,))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
  """Copies every leaf to every device. All processes must give the same values."""
  return jax.device_put(tree, NamedSharding(mesh, REPLICATED))


def shard_batch(batch: PyTree, mesh: Mesh) -> PyTree:
  """Places this process's part of a batch as its part of one global batch, by its first axis."""
  sharding = NamedSharding(mesh, SHARDED)
  return jax.tree.map(
    lambda part: jax.make_array_from_process_local_data(sharding, np.asarray(part)), batch
  )


def local_copy(tree: PyTree) -> PyTree:
  """Returns the copy on this process's first device, for what one process does alone."""
  return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)

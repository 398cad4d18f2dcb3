"""The devices of a run, of one process or many, and how arrays lie on them.

Data parallelism in JAX's multi-controller runtime, the successor of `jax.pmap`: every host
runs the same program; `jax.jit` over arrays with a `NamedSharding` sees all devices as one
machine. A mesh of one axis, "data", holds every device. Parameters are copied to each, a
batch is split among them.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

PyTree = Any  # of arrays

AXIS = "data"

SHARDED = PartitionSpec(AXIS)

REPLICATED = PartitionSpec()


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
  """All devices in one row; by default those of every process."""
  return Mesh(np.asarray(jax.devices() if devices is None else devices), (AXIS,))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
  """Every leaf on every device. All processes must give the same values."""
  return jax.device_put(tree, NamedSharding(mesh, REPLICATED))


def shard_batch(batch: PyTree, mesh: Mesh) -> PyTree:
  """This process's part of a batch as its part of one global batch, leading axis split."""
  sharding = NamedSharding(mesh, SHARDED)
  return jax.tree.map(
    lambda part: jax.make_array_from_process_local_data(sharding, np.asarray(part)), batch
  )


def local_copy(tree: PyTree) -> PyTree:
  """The copy of this process's first device, for what one process does alone."""
  return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)

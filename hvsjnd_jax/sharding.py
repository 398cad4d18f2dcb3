"""The devices of a run, of one process or many, and how arrays lie on them.

Data parallelism in JAX's multi-controller runtime, the successor of `jax.pmap`: every host
runs the same program; `jax.jit` over arrays with a `NamedSharding` sees all devices as one
machine. A mesh of one axis, "data", holds every device. Parameters are copied to each, a
batch is split among them.
"""

import os
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

PyTree = Any  # of arrays

AXIS = "data"
SPLIT = PartitionSpec(AXIS)
COPIED = PartitionSpec()

# For the slowest process: a week.
_PATIENCE_MS = 7 * 24 * 3600 * 1000


class JoinError(Exception):
  """JAX found no other processes; the message says why."""


def join_processes() -> None:
  """Joins the processes of all hosts, before anything asks for a device.

  JAX finds them by TPU metadata, SLURM, Open MPI or Kubernetes; elsewhere it is told by
  JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.

  Raises:
    JoinError: If there are none to join.
  """
  count, index = (os.environ.get(f"JAX_{name}") for name in ("NUM_PROCESSES", "PROCESS_ID"))
  try:
    jax.distributed.initialize(
      num_processes=int(count) if count else None, process_id=int(index) if index else None
    )
  except (RuntimeError, ValueError) as error:
    reason = str(error).strip().partition("\n")[0]
    raise JoinError(f"--multihost: JAX found no other processes to join: {reason}") from None


def meet(name: str) -> None:
  """Waits until all processes have come here, each once; one that is alone goes on.

  Not by a collective of the devices, as JAX's own `sync_global_devices`: on CPUs that gives up
  after half an hour.
  """
  if jax.process_count() > 1:
    from orbax.checkpoint import multihost  # seconds, which a single process does not need

    multihost.get_barrier_sync_fn()(key=name, timeout_ms=_PATIENCE_MS)


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
  """All devices in one row; by default those of every process."""
  return Mesh(np.asarray(jax.devices() if devices is None else devices), (AXIS,))


def copy_to_all(tree: PyTree, mesh: Mesh) -> PyTree:
  """Every leaf on every device. All processes must give the same values."""
  return jax.device_put(tree, NamedSharding(mesh, COPIED))


def split_batch(batch: PyTree, mesh: Mesh) -> PyTree:
  """This process's part of a batch as its part of one global batch, leading axis split."""
  sharding = NamedSharding(mesh, SPLIT)
  return jax.tree.map(
    lambda part: jax.make_array_from_process_local_data(sharding, np.asarray(part)), batch
  )


def own_copy(tree: PyTree) -> PyTree:
  """The copy of this process's first device, for what one process does alone."""
  return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)

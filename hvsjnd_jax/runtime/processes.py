"""The processes of a run: how they join, and where they wait for each other."""

import os

import jax

from hvsjnd_jax.ops.errors import HVSJNDError

# For the slowest process: a week.
_PATIENCE_MS = 7 * 24 * 3600 * 1000


class JoinError(HVSJNDError):
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


def barrier(name: str) -> None:
  """Waits until all processes have come here, each once; one that is alone goes on.

  Not by a collective of the devices, as JAX's own `sync_global_devices`: on CPUs that gives up
  after half an hour.
  """
  if jax.process_count() > 1:
    from orbax.checkpoint import multihost  # seconds, which a single process does not need

    multihost.get_barrier_sync_fn()(key=name, timeout_ms=_PATIENCE_MS)

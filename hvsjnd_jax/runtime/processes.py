"""The processes of a run: joining them, and waiting for each other."""

import os

import jax

from hvsjnd_jax.ops.errors import HVSJNDError

# How long to wait for the slowest process: a week.
_PATIENCE_MS = 7 * 24 * 3600 * 1000


class JoinError(HVSJNDError):
  """JAX found no other processes. The message says why."""


def join_processes() -> None:
  """Joins the processes of all hosts; call it before anything asks for a device.

  JAX finds them by TPU metadata, SLURM, Open MPI or Kubernetes; elsewhere the variables
  JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID name them.

  Raises:
    JoinError: If there are none.
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
  """Waits until every process has called this with the same name; a single process goes on.

  JAX's own `sync_global_devices` waits by a collective of the devices, which on CPUs gives up
  after half an hour; this one does not.
  """
  if jax.process_count() > 1:
    from orbax.checkpoint import multihost  # imports for seconds

    multihost.get_barrier_sync_fn()(key=name, timeout_ms=_PATIENCE_MS)

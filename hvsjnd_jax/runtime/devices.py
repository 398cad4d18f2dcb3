"""Tells why JAX found no device."""

import jax

from hvsjnd_jax.ops.errors import HVSJNDError

_PACKAGES = {
  "cuda": "jax[cuda13]",
  "gpu": "jax[cuda13]",
  "tpu": "jax[tpu]",
  "rocm": "jax[rocm]",
}


class DeviceError(HVSJNDError):
  """JAX has no device to compute on. The message says which was wanted, and what to do."""


def explain_missing_device(error: Exception) -> DeviceError | None:
  """Turns an error that JAX raised for want of a device into one that a user can mend.

  JAX looks for devices when the first array is made, wherever that is, and where there are none
  it raises a bare `AssertionError` or a `RuntimeError` of many lines.

  Args:
    error: What ended a command.

  Returns:
    The explanation; None where the error has another cause.
  """
  reason = str(error).partition("\n")[0]
  if not reason.startswith(("Unable to initialize backend", "Unknown backend")):
    try:
      jax.devices()
      return None
    except (AssertionError, RuntimeError) as again:
      reason = str(again).partition("\n")[0]
  reason = reason.partition(" (set JAX_PLATFORMS")[0] or "JAX finds no such device here"
  wanted = jax.config.values["jax_platforms"]
  if not wanted:
    return DeviceError(f"no device to compute on: {reason}")
  packages = [f"pip install '{_PACKAGES[name]}'" for name in wanted.split(",") if name in _PACKAGES]
  install = f"install JAX for it ({', '.join(packages)})" if packages else "name cpu, cuda or tpu"
  return DeviceError(
    f"JAX_PLATFORMS={wanted}: {reason}; {install}, or unset JAX_PLATFORMS to compute on what is "
    "there"
  )

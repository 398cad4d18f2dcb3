"""Convert the published PyTorch checkpoints.

  pip install '.[convert]'
  python -m convert.from_torch --hvs-sd iter_20000.pth.tar --generator Satisfy.pth.tar --out DIR

DIR is what `hvsjnd_jax.load(DIR)` and `python -m hvsjnd_jax.eval --weights DIR` take.
"""

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from convert.keymap import convert
from hvsjnd_jax.weights import WeightsError, build_model, save

# What the published code does; a ported checkpoint behaves like it.
_DEFAULTS = {"resolution": "reference", "attention": "reconstruction"}


class ConvertError(Exception):
  """A checkpoint that cannot be converted."""


def read_checkpoint(file: Path) -> dict[str, Any]:
  """Reads a state dict without running any code that the file may carry.

  Args:
    file: What `torch.save` wrote, in the zip or the older format.

  Returns:
    NumPy arrays by key; what is no tensor is passed on as it is.

  Raises:
    ConvertError: If the file cannot be read, or holds anything but a dict of plain data.
  """
  try:
    import torch
  except ModuleNotFoundError:
    raise ConvertError(
      "PyTorch is needed to read its checkpoints: pip install '.[convert]'"
    ) from None
  try:
    state = torch.load(file, map_location="cpu", weights_only=True)
  except OSError as error:
    raise ConvertError(f"{file}: {error.strerror or error}") from None
  except Exception as error:  # a damaged archive or a refused pickle: torch raises many kinds
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    raise ConvertError(f"{file}: no PyTorch checkpoint of plain weights: {reason}") from None
  if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
    raise ConvertError(f"{file}: expected a state dict, got {type(state).__name__}")
  return {key: _to_numpy(value) for key, value in state.items()}


def _to_numpy(value: Any) -> Any:
  import torch

  if isinstance(value, torch.Tensor) and value.dtype == torch.float32 and not value.is_sparse:
    return value.detach().numpy()
  return getattr(value, "dtype", value)  # named in the converter's fault


def main(argv: list[str] | None = None) -> int:
  """The command: 0 when the weights are written, 2 with the reason otherwise."""
  parser = argparse.ArgumentParser(
    prog="python -m convert.from_torch",
    description="Convert the published PyTorch checkpoints into a folder of weights.",
  )
  parser.add_argument(
    "--hvs-sd",
    type=Path,
    required=True,
    metavar="FILE",
    help="the signal-degradation network, published as iter_20000.pth.tar",
  )
  parser.add_argument(
    "--generator",
    type=Path,
    required=True,
    metavar="FILE",
    help="the JND generator, published as Satisfy.pth.tar",
  )
  parser.add_argument(
    "--out",
    type=Path,
    required=True,
    metavar="DIR",
    help="folder to write; must not exist, or be empty",
  )
  args = parser.parse_args(argv)
  arrays: dict[str, np.ndarray] = {}
  faults: list[str] = []
  sources = []
  try:
    for network, file in (("hvs_sd", args.hvs_sd), ("generator", args.generator)):
      converted, found = convert(network, read_checkpoint(file))
      arrays |= converted
      faults += [f"{file}: {fault}" for fault in found]
      digest = hashlib.sha256(file.read_bytes()).hexdigest()
      sources.append({"network": network, "file": file.name, "sha256": digest})
    if faults:
      raise ConvertError("nothing written:\n  " + "\n  ".join(faults))
    model = build_model(arrays, source="the converted checkpoints", **_DEFAULTS)
    save(args.out, model, provenance={"sources": sources})
  except (ConvertError, WeightsError) as error:
    print(f"convert: {error}", file=sys.stderr)
    return 2
  print(f"{args.out}: {sum(array.size for array in arrays.values()):,} parameters written")
  return 0


if __name__ == "__main__":
  sys.exit(main())

"""Convert the published PyTorch checkpoints.

  pip install '.[convert]'
  python -m convert.from_torch --hvs-sd iter_20000.pth.tar --generator Satisfy.pth.tar --out DIR

DIR is what `hvsjnd_jax.load(DIR)` and `python -m hvsjnd_jax.eval --weights DIR` take.
"""

import argparse
import hashlib
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np

from convert.keymap import convert
from hvsjnd_jax.weights import WeightsError, build_model, save

# What the published code does; a ported checkpoint behaves like it.
_RESOLUTION, _ATTENTION = "reference", "reconstruction"


class ConvertError(Exception):
  """A checkpoint that cannot be converted."""


def read_checkpoint(file: Path) -> tuple[dict[str, Any], str]:
  """Reads a state dict without running any code that the file may carry.

  Args:
    file: What `torch.save` wrote, in the zip or the older format.

  Returns:
    NumPy arrays by key, where a value is no float32 tensor the value itself; and the
    file's SHA-256.

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
    data = file.read_bytes()
  except OSError as error:
    raise ConvertError(f"{file}: {error.strerror}") from None
  try:
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
  except Exception:  # torch raises many kinds, and advises to load the file unsafely
    raise ConvertError(
      f"{file}: damaged, no PyTorch checkpoint, or one of more than plain tensors; "
      "refused, and none of its code was run"
    ) from None
  if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
    raise ConvertError(f"{file}: expected a dict of tensors by name, got {type(state).__name__}")

  def to_numpy(value: Any) -> Any:
    plain = isinstance(value, torch.Tensor) and value.dtype == torch.float32
    return value.detach().to_dense().numpy() if plain and value.device.type == "cpu" else value

  arrays = {key: to_numpy(value) for key, value in state.items()}
  return arrays, hashlib.sha256(data).hexdigest()


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
      state, digest = read_checkpoint(file)
      converted, found = convert(network, state)
      arrays |= converted
      faults += [f"{file}: {fault}" for fault in found]
      sources.append({"network": network, "file": file.name, "sha256": digest})
    if faults:
      raise ConvertError("nothing written:\n  " + "\n  ".join(faults))
    model = build_model(
      arrays,
      source="the converted checkpoints",
      resolution=_RESOLUTION,
      attention=_ATTENTION,
    )
    save(args.out, model, provenance={"sources": sources})
  except (ConvertError, WeightsError) as error:
    print(f"convert: {error}", file=sys.stderr)
    return 2
  print(f"{args.out}: {sum(array.size for array in arrays.values()):,} parameters written")
  return 0


if __name__ == "__main__":
  sys.exit(main())

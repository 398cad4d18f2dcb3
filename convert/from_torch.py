"""Convert PyTorch checkpoints: of the published networks, and of those that metrics need.

  pip install '.[convert]'
  python -m convert.from_torch --hvs-sd iter_20000.pth.tar --generator Satisfy.pth.tar --out DIR
  python -m convert.from_torch --vgg16 vgg16-397923af.pth --out VGG16
  python -m convert.from_torch --classifier CL_resNet34.pth --out CLASSIFIER

DIR is for `hvsjnd_jax.load(DIR)` and `python -m hvsjnd_jax.eval --model DIR`. VGG16 and
CLASSIFIER are for `hvsjnd_jax.weights.load_vgg16` and `load_classifier`: DISTS needs the first,
and training with adaptive quality assessment (AIC) both.

The exit status is 0 when the weights are written, 2 when they cannot be, and 130 when the command
was interrupted.
"""

import hashlib
import io
import sys
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convert.keymap import BACKBONES, PARAMETERS, convert
from hvsjnd_jax.cli.command import make_parser, run_command
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.weights import build_backbone, build_model, save

# A converted checkpoint behaves as it does in the published code.
_RESOLUTION, _ATTENTION = "reference", "reconstruction"

_CONTENTS = {
  "hvs_sd": "the signal-degradation network, published as iter_20000.pth.tar",
  "generator": "the JND generator, published as Satisfy.pth.tar",
  "vgg16": "ImageNet's VGG16, torchvision's vgg16-397923af.pth",
  "classifier": "the ResNet-34 of five distortions, published as CL_resNet34.pth",
}


class ConvertError(HVSJNDError):
  """A checkpoint cannot be converted."""


def read_checkpoint(file: Path) -> tuple[dict[str, Any], str]:
  """Reads a state dict without running any code that the file may carry.

  The state dict may also be an entry "state_dict", beside epochs and the like.

  Args:
    file: A file that `torch.save` wrote, in the zip format or the older one.

  Returns:
    The values by key, float32 tensors as NumPy arrays; and the file's SHA-256.

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
    if data.startswith(b"PK"):
      _check_sums(data)
    with warnings.catch_warnings(action="ignore"):  # torch remarks on tensors refused below
      state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
  except Exception:  # torch raises many kinds of errors, and advises to load the file unsafely
    raise ConvertError(
      f"{file}: damaged, no PyTorch checkpoint, or one of more than plain tensors; "
      "refused, and none of its code was run"
    ) from None
  if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
    state = state["state_dict"]
  if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
    raise ConvertError(f"{file}: expected a dict of tensors by name, got {type(state).__name__}")

  def to_numpy(key: str, value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
      return value
    try:
      return value.detach().numpy()
    except (RuntimeError, TypeError):  # a sparse tensor might fill all memory if made dense
      raise ConvertError(
        f"{file}: {key}: expected a plain tensor, all its values stored as they are"
      ) from None

  arrays = {key: to_numpy(key, value) for key, value in state.items()}
  return arrays, hashlib.sha256(data).hexdigest()


def _check_sums(data: bytes) -> None:
  """Raises if a file in the archive does not match its checksum, which torch does not verify."""
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    if (damaged := archive.testzip()) is not None:
      raise zipfile.BadZipFile(damaged)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  files, out = _parse(argv)
  return run_command("convert", lambda: _convert_files(files, out))


def _parse(argv: Sequence[str] | None) -> tuple[dict[str, Path], Path]:
  """Returns the checkpoint of each network, and the folder to write."""
  parser = make_parser("convert", __doc__, module="convert.from_torch")
  for network, content in _CONTENTS.items():
    option = f"--{network.replace('_', '-')}"
    parser.add_argument(option, type=Path, metavar="FILE", help=content)
  parser.add_argument(
    "--out",
    type=Path,
    required=True,
    metavar="DIR",
    help="folder to write; must not exist, or be empty",
  )
  args = parser.parse_args(argv)
  files = {network: file for network in _CONTENTS if (file := getattr(args, network))}
  if tuple(files) not in (tuple(PARAMETERS), *((network,) for network in BACKBONES)):
    parser.error("give --hvs-sd and --generator, or --vgg16, or --classifier")
  return files, args.out


def _convert_files(files: dict[str, Path], out: Path) -> int:
  arrays: dict[str, np.ndarray] = {}
  faults: list[str] = []
  sources = []
  for network, file in files.items():
    state, digest = read_checkpoint(file)
    converted, found = convert(network, state)
    arrays |= converted
    faults += [f"{file}: {fault}" for fault in found]
    sources.append({"network": network, "file": file.name, "sha256": digest})
  if faults:
    raise ConvertError("nothing written:\n  " + "\n  ".join(faults))
  source = "the converted checkpoints"
  if "hvs_sd" in files:
    model = build_model(arrays, source=source, resolution=_RESOLUTION, attention_layer=_ATTENTION)
  else:
    (network,) = files
    model = build_backbone(network, arrays, source=source)
  save(out, model, provenance={"sources": sources})
  print(f"{out}: {sum(array.size for array in arrays.values()):,} parameters written")
  return 0


if __name__ == "__main__":
  sys.exit(main())

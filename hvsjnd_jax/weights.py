"""Weights on disk: a folder with `weights.safetensors` and `manifest.json`.

The manifest carries the format version, the SHA-256 of the weights, parameter counts,
the defaults of `estimate`, and where the weights come from. The hash is checked on every
load: safetensors does not notice a flipped bit.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
import safetensors.numpy
from flax import nnx, traverse_util

from hvsjnd_jax.estimator import JNDModel
from hvsjnd_jax.generator import Resolution
from hvsjnd_jax.priors import AttentionLayer

FORMAT = 1
WEIGHTS_FILE = "weights.safetensors"
MANIFEST_FILE = "manifest.json"

_BUILT_IN = Path(__file__).parent / "assets"
_NETWORKS = ("hvs_sd", "generator")
_DEFAULTS = {"resolution": get_args(Resolution), "attention": get_args(AttentionLayer)}


class WeightsError(Exception):
  """Weights that cannot be used; the message names the file and what is wrong."""


def load(weights: str | os.PathLike[str] | None = None) -> JNDModel:
  """Loads both networks, ready for `estimate`.

  Args:
    weights: A folder written by the converter or by `train export`. None: the default
      weights shipped in the package.

  Returns:
    The model; its `resolution` and `attention` are the defaults that its weights were
    made for.

  Raises:
    WeightsError: If the folder is no weights folder, or is damaged: the manifest's hash,
      every name, shape and type are checked.
  """
  manifest = read_manifest(weights)
  file = _locate(weights) / WEIGHTS_FILE
  try:
    data = file.read_bytes()
  except OSError as error:
    raise WeightsError(f"{file}: {error.strerror}") from None
  if (found := hashlib.sha256(data).hexdigest()) != manifest["sha256"]:
    raise WeightsError(
      f"{file}: damaged: its SHA-256 is {found}, the manifest says {manifest['sha256']}"
    )
  try:
    arrays = safetensors.numpy.load(data)
  except Exception as error:  # the hash fits, so the writer wrote something else
    raise WeightsError(f"{file}: expected a safetensors file: {error}") from None
  return build_model(arrays, source=str(file), **manifest["defaults"])


def build_model(
  arrays: Mapping[str, np.ndarray],
  *,
  source: str,
  resolution: Resolution,
  attention: AttentionLayer,
) -> JNDModel:
  """Fills the networks with arrays by name.

  Args:
    arrays: Every parameter by its dotted path, such as "hvs_sd.encoder.conv1.kernel".
    source: Named in the error.
    resolution: Default of `estimate`.
    attention: Default of `estimate`.

  Raises:
    WeightsError: Naming every parameter that is unknown, missing, of another shape or
      type, or not finite throughout.
  """
  # An abstract template: no initialisation that is thrown away.
  abstract = nnx.eval_shape(
    lambda: JNDModel(resolution=resolution, attention=attention, rngs=nnx.Rngs(0))
  )
  graph, state = nnx.split(abstract)
  wanted = _flatten(state)
  faults = [f"unknown: {name}" for name in sorted(arrays.keys() - wanted.keys())]
  faults += [f"missing: {name}" for name in sorted(wanted.keys() - arrays.keys())]
  for name in sorted(wanted.keys() & arrays.keys()):
    got, want = arrays[name], wanted[name]
    if got.shape != want.shape or got.dtype != want.dtype:
      faults.append(f"{name}: expected {want.dtype}{want.shape}, got {got.dtype}{got.shape}")
    elif not np.isfinite(got).all():
      faults.append(f"{name}: holds values that are not finite")
  if faults:
    raise WeightsError(f"{source}: not the weights of this model\n  " + "\n  ".join(faults))
  nested = traverse_util.unflatten_dict({k: jax.numpy.asarray(v) for k, v in arrays.items()}, ".")
  nnx.replace_by_pure_dict(state, nested)
  return nnx.merge(graph, state)


def read_manifest(weights: str | os.PathLike[str] | None = None) -> dict[str, Any]:
  """Reads and checks the manifest of a weights folder; None: the shipped one.

  Raises:
    WeightsError: If there is none, it is no JSON object, or an entry is missing or wrong.
  """
  file = _locate(weights) / MANIFEST_FILE
  try:
    manifest = json.loads(file.read_bytes())
  except OSError as error:
    raise WeightsError(f"{file}: {error.strerror}; expected a folder of weights") from None
  except ValueError as error:
    raise WeightsError(f"{file}: expected JSON: {error}") from None
  if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
    found = manifest.get("format") if isinstance(manifest, dict) else None
    raise WeightsError(f"{file}: expected format {FORMAT}, got {found!r}")
  if not isinstance(manifest.get("sha256"), str):
    raise WeightsError(f"{file}: expected the hash of {WEIGHTS_FILE} under 'sha256'")
  defaults = manifest.get("defaults")
  if not isinstance(defaults, dict) or defaults.keys() != _DEFAULTS.keys():
    raise WeightsError(f"{file}: expected 'defaults' with {' and '.join(_DEFAULTS)}")
  for name, known in _DEFAULTS.items():
    if defaults[name] not in known:
      raise WeightsError(
        f"{file}: defaults.{name} must be one of {', '.join(known)}; got {defaults[name]!r}"
      )
  return manifest


def _locate(weights: str | os.PathLike[str] | None) -> Path:
  return _BUILT_IN / "default" if weights is None else Path(weights)


def save(folder: Path, model: JNDModel, *, provenance: Mapping[str, Any]) -> None:
  """Writes a weights folder: all of it or nothing.

  Args:
    folder: Must not exist yet, or be an empty folder.
    model: Its parameters, and its defaults.
    provenance: Further entries of the manifest: sources, training.

  Raises:
    WeightsError: If the folder is not empty, or cannot be written.
  """
  try:
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
      raise WeightsError(f"{folder}: exists and is not an empty folder; choose another")
    _write(folder, model, provenance)
  except OSError as error:
    raise WeightsError(f"{folder}: cannot be written: {error.strerror}") from None


def _write(folder: Path, model: JNDModel, provenance: Mapping[str, Any]) -> None:
  flat = _flatten(nnx.state(model))
  # safetensors writes a transposed view in the wrong order without a word.
  arrays = {name: np.ascontiguousarray(value) for name, value in sorted(flat.items())}
  data = safetensors.numpy.save(arrays)
  manifest = {
    **provenance,
    "format": FORMAT,
    "sha256": hashlib.sha256(data).hexdigest(),
    "parameters": {
      network: sum(a.size for name, a in arrays.items() if name.startswith(network + "."))
      for network in _NETWORKS
    },
    "defaults": {name: getattr(model, name) for name in _DEFAULTS},
  }
  folder.parent.mkdir(parents=True, exist_ok=True)
  partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
  try:
    (partial / WEIGHTS_FILE).write_bytes(data)
    (partial / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n")
    partial.chmod(0o755)  # mkdtemp's folders are private
    partial.replace(folder)
  except BaseException:
    shutil.rmtree(partial, ignore_errors=True)
    raise


def _flatten(state: nnx.State) -> dict[str, Any]:
  return traverse_util.flatten_dict(nnx.to_pure_dict(state), sep=".")

"""Loads and saves weights: folders with `weights.safetensors` and `manifest.json`.

A folder holds the JND model (the generator and, for most, HVS-SD) or one of the networks that
quality is measured with, VGG16 or the classifier. The manifest carries the format version, the
SHA-256 of the weights, the networks with their parameter counts, and where the weights come
from; that of a JND model also carries its architecture, its level, and the defaults of
`estimate`. The hash is checked on every load, as safetensors does not notice a flipped bit.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

import jax
import numpy as np
import safetensors.numpy
from flax import nnx, traverse_util
from flax.typing import Dtype

from hvsjnd_jax.data.paths import is_remote, parse_path, tell_reason
from hvsjnd_jax.metrics.backbones import VGG16, ResNet34
from hvsjnd_jax.model.jnd_map import Resolution
from hvsjnd_jax.model.jnd_model import JNDModel, check_dtype
from hvsjnd_jax.model.priors import AttentionLayer
from hvsjnd_jax.ops.errors import HVSJNDError

FORMAT = 2

WEIGHTS_FILE = "weights.safetensors"

MANIFEST_FILE = "manifest.json"

SHIPPED = ("default", "fast", "paper")

_ASSETS = Path(__file__).parent / "assets"

_JND_NETWORKS = (("hvs_sd", "generator"), ("generator",))

# The widths of a JND model's networks, as in the manifest.
_ARCHITECTURE = ("hvs_sd_channels", "generator_channels")

# A damaged width must not ask for more memory than there is.
_WIDEST = 4096


class _Default(NamedTuple):
  """A default of `estimate` in the manifest."""

  attribute: str  # of the model
  known: tuple[str, ...]


_DEFAULTS = {
  "resolution": _Default("resolution", get_args(Resolution)),
  "attention": _Default("attention_layer", get_args(AttentionLayer)),
}


class _Origin(NamedTuple):
  """Where to get the weights of a network that this package does not ship."""

  network: type[VGG16] | type[ResNet34]
  title: str
  file: str
  place: str


_ORIGINS = {
  "vgg16": _Origin(
    VGG16,
    "ImageNet's VGG16",
    "vgg16-397923af.pth",
    "from torchvision, https://download.pytorch.org/models/vgg16-397923af.pth",
  ),
  "classifier": _Origin(
    ResNet34,
    "the distortion classifier",
    "CL_resNet34.pth",
    "from the authors of the published JND code, arXiv 2208.07583",
  ),
}

_Module = TypeVar("_Module", bound=nnx.Module)

AnyModel = JNDModel | VGG16 | ResNet34

Folder = str | os.PathLike[str]


class WeightsError(HVSJNDError):
  """Weights cannot be used; the message names the file and what is wrong with it.

  Examples:
    >>> load("nowhere")
    Traceback (most recent call last):
    hvsjnd_jax.weights.WeightsError: nowhere/manifest.json: No such file or directory; ...
  """


def load(weights: Folder = "default", *, dtype: Dtype | None = None) -> JNDModel:
  """Loads a JND model, ready for `estimate`.

  Args:
    weights: A folder written by the converter or by `train export`, on a disk or in an object
      store (gs://), or the name of shipped weights: "default"; "fast", which do without HVS-SD;
      or "paper", which follow the paper exactly. Their model cards are in the package, under
      hvsjnd_jax/assets. ("./default" is a folder of that name.)
    dtype: What the layers compute in, such as bfloat16 on GPUs and TPUs; weights, images
      and maps stay float32. None means float32. docs/speed.md says what bfloat16 costs.

  Returns:
    The model; its `resolution` and `attention_layer` are the defaults that its weights were
    trained for.

  Raises:
    WeightsError: If the folder holds no weights or damaged ones: the manifest's hash and
      every name, shape and type are checked.
    PathError: If the package for gs:// is missing.
    ValueError: If `dtype` is no type of floats of 16 bits or more.

  Examples:
    >>> load("paper").resolution
    'reference'
  """
  manifest = read_manifest(weights)
  file = _locate(weights) / WEIGHTS_FILE
  arrays = _read_arrays(file, manifest)
  defaults = {_DEFAULTS[key].attribute: value for key, value in manifest["defaults"].items()}
  options = {**manifest["architecture"], **defaults, "level": manifest["level"]}
  return build_model(arrays, source=str(file), dtype=dtype, **options)


def load_vgg16(folder: Folder | None) -> VGG16:
  """Loads VGG16, for DISTS and AIC.

  Args:
    folder: A folder written by `python -m convert.from_torch --vgg16`.

  Raises:
    WeightsError: As `load`. If there is no folder, or it is None, the message says which file
      is needed, where to get it, and how to convert it.
  """
  return _load_backbone("vgg16", VGG16, folder)


def load_classifier(folder: Folder | None) -> ResNet34:
  """Loads the classifier of distortions, for AIC.

  Args:
    folder: A folder written by `python -m convert.from_torch --classifier`.

  Raises:
    WeightsError: As `load`. If there is no folder, or it is None, the message says which file
      is needed, where to get it, and how to convert it.
  """
  return _load_backbone("classifier", ResNet34, folder)


def _load_backbone(network: str, kind: type[_Module], folder: Folder | None) -> _Module:
  manifest = read_backbone_manifest(network, folder)
  file = parse_path(folder or "") / WEIGHTS_FILE
  return _fill(kind, _read_arrays(file, manifest), source=str(file), prefix=f"{network}.")


def _read_arrays(file: Path, manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
  try:
    data = file.read_bytes()
  except OSError as error:
    raise WeightsError(f"{file}: {tell_reason(error)}") from None
  if (found := hashlib.sha256(data).hexdigest()) != manifest["sha256"]:
    raise WeightsError(
      f"{file}: damaged: its SHA-256 is {found}, the manifest says {manifest['sha256']}"
    )
  try:
    return safetensors.numpy.load(data)
  except Exception as error:  # the hash is right, so this is what was written
    raise WeightsError(f"{file}: expected a safetensors file: {error}") from None


def build_model(
  arrays: Mapping[str, np.ndarray],
  *,
  source: str,
  dtype: Dtype | None = None,
  **options: Any,
) -> JNDModel:
  """Builds a JND model from arrays by name.

  Args:
    arrays: Every parameter by its dotted path, such as "hvs_sd.encoder.conv1.kernel".
    source: Where the arrays come from, for the message.
    dtype: What the layers compute in; None means float32.
    **options: Further arguments of `JNDModel`: the defaults of `estimate`, and the widths.

  Raises:
    WeightsError: If a parameter is unknown, missing, of another shape or type, or not
      finite throughout; the message names all of them.
  """

  check_dtype(dtype)  # under tracing, JAX would add to the message

  def make(*, rngs: nnx.Rngs) -> JNDModel:
    return JNDModel(dtype=dtype, rngs=rngs, **options)

  return _fill(make, arrays, source=source)


def build_backbone(
  network: str, arrays: Mapping[str, np.ndarray], *, source: str
) -> VGG16 | ResNet34:
  """Builds VGG16 or the classifier from arrays by name.

  Args:
    network: "vgg16" or "classifier".
    arrays: Every parameter by its dotted path, such as "vgg16.blocks.0.0.kernel".
    source: Where the arrays come from, for the message.

  Raises:
    WeightsError: As `build_model`.
  """
  return _fill(_ORIGINS[network].network, arrays, source=source, prefix=f"{network}.")


def _fill(
  make: Callable[..., _Module],
  arrays: Mapping[str, np.ndarray],
  *,
  source: str,
  prefix: str = "",
) -> _Module:
  # The template is abstract, as initial weights would be thrown away. Weights are float32 even
  # in a program that computes in float64.
  with jax.enable_x64(False):
    graph, state = nnx.split(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))
  if faults := _find_faults(arrays, _flatten(state, prefix)):
    raise WeightsError(f"{source}: not the weights of this model\n  " + "\n  ".join(faults))
  nested = traverse_util.unflatten_dict(
    {name.removeprefix(prefix): jax.numpy.asarray(array) for name, array in arrays.items()}, "."
  )
  nnx.replace_by_pure_dict(state, nested)
  return nnx.merge(graph, state)


def _find_faults(arrays: Mapping[str, np.ndarray], wanted: Mapping[str, Any]) -> list[str]:
  faults = [f"unknown: {name}" for name in sorted(arrays.keys() - wanted.keys())]
  faults += [f"missing: {name}" for name in sorted(wanted.keys() - arrays.keys())]
  for name in sorted(wanted.keys() & arrays.keys()):
    got, want = arrays[name], wanted[name]
    if got.shape != want.shape or got.dtype != want.dtype:
      faults.append(f"{name}: expected {want.dtype}{want.shape}, got {got.dtype}{got.shape}")
    elif not np.isfinite(got).all():
      faults.append(f"{name}: holds values that are not finite")
  return faults


def read_manifest(weights: Folder = "default") -> dict[str, Any]:
  """Reads and checks the manifest of a JND model's weights, named as for `load`.

  Raises:
    WeightsError: If there is no manifest, it is not a JSON object, or an entry is missing
      or wrong.
  """
  file = _locate(weights) / MANIFEST_FILE
  manifest = _read_manifest(file, *_JND_NETWORKS)
  defaults = manifest.get("defaults")
  if not isinstance(defaults, dict) or defaults.keys() != _DEFAULTS.keys():
    raise WeightsError(f"{file}: expected 'defaults' with {' and '.join(_DEFAULTS)}")
  for key, (_, known) in _DEFAULTS.items():
    if defaults[key] not in known:
      raise WeightsError(
        f"{file}: defaults.{key} must be one of {', '.join(known)}; got {defaults[key]!r}"
      )
  _check_architecture(manifest, file)
  return manifest


def read_backbone_manifest(network: str, folder: Folder | None) -> dict[str, Any]:
  """Reads and checks the manifest of the weights of "vgg16" or "classifier".

  Raises:
    WeightsError: As `read_manifest`. If there is no folder, the message says how to make one.
  """
  title, file, place = _ORIGINS[network][1:]
  advice = (
    f"get {file} {place}, and convert it in a clone of the repository: "
    f"python -m convert.from_torch --{network} {file} --out DIR"
  )
  if folder is None or not _is_taken(parse_path(folder)):
    absent = "no folder given" if folder is None else f"{folder}: no such folder"
    raise WeightsError(
      f"{title} is needed, and does not come with this package ({absent}): {advice}"
    )
  try:
    return _read_manifest(parse_path(folder) / MANIFEST_FILE, (network,))
  except WeightsError as error:
    raise WeightsError(f"{error}. For {title}, {advice}") from None


def _check_architecture(manifest: Mapping[str, Any], file: Path) -> None:
  widths = manifest.get("architecture")
  if not isinstance(widths, dict) or widths.keys() != set(_ARCHITECTURE):
    raise WeightsError(f"{file}: expected 'architecture' with {' and '.join(_ARCHITECTURE)}")
  present = {
    "hvs_sd_channels": "hvs_sd" in manifest["parameters"],
    "generator_channels": manifest["defaults"]["resolution"] == "fine",
  }
  for name, width in widths.items():
    holds = type(width) is int and 0 < width <= _WIDEST if present[name] else width is None
    if not holds:
      wanted = f"a whole number from 1 to {_WIDEST}" if present[name] else "null"
      raise WeightsError(f"{file}: architecture.{name} must be {wanted}; got {width!r}")
  level = manifest.get("level")
  if not (isinstance(level, float) and 0 < level <= 1):
    raise WeightsError(f"{file}: level must be above 0 and at most 1; got {level!r}")


def _read_manifest(file: Path, *choices: Sequence[str]) -> dict[str, Any]:
  try:
    manifest = json.loads(file.read_bytes())
  except OSError as error:
    raise WeightsError(f"{file}: {tell_reason(error)}; expected a folder of weights") from None
  except (ValueError, RecursionError) as error:
    raise WeightsError(f"{file}: expected JSON: {error}") from None
  if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
    found = manifest.get("format") if isinstance(manifest, dict) else None
    raise WeightsError(f"{file}: expected format {FORMAT}, got {found!r}")
  if not isinstance(manifest.get("sha256"), str):
    raise WeightsError(f"{file}: expected the hash of {WEIGHTS_FILE} under 'sha256'")
  held = manifest.get("parameters")
  if not isinstance(held, dict) or held.keys() not in [set(networks) for networks in choices]:
    found = " and ".join(held) if isinstance(held, dict) and held else "nothing"
    wanted = ", or ".join(" and ".join(networks) for networks in choices)
    raise WeightsError(f"{file}: expected the weights of {wanted}, got {found}")
  return manifest


def _locate(weights: Folder) -> Path:
  return _ASSETS / weights if weights in SHIPPED else parse_path(weights)


def _is_taken(path: Path) -> bool:
  """Whether there is anything at a path, also a link that leads nowhere."""
  return path.exists() if is_remote(path) else os.path.lexists(path)


def describe_architecture(model: JNDModel) -> dict[str, int | None]:
  """Returns the widths of a model's networks, which are arguments of `JNDModel`."""
  return {name: getattr(model, name) for name in _ARCHITECTURE}


def save(folder: Path, model: AnyModel, *, provenance: Mapping[str, Any]) -> None:
  """Writes a weights folder, either all of it or nothing.

  In an object store, what a process that is killed leaves of it has no manifest, and is refused.

  Args:
    folder: A folder that is empty or does not exist yet.
    model: The model whose parameters, and defaults if it is a JND model, are saved.
    provenance: Further entries of the manifest, such as sources and training.

  Raises:
    WeightsError: If the folder is not empty, or cannot be written.

  Examples:
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   save(Path(folder, "mine"), load("paper"), provenance={"sources": ["the paper's"]})
    ...   read_manifest(Path(folder, "mine"))["sources"]
    ["the paper's"]
  """
  try:
    folder = parse_path(folder)
    if _is_taken(folder) and (not folder.is_dir() or any(folder.iterdir())):
      raise WeightsError(f"{folder}: exists and is not an empty folder; choose another")
    _write(folder, model, provenance)
  except OSError as error:
    raise WeightsError(f"{folder}: cannot be written: {tell_reason(error)}") from None


def _write(folder: Path, model: AnyModel, provenance: Mapping[str, Any]) -> None:
  if isinstance(model, JNDModel):
    networks, prefix = _JND_NETWORKS[model.hvs_sd is None], ""
  else:
    (network,) = (name for name, origin in _ORIGINS.items() if origin.network is type(model))
    networks, prefix = (network,), f"{network}."
  flat = _flatten(nnx.state(model), prefix)
  # safetensors would write a transposed view in the wrong order without an error.
  arrays = {name: np.ascontiguousarray(value) for name, value in sorted(flat.items())}
  data = safetensors.numpy.save(arrays)
  manifest = {
    **provenance,
    "format": FORMAT,
    "sha256": hashlib.sha256(data).hexdigest(),
    "parameters": {
      network: sum(a.size for name, a in arrays.items() if name.startswith(network + "."))
      for network in networks
    },
  }
  if isinstance(model, JNDModel):
    manifest["architecture"] = describe_architecture(model)
    manifest["level"] = model.level
    manifest["defaults"] = {
      key: getattr(model, default.attribute) for key, default in _DEFAULTS.items()
    }
  _write_folder(folder, data, json.dumps(manifest, indent=2) + "\n")


def _write_folder(folder: Path, data: bytes, manifest: str) -> None:
  if is_remote(folder):  # where no folder can be renamed, and the manifest, written last, tells
    (folder / WEIGHTS_FILE).write_bytes(data)
    (folder / MANIFEST_FILE).write_text(manifest)
    return
  folder.parent.mkdir(parents=True, exist_ok=True)
  partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
  try:
    (partial / WEIGHTS_FILE).write_bytes(data)
    (partial / MANIFEST_FILE).write_text(manifest)
    partial.chmod(0o755)  # mkdtemp's folders are private
    partial.replace(folder)
  except BaseException:
    shutil.rmtree(partial, ignore_errors=True)
    raise


def _flatten(state: nnx.State, prefix: str = "") -> dict[str, Any]:
  flat = traverse_util.flatten_dict(nnx.to_pure_dict(state))
  return {prefix + ".".join(map(str, path)): array for path, array in flat.items()}

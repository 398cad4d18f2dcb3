"""The weights folder: what is checked on load, and that a save is whole or absent."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from hvsjnd_jax import weights
from hvsjnd_jax.metrics.backbones import VGG16
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.weights import MANIFEST_FILE, WEIGHTS_FILE, WeightsError


@pytest.fixture
def folder(tmp_path: Path, model: JNDModel) -> Path:
  weights.save(tmp_path / "w", model, provenance={"note": "kept"})
  return tmp_path / "w"


def _edit_manifest(folder: Path, **entries: Any) -> None:
  manifest = json.loads((folder / MANIFEST_FILE).read_text())
  (folder / MANIFEST_FILE).write_text(json.dumps(manifest | entries))


def _edit_arrays(folder: Path, edit: Callable[[dict[str, np.ndarray]], object]) -> None:
  """Changes the arrays, and makes the manifest's hash fit again."""
  arrays = safetensors.numpy.load_file(folder / WEIGHTS_FILE)
  edit(arrays)
  data = safetensors.numpy.save(arrays)
  (folder / WEIGHTS_FILE).write_bytes(data)
  _edit_manifest(folder, sha256=hashlib.sha256(data).hexdigest())


def test_load_gives_what_was_saved(folder: Path, model: JNDModel):
  loaded = weights.load(folder)
  assert (loaded.resolution, loaded.attention_layer) == (model.resolution, model.attention_layer)
  jax.tree.map(np.testing.assert_array_equal, nnx.state(loaded), nnx.state(model))
  assert weights.load(str(folder)).resolution == model.resolution


@pytest.mark.parametrize(
  "dtype", ["int8", bool, np.complex64, "float8_e4m3fn", "float64", "half-baked", 3]
)
def test_type_that_layers_cannot_compute_in_is_named(folder: Path, dtype: Any):
  with pytest.raises(
    ValueError, match=r"^dtype must be one of float32, bfloat16, float16 or None; got '[^\n]*'$"
  ):
    weights.load(folder, dtype=dtype)


@pytest.mark.usefixtures("x64")
def test_weights_stay_float32_in_a_float64_program(folder: Path):
  assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(weights.load(folder)))} == {
    np.dtype("float32")
  }


def test_saved_arrays_keep_their_order(folder: Path, model: JNDModel):
  """Safetensors would write a transposed view in the wrong order without a word."""
  changed: Any = nnx.clone(model)
  kernel = np.asarray(changed.generator.conv1.kernel[...])
  asymmetric = np.arange(kernel.size, dtype=np.float32).reshape(kernel.shape[::-1]).T
  assert not asymmetric.flags.c_contiguous
  changed.generator.conv1.kernel = nnx.Param(asymmetric)
  weights.save(folder.with_name("asymmetric"), changed, provenance={})
  loaded: Any = weights.load(folder.with_name("asymmetric"))
  np.testing.assert_array_equal(loaded.generator.conv1.kernel[...], asymmetric)


def test_manifest_says_what_the_folder_holds(folder: Path):
  manifest = weights.read_manifest(folder)
  assert manifest == {
    "format": 2,
    "sha256": hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest(),
    "parameters": {"hvs_sd": 1_725_571, "generator": 86_051},
    "architecture": {"hvs_sd_channels": 128, "generator_channels": None},
    "level": 1.0,
    "defaults": {"resolution": "reference", "attention": "reconstruction"},
    "note": "kept",
  }


DEFAULTS = {"resolution": "native", "attention": "feature"}

DAMAGED = {
  "no folder": (lambda f: f.rename(f.with_name("v")), "manifest.json: No such file"),
  "no manifest": (lambda f: (f / MANIFEST_FILE).unlink(), "manifest.json: No such file"),
  "folder as manifest": (
    lambda f: ((f / MANIFEST_FILE).unlink(), (f / MANIFEST_FILE).mkdir()),
    "manifest.json: Is a directory",
  ),
  "empty manifest": (lambda f: (f / MANIFEST_FILE).write_text(""), "expected JSON"),
  "broken manifest": (lambda f: (f / MANIFEST_FILE).write_text('{"format": 1,'), "expected JSON"),
  "binary manifest": (lambda f: (f / MANIFEST_FILE).write_bytes(b"\xff\xfe"), "expected JSON"),
  "deep manifest": (lambda f: (f / MANIFEST_FILE).write_text("[" * 10**5), "expected JSON"),
  "list as manifest": (lambda f: (f / MANIFEST_FILE).write_text("[1]"), "expected format 2"),
  "future format": (lambda f: _edit_manifest(f, format=3), "expected format 2, got 3"),
  "no format": (lambda f: _edit_manifest(f, format=None), "expected format 2, got None"),
  "no architecture": (lambda f: _edit_manifest(f, architecture=None), "expected 'architecture'"),
  "half an architecture": (
    lambda f: _edit_manifest(f, architecture={"hvs_sd_channels": 8}),
    "expected 'architecture' with hvs_sd_channels and generator_channels",
  ),
  "huge architecture": (
    lambda f: _edit_manifest(
      f, architecture={"hvs_sd_channels": 10**9, "generator_channels": None}
    ),
    "architecture.hvs_sd_channels must be a whole number from 1 to 4096; got 1000000000",
  ),
  "width of the published generator": (
    lambda f: _edit_manifest(f, architecture={"hvs_sd_channels": 128, "generator_channels": 32}),
    "architecture.generator_channels must be null; got 32",
  ),
  "no level": (lambda f: _edit_manifest(f, level=None), "level must be above 0 and at most 1"),
  # Maps of such a level could leave [0, 1].
  "a level above 1": (lambda f: _edit_manifest(f, level=1.5), "at most 1; got 1.5"),
  "no hash": (lambda f: _edit_manifest(f, sha256=None), "expected the hash"),
  "no parameters": (
    lambda f: _edit_manifest(f, parameters=None),
    "expected the weights of hvs_sd and generator, or generator, got nothing",
  ),
  "no defaults": (lambda f: _edit_manifest(f, defaults=None), "expected 'defaults' with res"),
  "half the defaults": (
    lambda f: _edit_manifest(f, defaults={"resolution": "native"}),
    "expected 'defaults' with resolution and attention",
  ),
  "odd default": (
    lambda f: _edit_manifest(f, defaults=DEFAULTS | {"resolution": "8k"}),
    "defaults.resolution must be one of reference, native, fine; got '8k'",
  ),
  "odd type of default": (
    lambda f: _edit_manifest(f, defaults=DEFAULTS | {"attention": []}),
    "defaults.attention must be one of",
  ),
  "no weights": (lambda f: (f / WEIGHTS_FILE).unlink(), "safetensors: No such file"),
  "empty weights": (lambda f: (f / WEIGHTS_FILE).write_bytes(b""), "safetensors: damaged"),
  "truncated weights": (
    lambda f: (f / WEIGHTS_FILE).write_bytes((f / WEIGHTS_FILE).read_bytes()[:-1]),
    "safetensors: damaged: its SHA-256 is [0-9a-f]{64}, the manifest says",
  ),
  "wrong hash": (lambda f: _edit_manifest(f, sha256="0" * 64), "the manifest says 0{64}"),
  "hash of something else": (
    lambda f: (
      (f / WEIGHTS_FILE).write_bytes(b"other"),
      _edit_manifest(f, sha256=hashlib.sha256(b"other").hexdigest()),
    ),
    "expected a safetensors file",
  ),
  "extra array": (
    lambda f: _edit_arrays(f, lambda a: a.update({"generator.conv7.bias": np.zeros(3)})),
    "unknown: generator.conv7.bias",
  ),
  "missing array": (
    lambda f: _edit_arrays(f, lambda a: a.pop("generator.conv6.bias")),
    "missing: generator.conv6.bias",
  ),
  "odd shape": (
    lambda f: _edit_arrays(
      f, lambda a: a.update({"generator.conv6.bias": np.zeros(4, np.float32)})
    ),
    r"generator.conv6.bias: expected float32\(3,\), got float32\(4,\)",
  ),
  "odd type": (
    lambda f: _edit_arrays(f, lambda a: a.update({"generator.conv6.bias": np.zeros(3)})),
    r"generator.conv6.bias: expected float32\(3,\), got float64\(3,\)",
  ),
  "not finite": (
    lambda f: _edit_arrays(
      f, lambda a: a.update({"generator.conv6.bias": np.full(3, np.nan, np.float32)})
    ),
    "generator.conv6.bias: holds values that are not finite",
  ),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_folder_is_refused(folder: Path, damage: Callable[[Path], object], reason: str):
  damage(folder)
  with pytest.raises(WeightsError, match=reason) as caught:
    weights.load(folder)
  assert str(folder) in str(caught.value)


@pytest.mark.parametrize("place", [0, 9, 0.5, -1], ids=["length", "header", "middle", "last"])
def test_one_flipped_bit_is_noticed(folder: Path, place: float):
  file = folder / WEIGHTS_FILE
  data = bytearray(file.read_bytes())
  data[int(place * len(data)) if place == 0.5 else int(place)] ^= 1
  file.write_bytes(data)
  with pytest.raises(WeightsError, match="damaged"):
    weights.load(folder)


def test_every_fault_is_named(folder: Path):
  def damage(arrays: dict[str, np.ndarray]) -> None:
    del arrays["generator.conv1.bias"], arrays["hvs_sd.decoder.igdn1.beta"]
    arrays["more"] = arrays["and more"] = np.zeros(1, np.float32)

  _edit_arrays(folder, damage)
  with pytest.raises(WeightsError) as caught:
    weights.load(folder)
  assert str(caught.value).split("\n  ")[1:] == [
    "unknown: and more",
    "unknown: more",
    "missing: generator.conv1.bias",
    "missing: hvs_sd.decoder.igdn1.beta",
  ]


def test_a_file_is_no_weights_folder(tmp_path: Path):
  (tmp_path / "w").touch()
  with pytest.raises(WeightsError, match="Not a directory; expected a folder of weights"):
    weights.load(tmp_path / "w")


OCCUPIED = {
  "file": lambda path: path.touch(),
  "full folder": lambda path: (path.mkdir(), (path / "keep").touch()),
  "dangling link": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("occupy", OCCUPIED.values(), ids=OCCUPIED)
def test_save_overwrites_nothing(tmp_path: Path, model: JNDModel, occupy: Callable[[Path], object]):
  occupy(tmp_path / "w")
  before = sorted(tmp_path.rglob("*"))
  with pytest.raises(WeightsError, match="w: exists and is not an empty folder; choose another"):
    weights.save(tmp_path / "w", model, provenance={})
  assert sorted(tmp_path.rglob("*")) == before


def test_save_fills_an_empty_folder_and_makes_parents(tmp_path: Path, model: JNDModel):
  (tmp_path / "w").mkdir()
  for folder in (tmp_path / "w", tmp_path / "a/b/w"):
    weights.save(folder, model, provenance={})
    assert {file.name for file in folder.iterdir()} == {WEIGHTS_FILE, MANIFEST_FILE}
    assert folder.stat().st_mode & 0o777 == 0o755
  assert {path.name for path in tmp_path.iterdir()} == {"w", "a"}


@pytest.mark.parametrize("method", ["write_bytes", "write_text", "replace"])
def test_failed_save_leaves_nothing(
  tmp_path: Path, model: JNDModel, monkeypatch: pytest.MonkeyPatch, method: str
):
  def fail(*args: object) -> None:
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(Path, method, fail)
  with pytest.raises(WeightsError, match="w: cannot be written: No space left on device"):
    weights.save(tmp_path / "w", model, provenance={})
  assert not list(tmp_path.iterdir())


def test_save_below_a_file(tmp_path: Path, model: JNDModel):
  (tmp_path / "file").touch()
  with pytest.raises(WeightsError, match="w: cannot be written: "):
    weights.save(tmp_path / "file" / "w", model, provenance={})


BACKBONES = {
  "vgg16": (weights.load_vgg16, "vgg16-397923af.pth", "from torchvision, https://"),
  "classifier": (weights.load_classifier, "CL_resNet34.pth", "from the authors"),
}


@pytest.mark.parametrize("network", BACKBONES)
@pytest.mark.parametrize("given", [True, False], ids=["missing folder", "no folder"])
def test_absent_backbone_says_where_it_comes_from(tmp_path: Path, network: str, given: bool):
  load, file, place = BACKBONES[network]
  folder = tmp_path / "w" if given else None
  with pytest.raises(WeightsError) as caught:
    load(folder)
  message = str(caught.value)
  assert (f"{folder}: no such folder" if given else "no folder given") in message
  assert f"get {file} {place}" in message
  command = f"python -m convert.from_torch --{network} {file} --out DIR"
  assert message.endswith(f"convert it in a clone of the repository: {command}")


def test_weights_of_another_network_are_refused(folder: Path, tmp_path: Path, vgg16: VGG16):
  weights.save(tmp_path / "vgg16", vgg16, provenance={})
  with pytest.raises(WeightsError, match="expected the weights of vgg16, got hvs_sd and generator"):
    weights.load_vgg16(folder)
  with pytest.raises(WeightsError, match="expected the weights of classifier, got vgg16"):
    weights.load_classifier(tmp_path / "vgg16")
  with pytest.raises(WeightsError, match="of hvs_sd and generator, or generator, got vgg16"):
    weights.load(tmp_path / "vgg16")


def test_damaged_backbone_is_refused(tmp_path: Path, vgg16: VGG16):
  weights.save(tmp_path / "w", vgg16, provenance={})
  _edit_arrays(tmp_path / "w", lambda a: a.pop("vgg16.blocks.4.2.bias"))
  with pytest.raises(WeightsError, match=r"missing: vgg16\.blocks\.4\.2\.bias"):
    weights.load_vgg16(tmp_path / "w")
  (tmp_path / "w" / WEIGHTS_FILE).write_bytes(b"")
  with pytest.raises(WeightsError, match="damaged"):
    weights.load_vgg16(tmp_path / "w")

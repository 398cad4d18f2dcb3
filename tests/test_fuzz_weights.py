"""Damaged weights by the hundred: refused in words, or unharmed."""

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from hvsjnd_jax import weights
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.weights import MANIFEST_FILE, WEIGHTS_FILE, WeightsError
from tests.support.damage import DAMAGES, flip_bits


class Files(NamedTuple):
  """What a folder of weights holds."""

  weights: bytes
  manifest: bytes

  def write(self, folder: Path) -> None:
    (folder / WEIGHTS_FILE).write_bytes(self.weights)
    (folder / MANIFEST_FILE).write_bytes(self.manifest)

  def forge(self, data: bytes) -> Self:
    """Other weights, and a manifest whose hash fits them."""
    manifest = json.loads(self.manifest) | {"sha256": hashlib.sha256(data).hexdigest()}
    return self._replace(weights=data, manifest=json.dumps(manifest).encode())


def _damage_weights(files: Files, rng: np.random.Generator) -> Files:
  return files._replace(weights=DAMAGES[rng.integers(len(DAMAGES))](files.weights, rng))


def _damage_manifest(files: Files, rng: np.random.Generator) -> Files:
  return files._replace(manifest=DAMAGES[rng.integers(len(DAMAGES))](files.manifest, rng))


ODD: tuple[Any, ...] = (
  *(None, True, 0, -1, 2, 10**400, 1e308, float("nan"), float("inf")),
  *("", "../../../etc/passwd", "/dev/zero", "\0", "\ud800", "x" * 10**5),
  *([], {}, [[[]]], {"native": "native"}, ["reference"]),
)


def _edit_manifest(files: Files, rng: np.random.Generator) -> Files:
  """Another value of an entry, no value, or another entry."""
  manifest = json.loads(files.manifest)
  sections = [manifest, *(entry for entry in manifest.values() if isinstance(entry, dict))]
  section = sections[rng.integers(len(sections))]
  key = list(section)[rng.integers(len(section))]
  value = ODD[rng.integers(len(ODD))]
  match rng.integers(4):
    case 0:
      del section[key]
    case 1:
      section[f"{key}s"] = section.pop(key)
    case _:
      section[key] = value
  return files._replace(manifest=json.dumps(manifest).encode())


def _damage_header(files: Files, rng: np.random.Generator) -> Files:
  """Flipped bits where the arrays are described, under a hash that fits."""
  end = 8 + int.from_bytes(files.weights[:8], "little")
  return files.forge(flip_bits(files.weights[:end], rng) + files.weights[end:])


def _edit_header(files: Files, rng: np.random.Generator) -> Files:
  """An array described as it is not, under a hash that fits."""
  end = 8 + int.from_bytes(files.weights[:8], "little")
  header = json.loads(files.weights[8:end])
  name = list(header)[rng.integers(len(header))]
  entry = header[name]
  begin, stop = entry["data_offsets"]
  edits: tuple[dict[str, Any], ...] = (
    {"dtype": "I32"},
    {"dtype": "BF16"},
    {"dtype": "float"},
    {"shape": [*entry["shape"], 2]},
    {"shape": []},
    {"shape": [2**63, 2]},
    {"shape": [-1]},
    {"data_offsets": [begin + 4, stop + 4]},
    {"data_offsets": [0, 2**63]},
    {"data_offsets": [stop, begin]},
  )
  entry |= edits[rng.integers(len(edits))]
  text = json.dumps(header).encode()
  return files.forge(struct.pack("<Q", len(text)) + text + files.weights[end:])


def _edit_arrays(files: Files, rng: np.random.Generator) -> Files:
  """Other arrays, under a hash that fits."""
  arrays = safetensors.numpy.load(files.weights)
  name = list(arrays)[rng.integers(len(arrays))]
  array = arrays.pop(name).copy()
  match rng.integers(6):
    case 0:
      array.flat[rng.integers(array.size)] = rng.choice([np.nan, np.inf, -np.inf])
      arrays[name] = array
    case 1:
      arrays[name] = array[:-1]
    case 2:
      arrays[name] = array[None]
    case 3:
      arrays[name] = array.astype(rng.choice(["float64", "float16", "int32", "bool"]))
    case 4:
      arrays[f"{name}."] = array
    case _:
      pass  # missing
  return files.forge(safetensors.numpy.save(arrays))


def _respell(files: Files, rng: np.random.Generator) -> Files:
  """The same manifest, and an entry of no meaning."""
  manifest = {"note": rng.random()} | json.loads(files.manifest)
  return files._replace(manifest=json.dumps(manifest).encode("utf-16"))


MUTATIONS: tuple[Callable[[Files, np.random.Generator], Files], ...] = (
  _damage_weights,
  _damage_manifest,
  _edit_manifest,
  _damage_header,
  _edit_header,
  _edit_arrays,
  _respell,
)


def _load(folder: Path) -> JNDModel | str:
  """The model, or why there is none."""
  try:
    return weights.load(folder)
  except WeightsError as error:
    return str(error)


@pytest.mark.parametrize("count", [150, pytest.param(500, marks=pytest.mark.slow)])
def test_damaged_weights_are_refused(tmp_path: Path, model: JNDModel, count: int):
  folder = tmp_path / "w"
  weights.save(folder, model, provenance={"note": "of no meaning"})
  files = Files(*((folder / name).read_bytes() for name in (WEIGHTS_FILE, MANIFEST_FILE)))
  refused = 0
  for index in range(count):
    mutate = MUTATIONS[index % len(MUTATIONS)]
    mutate(files, np.random.default_rng(index)).write(folder)
    loaded = _load(folder)
    if isinstance(loaded, str):
      assert loaded.startswith(f"{folder}/")
      refused += 1
    else:  # what was changed has no meaning
      jax.tree.map(np.testing.assert_array_equal, nnx.state(loaded), nnx.state(model))
      assert (loaded.resolution, loaded.attention_layer) == (
        model.resolution,
        model.attention_layer,
      )
  assert 0.7 * count < refused < count

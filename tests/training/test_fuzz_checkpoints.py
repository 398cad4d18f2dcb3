"""Hostile and damaged checkpoints by the hundred: no code runs, and nothing half is written."""

import io
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from convert.from_torch import main
from convert.keymap import PARAMETERS
from hvsjnd_jax import weights
from hvsjnd_jax.model.jnd_model import JNDModel
from tests.support.damage import DAMAGES
from tests.support.golden_weights import draw_state

torch = pytest.importorskip("torch")


class Hostile:
  """Unpickled, it calls a function."""

  def __init__(self, function: Callable[..., object], *arguments: object):
    self.call = function, arguments

  def __reduce__(self) -> tuple:
    return self.call


def _draw_traps(canary: Path) -> list[Hostile]:
  """Each writes the canary, where code runs."""
  touch, code = f"touch {canary}", f"__import__('os').mknod({str(canary)!r})"
  return [
    Hostile(os.system, touch),
    Hostile(eval, code),
    Hostile(exec, code),
    Hostile(subprocess.call, ["touch", str(canary)]),
    Hostile(Path.touch, canary),
    Hostile(pickle.loads, pickle.dumps(Hostile(os.system, touch))),
  ]


def _place_trap(trap: Hostile, state: dict[str, Any], rng: np.random.Generator) -> bytes:
  """A checkpoint with a trap somewhere in it."""
  checkpoints: tuple[Any, ...] = (
    trap,
    [trap],
    {**state, "epoch": trap},
    {**state, "conv1.bias": trap},
    {"state_dict": state, "optimizer": trap},
    {"state_dict": {**state, "hook": [trap]}},
  )
  checkpoint = checkpoints[rng.integers(len(checkpoints))]
  return _save(checkpoint, zipped=bool(rng.integers(2)))


def _save(checkpoint: Any, *, zipped: bool) -> bytes:
  file = io.BytesIO()
  torch.save(checkpoint, file, _use_new_zipfile_serialization=zipped)
  return file.getvalue()


def _draw_state(network: str) -> dict[str, Any]:
  shapes = {key: shape for key, (_, shape) in PARAMETERS[network].items()}
  return {key: torch.from_numpy(array) for key, array in draw_state(0, shapes).items()}


def test_traps_are_armed(tmp_path: Path):
  canary = tmp_path / "canary"
  for trap in _draw_traps(canary):
    pickle.loads(pickle.dumps(trap))
    canary.unlink()


@pytest.mark.parametrize("count", [150, pytest.param(500, marks=pytest.mark.slow)])
def test_hostile_checkpoints_run_no_code_and_damaged_ones_do_no_harm(
  tmp_path: Path, model: JNDModel, capsys: pytest.CaptureFixture[str], count: int
):
  hvs_sd, generator, out = (tmp_path / name for name in ("hvs_sd.pth", "generator.pth", "out"))
  command = ["--hvs-sd", str(hvs_sd), "--generator", str(generator), "--out", str(out)]
  hvs_sd.write_bytes(_save(_draw_state("hvs_sd"), zipped=True))
  state = _draw_state("generator")
  zipped, legacy = (_save(state, zipped=zipped) for zipped in (True, False))
  canary = tmp_path / "canary"
  traps = _draw_traps(canary)
  refused = 0
  for index in range(count):
    rng = np.random.default_rng(index)
    damage = DAMAGES[rng.integers(len(DAMAGES))]
    kind = ("trap", "zipped", "legacy")[index % 3]
    if kind == "trap":
      data = _place_trap(traps[rng.integers(len(traps))], state, rng)
    else:
      data = damage(zipped if kind == "zipped" else legacy, rng)
    generator.write_bytes(data)
    status = main(command)
    stderr = capsys.readouterr().err
    assert not canary.exists()
    if status == 2:
      assert stderr.startswith("convert: ")
      assert "Traceback" not in stderr
      refused += 1
    else:
      assert (status, stderr) == (0, "")
      assert kind != "trap"
      if kind == "zipped":  # the older format has no checksums: a value may be another
        loaded = weights.load(out)
        jax.tree.map(np.testing.assert_array_equal, nnx.state(loaded), nnx.state(model))
      shutil.rmtree(out)
    assert {file.name for file in tmp_path.iterdir()} == {hvs_sd.name, generator.name}
  assert refused > 0.7 * count

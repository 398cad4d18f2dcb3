"""What a working folder holds, and what is exported from it."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from hvsjnd_jax import weights
from hvsjnd_jax.train import main
from hvsjnd_jax.training.loop import train
from hvsjnd_jax.training.workdir import export
from tests.training.runs import STEPS, MakeConfig, Reports, paper_config, read_weights


def test_settings_of_a_stage_are_written_without_the_other_s(workdir: Path):
  shared = {"seed", "compute_dtype", "log_every_steps", "sheet_every_steps", "data"}
  shared |= {"checkpoint_every_steps", "keep_checkpoints", "keep_every_steps"}
  for stage in ("hvs_sd", "jnd"):
    settings = json.loads((workdir / stage / "config.json").read_text())
    assert settings.keys() == shared | {stage}
    assert settings[stage]["num_steps"] == STEPS


def test_export_pairs_the_generator_with_the_hvs_sd_it_saw(
  workdir: Path, make_config: MakeConfig, tmp_path: Path
):
  shutil.copytree(workdir, tmp_path / "run")
  config = make_config("hvs_sd")
  config.hvs_sd.num_steps = STEPS + 1
  train(config, tmp_path / "run", report=Reports())
  for folder, out in ((workdir, "before"), (tmp_path / "run", "after")):
    export(folder, tmp_path / out)
  before, after = (weights.read_manifest(tmp_path / out) for out in ("before", "after"))
  assert before == after
  assert before["training"]["hvs_sd"]["steps"] == STEPS


def test_export_carries_weights_and_defaults(
  workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  assert main(["export", f"--workdir={workdir}", f"--out={tmp_path}/w"]) == 0
  assert capsys.readouterr() == (f"{tmp_path}/w: weights written\n", "")
  loaded = weights.load(tmp_path / "w")
  assert (loaded.resolution, loaded.attention_layer) == ("native", "reconstruction")
  manifest = json.loads((tmp_path / "w/manifest.json").read_text())
  assert manifest["parameters"] == {"hvs_sd": 8_011, "generator": 86_051}
  assert manifest["training"]["jnd"]["steps"] == STEPS
  trained = read_weights(workdir, "jnd")
  for path, leaf in jax.tree_util.tree_flatten_with_path(nnx.state(loaded))[0]:
    name = jax.tree_util.keystr(path)
    np.testing.assert_array_equal(leaf, trained[name], err_msg=name)

  assert main(["export", f"--workdir={workdir}", f"--out={tmp_path}/w"]) == 2
  assert "not an empty folder" in capsys.readouterr().err


def test_generator_without_hvs_sd_is_trained_and_exported(make_config: MakeConfig, tmp_path: Path):
  config = make_config("jnd")
  config.jnd = paper_config(
    **{"priors": False, "resolution": "fine", "generator_channels": 8, "crop_px": 168},
    **{"quality_weight": 0.0, "attention_weight": 0.0, "departure_weight": 1.0},
    **{"num_steps": STEPS, "batch_size": 1, "warmup_steps": 1},
  )
  train(config, tmp_path / "run", report=Reports())
  export(tmp_path / "run", tmp_path / "w", level=0.25)
  model = weights.load(tmp_path / "w")
  assert (model.hvs_sd, model.resolution, model.level) == (None, "fine", 0.25)
  manifest = weights.read_manifest(tmp_path / "w")
  assert manifest["parameters"].keys() == {"generator"}
  assert manifest["training"].keys() == {"jnd"}

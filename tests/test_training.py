"""Both stages of training in small, stopped and resumed, and the command around them."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from hvsjnd_jax import weights
from hvsjnd_jax.config import Stage, TrainConfig
from hvsjnd_jax.data import DataError
from hvsjnd_jax.estimator import JNDModel
from hvsjnd_jax.train import main
from hvsjnd_jax.training import (
  TrainError,
  TrainState,
  export,
  make_optimizer,
  make_step,
  restore_weights,
  train,
)

ROOT = Path(__file__).parents[1]
STEPS = 4


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
  folder = tmp_path_factory.mktemp("photos")
  rng = np.random.default_rng(0)
  for i in range(3):
    coarse = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((200, 190), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
  return folder


@pytest.fixture(scope="module")
def make_config(photos: Path) -> Callable[[Stage], TrainConfig]:
  def make(stage: Stage) -> TrainConfig:
    config = TrainConfig(
      stage=stage, batch_size=1, num_steps=STEPS, log_every_steps=1, checkpoint_every_steps=2
    )
    config.data.images = str(photos)
    config.data.crop_px = 16 if stage == "hvs_sd" else 168
    config.optimizer.warmup_steps = 1
    return config

  return make


def ignore(step: int, figures: dict[str, float]) -> None:
  del step, figures


@pytest.fixture(scope="module")
def workdir(
  tmp_path_factory: pytest.TempPathFactory, make_config: Callable[[Stage], TrainConfig]
) -> Path:
  """Both stages, trained for a few steps without a stop."""
  folder = tmp_path_factory.mktemp("run")
  train(make_config("hvs_sd"), folder, report=ignore)
  train(make_config("jnd"), folder, report=ignore)
  return folder


def read_weights(workdir: Path, stage: Stage) -> dict[str, np.ndarray]:
  model = JNDModel(rngs=nnx.Rngs(0))
  assert restore_weights(model, workdir, stage) == STEPS
  leaves, _ = jax.tree_util.tree_flatten_with_path(nnx.state(model))
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@pytest.mark.parametrize(
  ("stage", "stopped_at"), [("hvs_sd", 1), ("hvs_sd", 3), ("jnd", 3)], ids=lambda value: value
)
def test_stopped_run_ends_as_the_straight_one(
  workdir: Path,
  make_config: Callable[[Stage], TrainConfig],
  tmp_path: Path,
  stage: Stage,
  stopped_at: int,
):
  class StopError(Exception):
    pass

  def stop(step: int, figures: dict[str, float]) -> None:
    if step == stopped_at:
      raise StopError

  if stage == "jnd":
    shutil.copytree(workdir / "hvs_sd", tmp_path / "hvs_sd")
  with pytest.raises(StopError):
    train(make_config(stage), tmp_path, report=stop)
  reported = []
  train(make_config(stage), tmp_path, report=lambda step, _: reported.append(step))
  assert reported[0] == (3 if stopped_at == 3 else 1)  # saved at step 2
  want = read_weights(workdir, stage)
  for name, leaf in read_weights(tmp_path, stage).items():
    np.testing.assert_array_equal(leaf, want[name], err_msg=name)


def test_finished_run_has_nothing_left_to_do(
  workdir: Path, make_config: Callable[[Stage], TrainConfig]
):
  reported = []
  train(make_config("hvs_sd"), workdir, report=lambda step, _: reported.append(step))
  assert not reported


def test_metrics_are_logged_by_name(workdir: Path):
  rows = [json.loads(line) for line in (workdir / "jnd/metrics.jsonl").read_text().splitlines()]
  assert [row["step"] for row in rows] == [1, 2, 3, 4]
  terms = {"magnitude", "quality", "attention", "visibility"}
  assert rows[0].keys() == {"step", "loss", "gradient_norm", "images_per_second"} | terms


def test_stage_two_leaves_hvs_sd_alone(workdir: Path):
  first, second = read_weights(workdir, "hvs_sd"), read_weights(workdir, "jnd")
  for name, leaf in second.items():
    assert np.array_equal(leaf, first[name]) == ("hvs_sd" in name), name


def test_export_pairs_the_generator_with_the_hvs_sd_it_saw(
  workdir: Path, make_config: Callable[[Stage], TrainConfig], tmp_path: Path
):
  shutil.copytree(workdir, tmp_path / "run")
  config = make_config("hvs_sd")
  config.num_steps = STEPS + 1
  train(config, tmp_path / "run", report=ignore)
  for folder, out in ((workdir, "before"), (tmp_path / "run", "after")):
    export(folder, tmp_path / out)
  before, after = (weights.read_manifest(tmp_path / out)["sha256"] for out in ("before", "after"))
  assert before == after


def test_run_does_not_go_on_with_other_settings(
  workdir: Path, make_config: Callable[[Stage], TrainConfig]
):
  config = make_config("hvs_sd")
  config.num_steps = STEPS + 1
  config.hvs_sd.train_lambda = 7.0
  with pytest.raises(TrainError, match=r"hvs_sd\.train_lambda was 1024\.0 and is 7\.0\. Give it"):
    train(config, workdir, report=ignore)


def test_photograph_that_cannot_be_read_is_named(
  make_config: Callable[[Stage], TrainConfig], tmp_path: Path
):
  (tmp_path / "photos").mkdir()
  (tmp_path / "photos/bad.png").write_text("no picture")
  config = make_config("hvs_sd")
  config.data.images = str(tmp_path / "photos")
  with pytest.raises(DataError, match=r"photos/bad\.png: not an image .*; remove it"):
    train(config, tmp_path, report=ignore)


def test_step_compiles_once(
  make_config: Callable[[Stage], TrainConfig], caplog: pytest.LogCaptureFixture
):
  config = make_config("hvs_sd")
  model = JNDModel(rngs=nnx.Rngs(0))
  graph, params, frozen = nnx.split(model, nnx.PathContains("hvs_sd"), ...)
  optimizer = make_optimizer(config)
  run_step = make_step(config, graph, optimizer)
  state = TrainState(params, optimizer.init(params), jax.tree.map(jnp.copy, params))
  crops = np.zeros((1, 16, 16, 3), np.uint8)
  with caplog.at_level("WARNING"), jax.log_compiles():
    for step in range(3):
      state, _ = run_step(state, step, frozen, crops)
  compiled = [record for record in caplog.records if "Compiling jit(run_step)" in record.message]
  assert len(compiled) == 1


def test_export_carries_weights_and_defaults(workdir: Path, tmp_path: Path):
  export(workdir, tmp_path / "w")
  loaded = weights.load(tmp_path / "w")
  assert (loaded.resolution, loaded.attention) == ("native", "reconstruction")
  manifest = json.loads((tmp_path / "w/manifest.json").read_text())
  assert manifest["parameters"] == {"hvs_sd": 1_725_571, "generator": 86_051}
  assert manifest["training"]["jnd"]["steps"] == STEPS
  trained = read_weights(workdir, "jnd")
  for path, leaf in jax.tree_util.tree_flatten_with_path(nnx.state(loaded))[0]:
    name = jax.tree_util.keystr(path)
    np.testing.assert_array_equal(leaf, trained[name], err_msg=name)


def test_stage_two_needs_stage_one(make_config: Callable[[Stage], TrainConfig], tmp_path: Path):
  with pytest.raises(TrainError, match=r"no checkpoint of stage 'hvs_sd' in .*configs/hvs_sd\.py"):
    train(make_config("jnd"), tmp_path, report=ignore)


def test_loss_that_is_not_finite_stops_the_run(
  make_config: Callable[[Stage], TrainConfig], tmp_path: Path
):
  config = make_config("hvs_sd")
  config.optimizer.learning_rate = 1e30
  with pytest.raises(TrainError, match=r"not finite at step \d; the newest checkpoint is of step"):
    train(config, tmp_path, report=ignore)


def test_command(photos: Path, workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
  def run(*arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    printed = capsys.readouterr()
    return status, printed.out, printed.err

  config = ROOT / "configs/hvs_sd.py"
  base = (f"--config={config}", f"--workdir={tmp_path}")
  small = (
    f"--config.data.images={photos}",
    "--config.data.crop_px=16",
    "--config.num_steps=2",
    "--config.log_every_steps=1",
    "--config.optimizer.warmup_steps=0",
  )
  status, printed, errors = run(*base, *small)
  assert (status, errors) == (0, "")
  assert re.search(
    r"^step 2/2  loss .* bpp .* mse .* images_per_second .* min left$", printed, re.M
  )
  assert f"{tmp_path}: stage hvs_sd is trained, 2 steps" in printed

  out = tmp_path / "w"
  assert run("export", f"--workdir={workdir}", f"--out={out}")[0] == 0
  weights.load(out)

  for arguments, reason in (
    (
      (*base, *small, "--config.data.images="),
      "config.data.images must be a folder of photographs",
    ),
    ((*base, *small, "--config.data.images=/nowhere"), "no such file or folder: /nowhere"),
    ((*base, "--config.learning_rate=1"), "learning_rate"),
    ((*base, *small, "--config.data.crop_px=17"), "a multiple of 8, at least 8, got 17"),
    ((*base, "--config.seed=-1"), "config.seed must be in [0, 2^32), got -1"),
    (("--config=nowhere.py", f"--workdir={tmp_path}"), "nowhere.py"),
    ((*base, *small, f"--workdir={photos}/0.png"), "Not a directory"),
    (("export", f"--workdir={tmp_path}", f"--out={out}2"), "no checkpoint of stage 'jnd'"),
    (("export", f"--workdir={workdir}", f"--out={out}"), "not an empty folder"),
  ):
    status, _, errors = run(*arguments)
    assert status == 2
    assert errors.startswith("train: ")
    assert reason in errors


@pytest.mark.parametrize(
  ("arguments", "reason"),
  [
    ([], "--workdir"),
    (["--workdir=d"], "--config is needed"),
    (["export", "--workdir=d"], "--out is needed"),
    (["sing", "--workdir=d"], "'sing'"),
    (["--workdir=d", "--config=c.py", "--config.seed", "3"], "--config.seed=value, in one word"),
    (["--workdir=d", "--config=c.py", "--seed=3"], "--seed=3 (overrides are --config.name=value)"),
  ],
)
def test_command_line_is_checked(
  arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
):
  with pytest.raises(SystemExit, match="2"):
    main(arguments)
  assert reason in capsys.readouterr().err

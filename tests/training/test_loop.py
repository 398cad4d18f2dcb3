"""Both stages of training in small."""

import json
import re
import shutil
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, Mesh

from hvsjnd_jax import weights
from hvsjnd_jax.data.images import read_image
from hvsjnd_jax.data.photo_source import DataError
from hvsjnd_jax.metrics.backbones import VGG16, Backbones, ResNet34
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.training import stage_run
from hvsjnd_jax.training.config import JNDConfig, TrainConfig
from hvsjnd_jax.training.guards import check_batch
from hvsjnd_jax.training.loop import train
from hvsjnd_jax.training.objectives import Terms
from hvsjnd_jax.training.workdir import TrainError, export, restore_weights
from tests.training.runs import STEPS, MakeConfig, Reports, read_rows, read_weights


def test_metrics_are_logged_by_name(workdir: Path):
  rows = [json.loads(line) for line in (workdir / "jnd/metrics.jsonl").read_text().splitlines()]
  assert [row["step"] for row in rows] == [1, 2, 3, 4]
  terms = {"magnitude", "quality", "attention", "visibility"}
  assert rows[0].keys() == {"step", "loss", "gradient_norm", "learning_rate"} | terms
  assert rows[1].keys() == rows[0].keys() | {"images_per_second"}


def test_logged_terms_are_means_since_the_last_row(
  workdir: Path, make_config: MakeConfig, tmp_path: Path
):
  config = make_config("hvs_sd")
  config.log_every_steps = 3
  train(config, tmp_path, report=Reports())
  every = read_rows(workdir, "hvs_sd")
  rows = read_rows(tmp_path, "hvs_sd")
  assert [row["step"] for row in rows] == [1, 3, 4]
  for row, part in zip(rows, (every[:1], every[1:3], every[3:]), strict=True):
    for name in ("loss", "mse", "bpp", "gradient_norm"):
      assert row[name] == np.mean([step[name] for step in part])


def test_first_crop_is_drawn_at_the_end(workdir: Path):
  for stage in ("hvs_sd", "jnd"):
    assert [file.name for file in (workdir / stage / "sheets").iterdir()] == ["0000004.png"]
    sheet = read_image(workdir / stage / "sheets/0000004.png")
    assert sheet.std() > 20


def test_stage_two_leaves_hvs_sd_alone(workdir: Path):
  first, second = read_weights(workdir, "hvs_sd"), read_weights(workdir, "jnd")
  for name, leaf in second.items():
    assert np.array_equal(leaf, first[name]) == ("hvs_sd" in name), name


def test_stage_two_trains_behind_given_weights(
  workdir: Path, make_config: MakeConfig, tmp_path: Path
):
  export(workdir, tmp_path / "given")
  config = make_config("jnd")
  config.jnd.hvs_sd = str(tmp_path / "given")
  train(config, tmp_path / "run", report=Reports())
  export(tmp_path / "run", tmp_path / "out")
  given, got = (weights.load(tmp_path / name).hvs_sd for name in ("given", "out"))
  for a, b in zip(*(jax.tree.leaves(nnx.state(m)) for m in (given, got)), strict=True):
    np.testing.assert_array_equal(a, b)
  before, after = (weights.read_manifest(tmp_path / name) for name in ("given", "out"))
  assert after["training"]["hvs_sd"] == before["training"]["hvs_sd"] | {"weights": before["sha256"]}
  assert after["training"]["jnd"]["config"]["jnd"]["hvs_sd"] == "given"


def test_stage_two_goes_on_from_a_given_generator(
  workdir: Path, make_config: MakeConfig, tmp_path: Path
):
  export(workdir, tmp_path / "given")
  shutil.copytree(workdir / "hvs_sd", tmp_path / "run/hvs_sd")
  config = make_config("jnd")
  config.jnd.generator = str(tmp_path / "given")
  config.jnd.learning_rate = 1e-9  # what is trained stays as it began
  train(config, tmp_path / "run", report=Reports())
  export(tmp_path / "run", tmp_path / "out")
  given, got = (weights.load(tmp_path / name).generator for name in ("given", "out"))
  for a, b in zip(*(jax.tree.leaves(nnx.state(m)) for m in (given, got)), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-8)
  before, after = (weights.read_manifest(tmp_path / name) for name in ("given", "out"))
  training = after["training"]["jnd"]
  assert training["generator"] == before["training"]["jnd"] | {"weights": before["sha256"]}
  assert training["config"]["jnd"]["generator"] == "given"


def test_given_generator_must_have_the_form_of_the_runs(
  workdir: Path, make_config: MakeConfig, tmp_path: Path
):
  shutil.copytree(workdir / "hvs_sd", tmp_path / "hvs_sd")
  config = make_config("jnd")
  config.jnd.generator = "fast"
  with pytest.raises(TrainError, match="'fast' has a generator of another form than this run's"):
    train(config, tmp_path, report=Reports())


@pytest.mark.parametrize(
  ("generator", "error", "message"),
  [
    ("nowhere", weights.WeightsError, "nowhere/manifest.json: .*a folder of weights"),
    ("fast", TrainError, "'fast' has a generator of another form"),
  ],
)
def test_given_generator_is_looked_at_before_stage_one(
  generator: str,
  error: type[Exception],
  message: str,
  make_config: MakeConfig,
  tmp_path: Path,
):
  config = make_config("both")
  config.jnd.generator = generator
  with pytest.raises(error, match=message):
    train(config, tmp_path / "run", report=Reports())
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stages", [("hvs_sd",), ("hvs_sd", "jnd")])
def test_other_width_of_hvs_sd_is_told(
  workdir: Path, make_config: MakeConfig, tmp_path: Path, stages: tuple[str, ...]
):
  for stage in stages:
    shutil.copytree(workdir / stage, tmp_path / stage)
  config = make_config("jnd")
  config.hvs_sd.channels = 16
  config.jnd.num_steps = STEPS + 1
  with pytest.raises(TrainError, match=r"has 8 channels, and this run's 16: .*hvs_sd\.channels=8"):
    train(config, tmp_path, report=Reports())


def test_stage_two_waits_for_the_end_of_stage_one(
  workdir: Path, make_config: MakeConfig, tmp_path: Path
):
  shutil.copytree(workdir / "hvs_sd/checkpoints/2", tmp_path / "hvs_sd/checkpoints/2")
  with pytest.raises(TrainError, match=rf"stands at step 2 of {STEPS}; train it to its end"):
    train(make_config("jnd"), tmp_path, report=Reports())


def test_stage_two_begins_with_the_generator_of_its_own_seed(
  workdir: Path, make_config: MakeConfig, tmp_path: Path
):
  shutil.copytree(workdir / "hvs_sd", tmp_path / "hvs_sd")
  config = make_config("jnd")
  config.seed = 5
  config.jnd.learning_rate = 1e-9  # what is trained stays as it began
  config.jnd.num_steps = 2
  train(config, tmp_path, report=Reports())
  model: Any = JNDModel(hvs_sd_channels=8, rngs=nnx.Rngs(0))
  restore_weights(model, tmp_path, "jnd")
  first: Any = JNDModel(hvs_sd_channels=8, rngs=nnx.Rngs(5))
  begun = first.generator.conv1.kernel[...]
  np.testing.assert_allclose(model.generator.conv1.kernel[...], begun, atol=1e-8)


@pytest.fixture
def aic_config(
  make_config: MakeConfig, tmp_path: Path, vgg16: VGG16, classifier: ResNet34
) -> TrainConfig:
  """Stage 2 with the published quality loss, of two steps."""
  config = make_config("jnd")
  config.jnd.num_steps = 2
  config.jnd.quality_form = "aic"
  for name, network in (("vgg16", vgg16), ("classifier", classifier)):
    weights.save(tmp_path / name, network, provenance={})
    setattr(config.jnd, name, str(tmp_path / name))
  return config


def test_stage_two_trains_with_aic(
  workdir: Path, aic_config: TrainConfig, tmp_path: Path, vgg16: VGG16
):
  run = tmp_path / "run"
  shutil.copytree(workdir / "hvs_sd", run / "hvs_sd")
  train(aic_config, run, report=Reports())
  rows, others = read_rows(run, "jnd"), read_rows(workdir, "jnd")
  assert rows[0]["magnitude"] == pytest.approx(others[0]["magnitude"])  # before any step
  assert 0 < rows[0]["quality"] != others[0]["quality"]

  # What the networks are is kept; they are not.
  manifests = {
    name: weights.read_backbone_manifest(name, tmp_path / name) for name in Backbones._fields
  }
  hashes = {name: manifest["sha256"] for name, manifest in manifests.items()}
  assert json.loads((run / "jnd/config.json").read_text())["backbones"] == hashes
  saved = run / "jnd/checkpoints/2"
  bytes_ = sum(file.stat().st_size for file in saved.rglob("*") if file.is_file())
  assert bytes_ < 4 * sum(manifests["vgg16"]["parameters"].values())

  # Their folders may move, and must hold the same.
  (tmp_path / "vgg16").rename(tmp_path / "elsewhere")
  with pytest.raises(weights.WeightsError, match=r"vgg16: no such folder.*--vgg16 vgg16-397923af"):
    train(aic_config, run, report=Reports())
  aic_config.jnd.vgg16 = str(tmp_path / "elsewhere")
  train(aic_config, run, report=Reports())
  other = nnx.clone(vgg16)
  nnx.update(other, jax.tree.map(lambda leaf: leaf + 1, nnx.state(other)))
  weights.save(tmp_path / "vgg16", other, provenance={})
  aic_config.jnd.vgg16 = str(tmp_path / "vgg16")
  with pytest.raises(TrainError, match=rf"backbones\.vgg16 was '{hashes['vgg16']}' and is"):
    train(aic_config, run, report=Reports())

  # And nobody's private paths are published.
  export(run, tmp_path / "out")
  assert str(tmp_path) not in (tmp_path / "out/manifest.json").read_text()


def test_missing_backbone_is_found_before_stage_one(aic_config: TrainConfig, tmp_path: Path):
  aic_config.stage = "both"
  aic_config.jnd.classifier = str(tmp_path / "nowhere")
  with pytest.raises(weights.WeightsError, match=r"nowhere: no such folder.*get CL_resNet34\.pth"):
    train(aic_config, tmp_path / "run", report=Reports())
  assert not (tmp_path / "run").exists()


def test_photograph_that_cannot_be_read_is_named(make_config: MakeConfig, tmp_path: Path):
  (tmp_path / "photos").mkdir()
  (tmp_path / "photos/bad.png").write_text("no picture")
  config = make_config("hvs_sd")
  config.data.images = str(tmp_path / "photos")
  with pytest.raises(DataError, match=r"photos/bad\.png: not an image .*; remove it"):
    train(config, tmp_path, report=Reports())


def test_stage_two_needs_stage_one(make_config: MakeConfig, tmp_path: Path):
  with pytest.raises(TrainError, match=r"no checkpoint of stage 'hvs_sd' in .*configs/hvs_sd\.py"):
    train(make_config("jnd"), tmp_path, report=Reports())


def test_loss_that_is_not_finite_stops_the_run(
  make_config: MakeConfig, photos: Path, tmp_path: Path
):
  config = make_config("hvs_sd")
  config.hvs_sd.learning_rate = 1e30  # from step 2 on; what is to be saved there is tried
  config.hvs_sd.batch_size = 2  # of three photographs: step 3 is of the second epoch
  with pytest.raises(TrainError) as raised:
    train(config, tmp_path, report=Reports())
  name = rf"{photos}/\d\.png"
  assert re.fullmatch(
    rf"bpp, gradient_norm, loss, mse not finite after step 2, on a batch of {name}(, {name})?; "
    r"no checkpoint was made yet\. A lower learning_rate may help\.",
    str(raised.value),
  )


def test_steps_do_not_queue_up(
  make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  # All steps that are under way have to end before a SIGTERM is obeyed.
  make_step = stage_run.make_step
  losses: list[Any] = []  # jax.Array, whose annotations lack is_ready
  most = 0

  def make_watched_step(*args: Any) -> Any:
    step = make_step(*args)

    def run(*inputs: Any) -> tuple[Any, Terms]:
      nonlocal most
      state, terms = step(*inputs)
      losses.append(terms["loss"])
      most = max(most, sum(not loss.is_ready() for loss in losses))
      return state, terms

    return run

  monkeypatch.setattr(stage_run, "make_step", make_watched_step)
  config = make_config("hvs_sd")
  config.log_every_steps = config.checkpoint_every_steps = 100
  config.hvs_sd.num_steps, config.hvs_sd.crop_px = 8, 160  # which take longer than to begin one
  train(config, tmp_path, report=Reports())
  assert most <= 2


@pytest.mark.parametrize(("devices", "parts"), [(8, 1), (2, 4), (1, 8)])
def test_devices_and_parts_share_a_batch(devices: int, parts: int):
  def check(batch_size: int) -> None:
    settings = JNDConfig(batch_size=batch_size, accumulation_steps=parts)
    check_batch(settings, "jnd", cast(Mesh, AbstractMesh((devices,), ("data",))))

  check(16)
  with pytest.raises(TrainError) as raised:
    check(12)
  assert str(raised.value) == (
    f"config.jnd.batch_size is 12, which {devices} devices times {parts} accumulation_steps do "
    "not divide; choose a multiple of 8"
  )

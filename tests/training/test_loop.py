"""Both stages of training in small, stopped and resumed."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, Mesh
from PIL import Image

from hvsjnd_jax import weights
from hvsjnd_jax.data.images import read_image
from hvsjnd_jax.data.sources import DataError
from hvsjnd_jax.metrics.backbones import VGG16, Backbones, ResNet34
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.train import main
from hvsjnd_jax.training.config import (
  JNDConfig,
  RateDistortionConfig,
  Stage,
  StageChoice,
  TrainConfig,
)
from hvsjnd_jax.training.guards import check_batch
from hvsjnd_jax.training.loop import train
from hvsjnd_jax.training.preemption import PreemptedError
from hvsjnd_jax.training.running_means import Means
from hvsjnd_jax.training.workdir import TrainError, export, restore_weights

STEPS = 4
MakeConfig = Callable[[StageChoice], TrainConfig]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
  folder = tmp_path_factory.mktemp("photos")
  rng = np.random.default_rng(0)
  for i in range(3):
    coarse = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((200, 190), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
  return folder


@pytest.fixture(scope="module")
def make_config(photos: Path) -> MakeConfig:
  def make(stage: StageChoice) -> TrainConfig:
    small: dict[str, Any] = {"num_steps": STEPS, "batch_size": 1, "warmup_steps": 1}
    config = TrainConfig(
      stage=stage,
      log_every_steps=1,
      checkpoint_every_steps=2,
      hvs_sd=RateDistortionConfig(crop_px=16, **small),
      jnd=JNDConfig(crop_px=168, **small),
    )
    config.data.images = str(photos)
    return config

  return make


class Reports(list[tuple[Stage, int]]):
  """The steps that were reported; something may be done at one of them."""

  def __init__(self, at: tuple[Stage, int] | None = None, do: Callable[[], None] | None = None):
    super().__init__()
    self._at, self._do = at, do

  def __call__(self, stage: Stage, step: int, means: Means | None) -> None:
    self.append((stage, step))
    if self._do and (stage, step) == self._at:
      self._do()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory, make_config: MakeConfig) -> Path:
  """Both stages, trained for a few steps without a stop."""
  folder = tmp_path_factory.mktemp("run")
  reports = Reports()
  train(make_config("both"), folder, report=reports)
  assert reports == [(stage, i + 1) for stage in ("hvs_sd", "jnd") for i in range(STEPS)]
  return folder


def read_weights(workdir: Path, stage: Stage) -> dict[str, np.ndarray]:
  model = JNDModel(rngs=nnx.Rngs(0))
  assert restore_weights(model, workdir, stage)["steps"] == STEPS
  leaves, _ = jax.tree_util.tree_flatten_with_path(nnx.state(model))
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def read_rows(workdir: Path, stage: Stage) -> list[dict[str, float]]:
  """The figures, but for how quick it went."""
  rows = [json.loads(row) for row in (workdir / stage / "metrics.jsonl").read_text().splitlines()]
  for row in rows:
    row.pop("images_per_second", None)
  return rows


def assert_same_run(workdir: Path, other: Path, stage: Stage) -> None:
  assert read_rows(workdir, stage) == read_rows(other, stage)
  want = read_weights(other, stage)
  for name, leaf in read_weights(workdir, stage).items():
    np.testing.assert_array_equal(leaf, want[name], err_msg=name)


@pytest.mark.parametrize(
  ("stage", "stopped_at"), [("hvs_sd", 1), ("hvs_sd", 3), ("jnd", 3)], ids=lambda value: value
)
def test_stopped_run_ends_as_the_straight_one(
  workdir: Path, make_config: MakeConfig, tmp_path: Path, stage: Stage, stopped_at: int
):
  class StopError(Exception):
    pass

  def stop() -> None:
    raise StopError

  config = make_config(stage)
  if stage == "jnd":
    shutil.copytree(workdir / "hvs_sd", tmp_path / "hvs_sd")
    config.stage = "both"  # of which the first is done
  with pytest.raises(StopError):
    train(config, tmp_path, report=Reports((stage, stopped_at), stop))
  reports = Reports()
  train(config, tmp_path, report=reports)
  assert reports[0] == (stage, 3 if stopped_at == 3 else 1)  # saved at step 2
  assert_same_run(tmp_path, workdir, stage)


def test_sigterm_saves_and_stops(workdir: Path, make_config: MakeConfig, tmp_path: Path):
  def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)

  def own_handler(*_: object) -> None: ...

  before = signal.signal(signal.SIGTERM, own_handler)
  try:
    # While a step is reported, the next one is not yet asked for.
    with pytest.raises(PreemptedError, match="by SIGTERM; step 3 of stage 'hvs_sd' is saved"):
      train(make_config("hvs_sd"), tmp_path, report=Reports(("hvs_sd", 2), terminate))
    assert signal.getsignal(signal.SIGTERM) == own_handler
  finally:
    signal.signal(signal.SIGTERM, before)
  reports = Reports()
  train(make_config("hvs_sd"), tmp_path, report=reports)
  assert reports == [("hvs_sd", 4)]
  assert_same_run(tmp_path, workdir, "hvs_sd")


def test_finished_run_has_nothing_left_to_do(workdir: Path, make_config: MakeConfig):
  reports = Reports()
  train(make_config("both"), workdir, report=reports)
  assert not reports


def test_metrics_are_logged_by_name(workdir: Path):
  rows = [json.loads(line) for line in (workdir / "jnd/metrics.jsonl").read_text().splitlines()]
  assert [row["step"] for row in rows] == [1, 2, 3, 4]
  terms = {"magnitude", "quality", "attention", "visibility"}
  assert rows[0].keys() == {"step", "loss", "gradient_norm", "learning_rate"} | terms
  assert rows[1].keys() == rows[0].keys() | {"images_per_second"}


def test_figures_are_means_since_the_last(workdir: Path, make_config: MakeConfig, tmp_path: Path):
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
  model = JNDModel(rngs=nnx.Rngs(0))
  restore_weights(model, tmp_path, "jnd")
  begun = JNDModel(rngs=nnx.Rngs(5)).generator.conv1.kernel[...]
  np.testing.assert_allclose(model.generator.conv1.kernel[...], begun, atol=1e-8)


def test_run_does_not_go_on_with_other_photographs(
  workdir: Path, make_config: MakeConfig, photos: Path, tmp_path: Path
):
  shutil.copytree(workdir / "hvs_sd", tmp_path / "hvs_sd")
  shutil.copytree(photos, tmp_path / "photos")
  config = make_config("hvs_sd")
  config.hvs_sd.num_steps = STEPS + 1
  config.data.images = str(tmp_path / "photos")  # the same, elsewhere
  (tmp_path / "photos/0.png").rename(tmp_path / "photos/9.png")
  with pytest.raises(TrainError, match=r"trained on other photographs: 3 files, names .*, not 3"):
    train(config, tmp_path, report=Reports())
  (tmp_path / "photos/9.png").rename(tmp_path / "photos/0.png")
  train(config, tmp_path, report=Reports())


def test_run_past_its_end_is_an_error(workdir: Path, make_config: MakeConfig):
  config = make_config("hvs_sd")
  config.hvs_sd.num_steps = STEPS - 1
  with pytest.raises(TrainError, match=rf"stands at step {STEPS}, past num_steps {STEPS - 1}"):
    train(config, workdir, report=Reports())


def test_two_runs_do_not_share_a_folder(make_config: MakeConfig, tmp_path: Path):
  config = make_config("hvs_sd")

  def start_another(*_: object) -> None:
    with pytest.raises(TrainError, match=r"another run trains in .*hvs_sd"):
      train(config, tmp_path, report=Reports())

  train(config, tmp_path, report=start_another)


def test_run_does_not_go_on_with_other_settings(workdir: Path, make_config: MakeConfig):
  config = make_config("both")
  config.hvs_sd.rate_distortion_lambda = 7.0
  config.seed = 3
  config.jnd.lmbda = 11.0  # of the other stage
  with pytest.raises(TrainError) as raised:
    train(config, workdir, report=Reports())
  assert str(raised.value) == (
    f"{workdir}/hvs_sd holds a run with other settings: seed was 0 and is 3; "
    "hvs_sd.rate_distortion_lambda was 1024.0 and is 7.0. Give it the same settings, or choose "
    "another --workdir."
  )


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


def test_run_from_before_a_setting_existed_goes_on(
  workdir: Path, make_config: MakeConfig, tmp_path: Path
):
  shutil.copytree(workdir, tmp_path / "run")
  file = tmp_path / "run/jnd/config.json"
  settings = json.loads(file.read_text())
  del settings["jnd"]["quality_form"], settings["jnd"]["vgg16"]
  file.write_text(json.dumps(settings))
  config = make_config("jnd")
  train(config, tmp_path / "run", report=Reports())
  config.jnd.quality_form = "ms_ssim"
  with pytest.raises(TrainError, match="quality_form was 'ms_ssim_gmsd' and is 'ms_ssim'"):
    train(config, tmp_path / "run", report=Reports())


def test_photograph_that_cannot_be_read_is_named(make_config: MakeConfig, tmp_path: Path):
  (tmp_path / "photos").mkdir()
  (tmp_path / "photos/bad.png").write_text("no picture")
  config = make_config("hvs_sd")
  config.data.images = str(tmp_path / "photos")
  with pytest.raises(DataError, match=r"photos/bad\.png: not an image .*; remove it"):
    train(config, tmp_path, report=Reports())


def test_export_carries_weights_and_defaults(
  workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  assert main(["export", f"--workdir={workdir}", f"--out={tmp_path}/w"]) == 0
  assert capsys.readouterr() == (f"{tmp_path}/w: weights written\n", "")
  loaded = weights.load(tmp_path / "w")
  assert (loaded.resolution, loaded.attention) == ("fine", "reconstruction")
  manifest = json.loads((tmp_path / "w/manifest.json").read_text())
  assert manifest["parameters"] == {"hvs_sd": 1_725_571, "generator": 86_051}
  assert manifest["training"]["jnd"]["steps"] == STEPS
  trained = read_weights(workdir, "jnd")
  for path, leaf in jax.tree_util.tree_flatten_with_path(nnx.state(loaded))[0]:
    name = jax.tree_util.keystr(path)
    np.testing.assert_array_equal(leaf, trained[name], err_msg=name)

  assert main(["export", f"--workdir={workdir}", f"--out={tmp_path}/w"]) == 2
  assert "not an empty folder" in capsys.readouterr().err


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

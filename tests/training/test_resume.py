"""A run that is stopped goes on exactly, or is refused."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from hvsjnd_jax import weights
from hvsjnd_jax.training.config import Stage
from hvsjnd_jax.training.loop import train
from hvsjnd_jax.training.preemption import PreemptedError
from hvsjnd_jax.training.workdir import TrainError, export
from tests.training.runs import (
  STEPS,
  MakeConfig,
  Reports,
  assert_same_run,
  edit_notes,
  use_former_names,
)


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


def test_run_from_before_a_setting_existed_goes_on(
  workdir: Path, make_config: MakeConfig, tmp_path: Path
):
  shutil.copytree(workdir, tmp_path / "run")

  def forget(notes: dict[str, Any]) -> None:
    del notes["config"]["jnd"]["quality_form"], notes["config"]["jnd"]["vgg16"]

  edit_notes(tmp_path / "run", "jnd", forget)
  config = make_config("jnd")
  train(config, tmp_path / "run", report=Reports())
  config.jnd.quality_form = "ms_ssim"
  with pytest.raises(TrainError, match="quality_form was 'ms_ssim_gmsd' and is 'ms_ssim'"):
    train(config, tmp_path / "run", report=Reports())


def test_run_with_the_former_names_of_settings_goes_on(
  workdir: Path, make_config: MakeConfig, tmp_path: Path
):
  """A run of an earlier version called two settings train_lambda and attention."""
  run = shutil.copytree(workdir, tmp_path / "run")
  shutil.rmtree(run / f"jnd/checkpoints/{STEPS}")

  def rename(notes: dict[str, Any]) -> None:
    use_former_names(notes)
    if "hvs_sd" in notes:  # in those of stage 2
      use_former_names(notes["hvs_sd"])

  for stage in ("hvs_sd", "jnd"):
    edit_notes(run, stage, rename)
  reports = Reports()
  train(make_config("both"), run, report=reports)
  assert reports == [("jnd", 3), ("jnd", 4)]
  assert_same_run(run, workdir, "jnd")
  for folder, out in ((workdir, "straight"), (run, "resumed")):
    export(folder, tmp_path / out)
  straight, resumed = (weights.read_manifest(tmp_path / out) for out in ("straight", "resumed"))
  assert straight == resumed

  config = make_config("both")
  config.hvs_sd.rate_distortion_lambda = 7.0
  with pytest.raises(TrainError, match=r"hvs_sd\.rate_distortion_lambda was 1024\.0 and is 7\.0"):
    train(config, run, report=Reports())
  config.stage = "jnd"
  config.jnd.attention_layer = "feature"
  with pytest.raises(TrainError, match="attention_layer was 'reconstruction' and is 'feature'"):
    train(config, run, report=Reports())

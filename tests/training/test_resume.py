"""A run that is stopped goes on exactly, or is refused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from hvsjnd_jax import weights
from hvsjnd_jax.training import guards
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


def test_processes_must_see_the_same_photographs(
  make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  found = iter((False, True))  # the settings are the same, the photographs are not
  monkeypatch.setattr(guards, "_differs", lambda *values: next(found))
  config = make_config("hvs_sd")
  with pytest.raises(TrainError, match=r"see different photographs \(here 3 files, .*\): give all"):
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


def test_run_of_another_version_is_refused(workdir: Path, make_config: MakeConfig, tmp_path: Path):
  """Its objective may have been another one, though the settings look the same."""
  run = shutil.copytree(workdir, tmp_path / "run")

  def forget(notes: dict[str, Any]) -> None:
    del notes["config"]["jnd"]["noise"], notes["config"]["jnd"]["vgg16"], notes["architecture"]

  edit_notes(run, "jnd", forget)
  message = r"jnd holds a run of another version of hvsjnd_jax, which did not know jnd\.noise\. Go"
  with pytest.raises(TrainError, match=message):
    train(make_config("jnd"), run, report=Reports())
  with pytest.raises(TrainError, match="another version of hvsjnd_jax; export it with that"):
    export(run, tmp_path / "w")


# What an environment may say: it changes types, random numbers, or what is an error.
SETTINGS = {
  "x64": lambda: jax.enable_x64(True),
  "other generator": lambda: jax.default_prng_impl("rbg"),
  "other stream": lambda: jax.threefry_partitionable(False),
  "strict types": lambda: jax.numpy_dtype_promotion("strict"),
  "strict ranks": lambda: jax.numpy_rank_promotion("raise"),
  "no transfers": lambda: jax.transfer_guard("disallow"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_jax_change_no_bit(
  workdir: Path, make_config: MakeConfig, tmp_path: Path, name: str
):
  with SETTINGS[name]():
    train(make_config("hvs_sd"), tmp_path, report=Reports())
  assert_same_run(tmp_path, workdir, "hvs_sd")
  assert read_hashes(tmp_path, "hvs_sd") == read_hashes(workdir, "hvs_sd")


def test_run_goes_on_and_is_exported_under_x64(
  workdir: Path, make_config: MakeConfig, tmp_path: Path
):
  run = shutil.copytree(workdir, tmp_path / "run")
  shutil.rmtree(run / f"jnd/checkpoints/{STEPS}")
  reports = Reports()
  with jax.enable_x64(True):
    train(make_config("jnd"), run, report=reports)
    export(run, tmp_path / "resumed")
  assert reports == [("jnd", 3), ("jnd", 4)]
  assert_same_run(run, workdir, "jnd")
  assert read_hashes(run, "jnd") == read_hashes(workdir, "jnd")
  export(workdir, tmp_path / "straight")
  straight, resumed = (weights.read_manifest(tmp_path / name) for name in ("straight", "resumed"))
  assert straight == resumed


def read_hashes(workdir: Path, stage: Stage) -> dict[str, Any]:
  """The hashes of all arrays in the last checkpoint, the optimiser's state among them."""
  return json.loads((workdir / stage / f"checkpoints/{STEPS}/sha256/metadata").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("0", "1"), ("1", "0")])
def test_environment_changes_no_bit(tmp_path: Path, first: str, then: str):
  """A run, its resumption and its export are processes of their own, as users start them."""
  root = Path(__file__).parents[2]

  def start(x64: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "hvsjnd_jax.train", *arguments]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": x64}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

  def run(x64: str, name: str) -> None:
    start(
      x64,
      f"--config={root / 'configs/tiny.py'}",
      f"--workdir={tmp_path / name}",
      "--config.checkpoint_every_steps=2",
      *(f"--config.{stage}.num_steps={STEPS}" for stage in ("hvs_sd", "jnd")),
      *(f"--config.{stage}.warmup_steps=1" for stage in ("hvs_sd", "jnd")),
      "--config.hvs_sd.crop_px=16",
    )

  run(first, "straight")
  shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
  for stage in ("hvs_sd", "jnd"):
    shutil.rmtree(tmp_path / "resumed" / stage / f"checkpoints/{STEPS}")
  run(then, "resumed")
  for name, x64 in (("straight", first), ("resumed", then)):
    start(x64, "export", f"--workdir={tmp_path / name}", f"--out={tmp_path / name}_weights")
  for stage in ("hvs_sd", "jnd"):
    assert read_hashes(tmp_path / "resumed", stage) == read_hashes(tmp_path / "straight", stage)
  straight, resumed = (
    (tmp_path / f"{name}_weights/weights.safetensors").read_bytes()
    for name in ("straight", "resumed")
  )
  assert straight == resumed


def test_no_message_tells_to_delete():
  """A run that seems damaged may be sound: a disk, a network or rights may be at fault."""
  folder = Path(__file__).parents[2] / "hvsjnd_jax/training"
  for file in folder.glob("*.py"):
    messages = re.findall(r'f?"[^"\n]*"', file.read_text())
    assert not [words for words in messages if "delete" in words], file.name

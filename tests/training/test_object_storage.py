"""Runs in an object store, copies of runs, and who may write to one; against an emulator."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hvsjnd_jax import weights
from hvsjnd_jax.data.paths import list_objects
from hvsjnd_jax.training import lease
from hvsjnd_jax.training.checkpoints import CheckpointError, Checkpoints
from hvsjnd_jax.training.guards import hold_folder
from hvsjnd_jax.training.loop import train
from hvsjnd_jax.training.metric_writer import MetricWriter
from hvsjnd_jax.training.workdir import TrainError, export
from tests.support.object_storage import copy_from_storage, copy_to_storage
from tests.training.runs import STEPS, MakeConfig, Reports, assert_same_run

MARK = "commit_success.txt"

# Where a read fails, Orbax closes its event loop, which TensorStore's other reads then find closed.
pytestmark = pytest.mark.filterwarnings(
  "ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning"
)


class StopError(Exception):
  """Ends a run between two steps."""


def stop() -> None:
  raise StopError


def test_run_goes_on_in_the_store_and_ends_as_one_on_a_disk(
  remote: Path, workdir: Path, photos: Path, make_config: MakeConfig, tmp_path: Path
):
  """The photographs are read from there as well."""
  copy_to_storage(photos, remote / "photos")
  config = make_config("hvs_sd")
  config.data.images = str(remote / "photos")
  with pytest.raises(StopError):
    train(config, remote / "run", report=Reports(("hvs_sd", 3), stop))
  reports = Reports()
  train(config, remote / "run", report=reports)
  assert reports == [("hvs_sd", 3), ("hvs_sd", 4)]
  assert_same_run(remote / "run", workdir, "hvs_sd")
  names = {file.name for file in list_objects(remote / "run/hvs_sd")}
  assert {"config.json", "0000004.png"} <= names
  assert any(name.startswith("events.out.tfevents") for name in names)
  assert not list_objects(remote / "run/hvs_sd/locks")


def test_rows_are_there_before_a_checkpoint_is(remote: Path):
  with MetricWriter(remote, step=0) as writer:
    for step in range(1, 4):
      writer.write(step, {"loss": 0.5})
    writer.keep_rows()
    assert (remote / "metrics.jsonl").read_text().count("\n") == 3


def test_run_that_was_taken_over_leaves_the_rows_alone(remote: Path):
  """Its error is told, and not that its last row could not be written."""
  file = remote / "metrics.jsonl"

  def run() -> None:
    with MetricWriter(remote, step=0) as writer:
      writer.write(1, {"loss": 0.5})
      writer.write(2, {"loss": 0.5})  # which is not sent at once
      file.write_text("theirs\n")
      raise TrainError("taken over")

  with pytest.raises(TrainError, match="taken over"):
    run()
  assert file.read_text() == "theirs\n"


def drop_marks(folder: Path) -> None:
  for file in folder.rglob(MARK):
    file.unlink()


def test_run_copied_to_the_store_and_back_goes_on(
  remote: Path, workdir: Path, make_config: MakeConfig, tmp_path: Path
):
  """Without Orbax's marks, as a copy is of a run that an older version saved."""
  config = make_config("hvs_sd")
  shutil.copytree(workdir / "hvs_sd", tmp_path / "there/hvs_sd")
  drop_marks(tmp_path / "there")
  copy_to_storage(tmp_path / "there", remote)
  for step, folder in ((STEPS + 1, remote), (STEPS + 2, tmp_path / "back")):
    config.hvs_sd.num_steps, reports = step, Reports()
    train(config, folder, report=reports)
    assert reports == [("hvs_sd", step)]
    if folder == remote:
      copy_from_storage(remote, tmp_path / "back")


def test_weights_are_exported_to_the_store_and_loaded_from_there(
  remote: Path, workdir: Path, tmp_path: Path
):
  copy_to_storage(workdir, remote / "run")
  export(remote / "run", remote / "weights")
  export(workdir, tmp_path / "weights")
  got, want = weights.load(str(remote / "weights")), weights.load(tmp_path / "weights")
  for a, b in zip(*(jax.tree.leaves(nnx.state(model)) for model in (got, want)), strict=True):
    np.testing.assert_array_equal(a, b)
  with pytest.raises(weights.WeightsError, match="is not an empty folder"):
    export(workdir, remote / "weights")
  (remote / "weights/manifest.json").unlink()
  with pytest.raises(weights.WeightsError, match=r"manifest.json: No such file or directory"):
    weights.load(str(remote / "weights"))


def make_tree(step: int) -> dict[str, Any]:
  return {"a": jnp.full((3, 4), step, jnp.float32), "b": {"c": jnp.arange(step, step + 5)}}


def save_steps(folder: Path, *steps: int) -> None:
  with Checkpoints(folder) as checkpoints:
    for step in steps:
      checkpoints.save(step, {"step": step}, tree=make_tree(step))


def check_step(folder: Path, step: int, *, read_only: bool = False) -> None:
  with Checkpoints(folder, read_only=read_only) as checkpoints:
    assert checkpoints.latest_step() == step
    restored = checkpoints.restore(step, tree=make_tree(0))["tree"]
    assert checkpoints.read_notes(step) == {"step": step}
  jax.tree.map(np.testing.assert_array_equal, restored, make_tree(step))


def list_names(folder: Path) -> set[str]:
  return {str(file).removeprefix(str(folder)) for file in list_objects(folder)}


def test_checkpoints_copied_without_marks_are_known_by_their_hashes(remote: Path, tmp_path: Path):
  save_steps(tmp_path, 1, 2)
  drop_marks(tmp_path)
  copy_to_storage(tmp_path, remote)
  (remote / "README").write_text("not ours")
  (remote / "3.backup/data").write_text("not ours either")
  check_step(remote, 2)
  save_steps(remote, 3)
  check_step(remote, 3)
  assert {"/README", "/3.backup/data", "/1/notes/metadata"} <= list_names(remote)

  copy_from_storage(remote, tmp_path / "back")
  check_step(tmp_path / "back", 3)
  save_steps(tmp_path / "back", 4)
  check_step(tmp_path / "back", 4)
  assert (tmp_path / "back/3.backup/data").is_file()


def unmark(step: Path, *, unfinished: bool) -> None:
  """Makes a finished save look as one that was not, or was copied from elsewhere."""
  for item in ("", "tree", "notes", "sha256"):
    (step / item / MARK).unlink()
  if unfinished:
    times = json.loads((step / "_CHECKPOINT_METADATA").read_text())
    times["commit_timestamp_nsecs"] = None
    (step / "_CHECKPOINT_METADATA").write_text(json.dumps(times))


def test_own_unfinished_saves_alone_are_deleted(remote: Path, tmp_path: Path):
  save_steps(remote, 1, 2, 3)
  unmark(remote / "2", unfinished=True)  # as if killed at the very end: nothing is missing
  unmark(remote / "3", unfinished=True)
  (remote / "3/tree/manifest.ocdbt").unlink()
  copy_from_storage(remote, tmp_path / "disk")
  kept = list_names(remote / "3")
  check_step(remote, 2, read_only=True)
  assert list_names(remote / "3") == kept
  for folder in (remote, tmp_path / "disk"):
    check_step(folder, 2)
    assert not (folder / "3").exists()
    assert (folder / "1/notes/metadata").exists()


def test_copy_that_did_not_end_is_refused_and_kept(remote: Path):
  save_steps(remote, 1, 2)
  unmark(remote / "2", unfinished=False)
  (remote / "2/tree/manifest.ocdbt").unlink()
  everything = list_names(remote)
  for read_only in (True, False):
    with pytest.raises(CheckpointError, match=r"/2 is no whole checkpoint: .* Copy it again"):
      Checkpoints(remote, read_only=read_only)
  assert list_names(remote) == everything


def test_old_checkpoint_that_is_in_part_deleted_is_ignored(remote: Path):
  save_steps(remote, 1, 2)
  unmark(remote / "1", unfinished=False)
  (remote / "1/tree/manifest.ocdbt").unlink()
  everything = list_names(remote)
  check_step(remote, 2)
  assert list_names(remote) == everything


Claim = Callable[..., None]


@pytest.fixture
def claim(remote: Path) -> Claim:
  """Writes what a holder of the folder would have written."""

  def write(number: int, **other: Any) -> None:
    holder = {"host": "other", "pid": 1, "machine": "another", "process": "1 1", "token": "another"}
    holder["beat"] = 0
    (remote / f"locks/{number:06d}").write_text(json.dumps(holder | other))

  return write


def test_second_run_is_refused(remote: Path):
  with (
    hold_folder(remote),
    pytest.raises(TrainError, match=r"another run trains in gs://.*, here, as process"),
  ):
    hold_folder(remote)
  with hold_folder(remote):
    pass
  assert not list_objects(remote)


def test_folder_of_a_dead_run_is_free(remote: Path, claim: Claim, monkeypatch: pytest.MonkeyPatch):
  # On this machine a process that ended, or another one of its number, is known at once ...
  claim(7, machine=lease._identify_machine(), process="1 another start")
  hold_folder(remote).close()
  # ... and elsewhere it is one that gives no sign of life.
  monkeypatch.setattr(lease, "PATIENCE_SECONDS", 0.2)
  claim(3)
  with hold_folder(remote):
    assert [file.name for file in list_objects(remote)] == ["000004"]


def test_run_elsewhere_that_gives_a_sign_of_life_is_respected(
  remote: Path, claim: Claim, monkeypatch: pytest.MonkeyPatch
):
  claim(1)
  monkeypatch.setattr(lease, "sleep", lambda seconds: claim(1, beat=1))
  with pytest.raises(TrainError, match=r"another run trains in gs://.*, on other, as process 1"):
    hold_folder(remote)


def test_run_that_was_taken_over_ends(remote: Path, claim: Claim):
  held = lease.Lease(remote)
  reports = Reports()
  report = held.checking(reports)
  held.renew()
  report("hvs_sd", 1, None)
  claim(2)
  held.renew()
  with pytest.raises(TrainError, match="another run has taken over"):
    report("hvs_sd", 2, None)
  held.close()
  assert reports == [("hvs_sd", 1)]
  assert [file.name for file in list_objects(remote)] == ["000001", "000002"]


def test_number_that_came_back_is_another_run_s(remote: Path, claim: Claim):
  """Two runs took over meanwhile: the first has closed, the second got the number of this one."""
  held = lease.Lease(remote)
  claim(1)
  written = (remote / "locks/000001").read_bytes()
  held.renew()
  with pytest.raises(TrainError, match="another run has taken over"):
    held.checking(Reports())("hvs_sd", 1, None)
  held.close()
  assert (remote / "locks/000001").read_bytes() == written

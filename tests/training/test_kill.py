"""A run that is killed again and again ends with the bits of one that is left alone."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax.data.__main__ import main as build
from hvsjnd_jax.data.paths import parse_path
from hvsjnd_jax.data.sources import SyntheticPhotos
from hvsjnd_jax.training.checkpoints import Checkpoints
from hvsjnd_jax.training.config import RateDistortionConfig, Stage, TrainConfig
from hvsjnd_jax.training.train_state import build_model, init_state, split_model
from tests.training.runs import PAPER_OVERRIDES, paper_config, read_rows

ROOT = Path(__file__).parents[2]
STEPS: dict[Stage, int] = {"hvs_sd": 40, "jnd": 16}
SAVE_EVERY_STEPS = 5
TIMEOUT_SECONDS = 400
SAVES = f"--config.checkpoint_every_steps={SAVE_EVERY_STEPS}"
# Without SAVES, checkpoints are made at the end of a stage alone.
SETTINGS = (
  f"--config={ROOT / 'configs/tiny.py'}",
  "--config.log_every_steps=1",
  "--config.sheet_every_steps=100",
  "--config.checkpoint_every_steps=100",
  "--config.hvs_sd.crop_px=16",
  f"--config.hvs_sd.num_steps={STEPS['hvs_sd']}",
  f"--config.jnd.num_steps={STEPS['jnd']}",
  *PAPER_OVERRIDES,
)


class Command:
  """The training command in a process of its own, with a cache that makes restarts quick."""

  def __init__(self, cache: Path, workdir: Path, *arguments: str):
    environment = {
      "JAX_PLATFORMS": "cpu",
      "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
      "JAX_ENABLE_COMPILATION_CACHE": "true",
      "JAX_COMPILATION_CACHE_DIR": str(cache),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    self.process = subprocess.Popen(
      [sys.executable, "-m", "hvsjnd_jax.train", f"--workdir={workdir}", *SETTINGS, *arguments],
      cwd=ROOT,
      env=os.environ | environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    self.deadline = threading.Timer(TIMEOUT_SECONDS, self.process.kill)
    self.deadline.start()

  def rows(self) -> Iterator[tuple[Stage, int]]:
    """Stage and step of each row of figures, as soon as it is printed."""
    assert self.process.stdout is not None
    for line in self.process.stdout:
      for stage in STEPS:
        if line.startswith(f"{stage} "):
          yield stage, int(line.split()[1].partition("/")[0])

  def finish(self) -> tuple[int, str]:
    """Exit status and what stood on stderr."""
    _, errors = self.process.communicate()
    self.deadline.cancel()
    # TensorStore says which credentials it uses.
    kept = (line for line in errors.splitlines(keepends=True) if "google_auth" not in line)
    return self.process.returncode, "".join(kept)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
  return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
  """The working folder of the run that is left alone."""
  folder = tmp_path_factory.mktemp("straight")
  command = Command(cache, folder)
  want = [(stage, step + 1) for stage, steps in STEPS.items() for step in range(steps)]
  assert list(command.rows()) == want
  assert command.finish() == (0, "")
  return folder


def draw_moments(rng: np.random.Generator, *, of_a_stage: int) -> list[tuple[Stage, int, float]]:
  """Stage and step whose row to await, in order, and seconds from then on.

  Every other one awaits a row that is printed just before its step is saved.
  """
  moments = []
  for stage, steps in STEPS.items():
    # Not to the end: the run goes on for some steps until it is killed.
    for index, step in enumerate(sorted(rng.integers(1, 3 * steps // 4, of_a_stage))):
      to_save = -step % SAVE_EVERY_STEPS if index % 2 else 0
      moments.append((stage, int(step + to_save), rng.uniform(0, 1)))
  return moments


def kill_at(command: Command, stage: Stage, step: int, seconds: float) -> None:
  order = list(STEPS)
  for found in command.rows():
    if (order.index(found[0]), found[1]) >= (order.index(stage), step):
      break
  time.sleep(seconds)
  command.process.kill()
  assert command.finish() == (-signal.SIGKILL, "")


def read_state(workdir: Path, stage: Stage) -> dict[str, np.ndarray]:
  """Everything in the last checkpoint: weights, their averages and the optimiser's state."""
  # As configs/tiny.py, with the paper's generator.
  config = TrainConfig(hvs_sd=RateDistortionConfig(channels=32), jnd=paper_config())
  _, params, frozen = split_model(build_model(config), stage)
  like: dict[str, Any] = init_state(params, getattr(config, stage))._asdict()
  with Checkpoints(workdir / stage / "checkpoints") as checkpoints:
    assert checkpoints.latest_step() == STEPS[stage]
    restored = checkpoints.restore(STEPS[stage], frozen=frozen, **like)
  leaves, _ = jax.tree_util.tree_flatten_with_path(restored)
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same_run(workdir: Path, other: Path, stage: Stage) -> None:
  assert read_rows(workdir, stage) == read_rows(other, stage)
  want = read_state(other, stage)
  found = read_state(workdir, stage)
  assert found.keys() == want.keys()
  for name, leaf in found.items():
    assert leaf.tobytes() == want[name].tobytes(), name


@pytest.mark.parametrize("kills_of_a_stage", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_run_killed_again_and_again_ends_as_the_straight_one(
  straight: Path, cache: Path, tmp_path: Path, kills_of_a_stage: int
):
  for moment in draw_moments(np.random.default_rng(0), of_a_stage=kills_of_a_stage):
    kill_at(Command(cache, tmp_path, SAVES), *moment)
  # As when the kill comes while an old checkpoint is being deleted.
  oldest = min((tmp_path / "hvs_sd/checkpoints").iterdir(), key=lambda folder: int(folder.name))
  (oldest / "_CHECKPOINT_METADATA").unlink()
  assert Command(cache, tmp_path, SAVES).finish() == (0, "")
  for stage in STEPS:
    assert_same_run(tmp_path, straight, stage)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
  """The settings that train from tiles, with a worker."""
  folder = tmp_path_factory.mktemp("tiles")
  (folder / "photographs").mkdir()
  for i in range(4):
    Image.fromarray(SyntheticPhotos(4)[i]).save(folder / f"photographs/{i}.png")
  arguments = ("--tiles", "2", "--crop-px", "176")
  images, out = str(folder / "photographs"), str(folder / "tiles")
  assert build(["build", "--images", images, "--out", out, *arguments]) == 0
  data = ("--config.data.synthetic=0", f"--config.data.images={out}", "--config.data.workers=1")
  return ("--config.stage=hvs_sd", *data)


def list_workers(command: Command) -> list[int]:
  """The processes that a command has started, and not yet waited for."""
  file = Path(f"/proc/{command.process.pid}/task/{command.process.pid}/children")
  return [int(pid) for pid in file.read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_outlive_the_notice_but_not_the_run(
  tiles: tuple[str, ...], cache: Path, tmp_path: Path
):
  straight, stopped = tmp_path / "straight", tmp_path / "stopped"
  assert Command(cache, straight, *tiles).finish() == (0, "")

  command = Command(cache, stopped, *tiles)
  for _, step in command.rows():
    if step == 5:  # as a scheduler does that signals every process of a job
      for pid in (*list_workers(command), command.process.pid):
        os.kill(pid, signal.SIGTERM)
  status, errors = command.finish()
  assert (status, errors.count("\n")) == (143, 1), errors

  command = Command(cache, stopped, *tiles)
  for _, step in command.rows():
    if step > 15:
      break
  assert list_workers(command)
  command.process.kill()
  assert command.finish()[0] == -signal.SIGKILL  # returns when no worker holds the pipes any more

  assert Command(cache, stopped, *tiles).finish() == (0, "")
  assert_same_run(stopped, straight, "hvs_sd")


@pytest.mark.slow
def test_run_in_an_object_store_ends_as_the_straight_one(straight: Path, cache: Path, bucket: str):
  """Killed twice and stopped once; SIGKILL leaves the lock, whose process is then known as dead."""
  folder = parse_path(f"{bucket}/kill")
  arguments = (SAVES, "--config.stage=hvs_sd")
  for step, seconds in ((11, 0.0), (20, 0.3)):
    kill_at(Command(cache, folder, *arguments), "hvs_sd", step, seconds)
  command = Command(cache, folder, *arguments)
  for _, step in command.rows():
    if step == 28:
      command.process.terminate()
  status, errors = command.finish()
  assert (status, errors.count("\n")) == (143, 1), errors
  assert Command(cache, folder, *arguments).finish() == (0, "")
  assert_same_run(folder, straight, "hvs_sd")


def test_run_that_is_told_to_end_saves_first(straight: Path, cache: Path, tmp_path: Path):
  command = Command(cache, tmp_path, "--config.stage=hvs_sd")
  for _, step in command.rows():
    if step == 12:
      command.process.terminate()
  status, errors = command.finish()
  steps = len(read_rows(tmp_path, "hvs_sd"))
  assert 12 <= steps < STEPS["hvs_sd"]
  assert (status, errors) == (
    143,
    f"train: stopped by SIGTERM; step {steps} of stage 'hvs_sd' is saved; the same command goes "
    "on from there\n",
  )
  command = Command(cache, tmp_path, "--config.stage=hvs_sd")
  assert next(command.rows()) == ("hvs_sd", steps + 1)
  assert command.finish() == (0, "")
  assert_same_run(tmp_path, straight, "hvs_sd")

"""Helpers of the tests that train a few steps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.training.config import JNDConfig, Stage, StageChoice, TrainConfig
from hvsjnd_jax.training.running_means import Means
from hvsjnd_jax.training.vision_losses import VISION_TERMS
from hvsjnd_jax.training.workdir import restore_weights

STEPS = 4
MakeConfig = Callable[[StageChoice], TrainConfig]


class Reports(list[tuple[Stage, int]]):
  """Collects the steps that are reported, and calls a function at one of them."""

  def __init__(self, at: tuple[Stage, int] | None = None, do: Callable[[], None] | None = None):
    super().__init__()
    self._at, self._do = at, do

  def __call__(self, stage: Stage, step: int, means: Means | None) -> None:
    self.append((stage, step))
    if self._do and (stage, step) == self._at:
      self._do()


def read_weights(workdir: Path, stage: Stage) -> dict[str, np.ndarray]:
  model = JNDModel(hvs_sd_channels=8, rngs=nnx.Rngs(0))
  assert restore_weights(model, workdir, stage)["steps"] == STEPS
  leaves, _ = jax.tree_util.tree_flatten_with_path(nnx.state(model))
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def read_rows(workdir: Path, stage: Stage) -> list[dict[str, float]]:
  """Reads the logged rows without the images a second, which differ from run to run."""
  rows = [json.loads(row) for row in (workdir / stage / "metrics.jsonl").read_text().splitlines()]
  for row in rows:
    row.pop("images_per_second", None)
  return rows


def assert_same_run(workdir: Path, other: Path, stage: Stage) -> None:
  assert read_rows(workdir, stage) == read_rows(other, stage)
  want = read_weights(other, stage)
  for name, leaf in read_weights(workdir, stage).items():
    np.testing.assert_array_equal(leaf, want[name], err_msg=name)


def edit_notes(workdir: Path, stage: Stage, edit: Callable[[dict[str, Any]], None]) -> None:
  """Edits the notes of every checkpoint of a stage, in place."""
  for file in (workdir / stage / "checkpoints").glob("*/notes/metadata"):
    notes = json.loads(file.read_text())
    edit(notes)
    file.write_text(json.dumps(notes))


# The paper's terms, without the models of vision, whose compilation takes long; and the paper's
# generator.
PAPER: dict[str, Any] = {
  "resolution": "native",
  "noise": "lmbda",
  "quality_form": "ms_ssim_gmsd",
  "magnitude_weight": 2.0,
  "quality_weight": 3.0,
  "attention_weight": 5.0,
  "visibility_weight": 7.0,
  **dict.fromkeys([f"{term}_weight" for term in (*VISION_TERMS, "structure", "departure")], 0.0),
}

# The same, for a command.
PAPER_OVERRIDES = tuple(f"--config.jnd.{name}={value}" for name, value in PAPER.items())


def paper_config(**settings: Any) -> JNDConfig:
  """Makes the settings of the paper's terms, with others in their place."""
  return JNDConfig(**PAPER | settings)

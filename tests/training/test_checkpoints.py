"""Checkpoints come back bit for bit, or say what is wrong with them."""

import gc
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvsjnd_jax.runtime.sharding import PyTree, make_mesh, replicate
from hvsjnd_jax.training.checkpoints import CheckpointError, Checkpoints

# When an array cannot be read, Orbax drops its reads of the others, which Python tells of.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _no_litter() -> Iterator[None]:
  """Lets dropped reads end here, and not in some other test."""
  yield
  gc.collect()


def draw(seed: int) -> PyTree:
  """Random numbers, which do not compress: a flipped bit is a flipped bit of one of them."""
  key = jax.random.key(seed)
  return {
    "kernel": jax.random.normal(key, (64, 64)),
    "half": [jax.random.normal(key, (3,), jnp.bfloat16)],
    "count": jnp.asarray(seed, jnp.int32),
  }


def assert_same(tree: PyTree, other: PyTree) -> None:
  for leaf, other_leaf in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
    assert leaf.dtype == other_leaf.dtype
    assert np.asarray(leaf).tobytes() == np.asarray(other_leaf).tobytes()


def list_steps(folder: Path) -> list[int]:
  return sorted(int(path.name) for path in folder.iterdir())


def test_what_was_saved_comes_back(tmp_path: Path):
  with Checkpoints(tmp_path / "c") as checkpoints:
    assert checkpoints.latest_step() is None
    checkpoints.save(3, {}, params=draw(1), ema=draw(2))
    checkpoints.save(5, {}, params=draw(3), ema=draw(4))
  with Checkpoints(tmp_path / "c") as checkpoints:
    assert checkpoints.latest_step() == 5
    restored = checkpoints.restore(5, params=draw(0), ema=draw(0))
    assert_same(restored, {"params": draw(3), "ema": draw(4)})
    assert_same(checkpoints.restore(3, ema=draw(0)), {"ema": draw(2)})


def test_arrays_come_back_where_they_are_wanted(tmp_path: Path):
  mesh = make_mesh(jax.devices())
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, {}, params=draw(1))
    restored = checkpoints.restore(1, params=replicate(draw(0), mesh))
  assert_same(restored, {"params": draw(1)})
  for leaf in jax.tree.leaves(restored):
    assert leaf.sharding.mesh == mesh


def test_notes_come_back(tmp_path: Path):
  notes = {"config": {"seed": 3}, "rate": 0.5}
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, notes, params=draw(1))
  with Checkpoints(tmp_path, read_only=True) as checkpoints:
    assert checkpoints.read_notes(1) == notes


def test_reader_leaves_a_save_that_goes_on_alone(tmp_path: Path):
  (tmp_path / "4.orbax-checkpoint-tmp").mkdir()
  with Checkpoints(tmp_path, read_only=True) as checkpoints:
    assert checkpoints.latest_step() is None
  assert (tmp_path / "4.orbax-checkpoint-tmp").exists()


def test_step_is_saved_once(tmp_path: Path):
  with Checkpoints(tmp_path) as checkpoints:
    for seed in (1, 2):
      checkpoints.save(3, {}, params=draw(seed))
    assert_same(checkpoints.restore(3, params=draw(0)), {"params": draw(1)})


@pytest.mark.parametrize(
  ("keep", "keep_every_steps", "kept"),
  [(1, 0, [8]), (3, 0, [6, 7, 8]), (2, 3, [3, 6, 7, 8]), (1, 4, [4, 8])],
)
def test_newest_stay_and_some_for_good(
  tmp_path: Path, keep: int, keep_every_steps: int, kept: list[int]
):
  with Checkpoints(tmp_path, keep=keep, keep_every_steps=keep_every_steps) as checkpoints:
    for step in range(1, 9):
      checkpoints.save(step, {}, params={"a": jnp.zeros(2)})
  assert list_steps(tmp_path) == kept


def find_data(folder: Path) -> Path:
  """The file that holds the largest array."""
  files = [file for file in folder.glob("params/**/d/*") if file.is_file()]
  return max(files, key=lambda file: file.stat().st_size)


def flip_bit(folder: Path) -> None:
  file = find_data(folder)
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 4
  file.write_bytes(data)


def truncate(folder: Path) -> None:
  file = find_data(folder)
  os.truncate(file, file.stat().st_size // 2)


def spoil(name: str) -> Callable[[Path], None]:
  def write_garbage(folder: Path) -> None:
    assert (folder / name).is_file()
    (folder / name).write_text("garbage")

  return write_garbage


DAMAGES = {
  "flipped bit": (flip_bit, r"params\['kernel'\] is not what was saved"),
  "half a file": (truncate, "params"),
  "missing file": (lambda folder: find_data(folder).unlink(), "params"),
  "missing item": (lambda folder: shutil.rmtree(folder / "params"), "params"),
  "missing hashes": (lambda folder: shutil.rmtree(folder / "sha256"), "sha256"),
  "garbled structure": (spoil("params/_METADATA"), ""),
  "garbled manifest": (spoil("params/manifest.ocdbt"), "manifest"),
  "garbled hashes": (spoil("sha256/metadata"), ""),
}


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
  folder = tmp_path_factory.mktemp("run") / "checkpoints"
  with Checkpoints(folder) as checkpoints:
    for step in (2, 4):
      checkpoints.save(step, {}, params=draw(step), ema=draw(step + 1))
  return folder


@pytest.fixture
def folder(two_steps: Path, tmp_path: Path) -> Path:
  return shutil.copytree(two_steps, tmp_path / "checkpoints")


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_noticed_and_the_whole_checkpoint_offered(
  folder: Path,
  capfd: pytest.CaptureFixture[str],
  damage: Callable[[Path], None],
  reason: str,
):
  damage(folder / "4")
  with Checkpoints(folder) as checkpoints:
    with pytest.raises(CheckpointError) as raised:
      checkpoints.restore(checkpoints.latest_step() or 0, params=draw(0), ema=draw(0))
    # Nothing of the kind keeps the older one from being restored.
    assert_same(checkpoints.restore(2, params=draw(0)), {"params": draw(2)})
  message = str(raised.value)
  assert re.fullmatch(
    rf"{folder}/4 cannot be restored: .*{reason}.*\. "
    "That of step 2 is whole: to go on from there, move 4 elsewhere.",
    message,
  )
  # For a reader: no C++, and no page of it.
  assert "<bound method" not in message
  assert len(message.replace(str(folder), "")) < 400
  assert capfd.readouterr() == ("", "")


def test_offer_is_the_newest_whole_checkpoint(folder: Path):
  with Checkpoints(folder) as checkpoints:
    for step in (6, 8):
      checkpoints.save(step, {}, params=draw(step))
  flip_bit(folder / "8")
  truncate(folder / "6")
  with (
    Checkpoints(folder) as checkpoints,
    pytest.raises(
      CheckpointError, match=r"/8 cannot .* That of step 4 is whole: .* move 6 and 8 elsewhere\."
    ),
  ):
    checkpoints.restore(8, params=draw(0))


def test_no_whole_checkpoint_is_said(folder: Path):
  for step in ("2", "4"):
    flip_bit(folder / step)
  with (
    Checkpoints(folder) as checkpoints,
    pytest.raises(CheckpointError, match="No older one can be restored either: choose another"),
  ):
    checkpoints.restore(4, params=draw(0))


def test_offer_is_followed(folder: Path, tmp_path: Path):
  flip_bit(folder / "4")
  (folder / "4").rename(tmp_path / "elsewhere")
  with Checkpoints(folder) as checkpoints:
    assert checkpoints.latest_step() == 2
    checkpoints.save(4, {}, params=draw(7))
    assert_same(checkpoints.restore(4, params=draw(0)), {"params": draw(7)})


def test_checkpoint_without_notes_is_not_offered(folder: Path):
  flip_bit(folder / "4")
  spoil("notes/metadata")(folder / "2")
  with (
    Checkpoints(folder) as checkpoints,
    pytest.raises(CheckpointError, match="No older one can be restored either"),
  ):
    checkpoints.restore(4, params=draw(0))


def test_notes_that_cannot_be_read_offer_older_ones(folder: Path):
  spoil("notes/metadata")(folder / "4")
  with (
    Checkpoints(folder) as checkpoints,
    pytest.raises(CheckpointError, match=r"notes: .*\. Step 2 has its notes: .* move 4 elsewhere"),
  ):
    checkpoints.read_notes(4)


OTHERS = {
  "shape": ({"kernel": jnp.zeros((8, 4))}, r"kernel: expected float32\[8, 4\], found .*\[64, 64\]"),
  "type": ({"count": jnp.zeros(())}, r"count: expected float32\[\], found int32\[\]"),
  "narrow": ({"count": jnp.zeros((), jnp.int8)}, r"count: expected int8\[\], found int32\[\]"),
  "new name": ({"core": jnp.zeros(3)}, r"core: expected float32\[3\], found nothing"),
  "old name": ({"half": None}, r"half\.0: expected nothing, found bfloat16\[3\]"),
}


@pytest.mark.parametrize(("change", "reason"), OTHERS.values(), ids=OTHERS)
def test_whole_checkpoint_of_another_version_is_not_called_damaged(
  folder: Path, change: PyTree, reason: str
):
  with (
    Checkpoints(folder) as checkpoints,
    pytest.raises(CheckpointError) as raised,
  ):
    checkpoints.restore(4, params=draw(0) | change)
  assert re.fullmatch(
    rf"{folder}/4 cannot be restored: params\.{reason}\. It need not be damaged, but was saved by "
    "another version .*: go on with that version, or choose another --workdir.",
    str(raised.value),
  )


def test_checkpoint_that_a_run_removes_is_not_called_damaged(folder: Path):
  with Checkpoints(folder, read_only=True) as checkpoints:
    step = checkpoints.latest_step() or 0
    shutil.rmtree(folder / str(step))
    with pytest.raises(CheckpointError, match=r"removed while it was read, .*: give the command"):
      checkpoints.restore(step, params=draw(0))


def test_folder_that_orbax_takes_for_a_pattern_is_refused(tmp_path: Path):
  """Orbax would call its saves finished, and restore none of them."""
  with pytest.raises(CheckpointError, match="choose another --workdir"):
    Checkpoints(tmp_path / "run[1]")

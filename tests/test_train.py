"""The training command: what it takes, prints and refuses."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from hvsjnd_jax.data import formats
from hvsjnd_jax.train import main

ROOT = Path(__file__).parents[1]
TINY = ROOT / "configs/tiny.py"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
  """Runs the command: its exit status, and what it printed to each stream."""

  def run(*arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err

  return run


def start(*arguments: str) -> tuple[int, str, str]:
  """Runs the command in a process of its own."""
  finished = subprocess.run(
    [sys.executable, "-m", "hvsjnd_jax.train", *arguments],
    cwd=ROOT,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  return finished.returncode, finished.stdout, finished.stderr


@pytest.fixture
def short(tmp_path: Path) -> tuple[str, ...]:
  """Stage 1 for two steps, which takes no photographs."""
  return (
    f"--config={TINY}",
    f"--workdir={tmp_path}",
    "--config.stage=hvs_sd",
    "--config.log_every_steps=1",
    "--config.hvs_sd.crop_px=16",
    "--config.hvs_sd.num_steps=2",
    "--config.hvs_sd.warmup_steps=0",
  )


def test_stage_is_trained(run: Run, short: tuple[str, ...], tmp_path: Path):
  status, printed, errors = run(*short)
  assert (status, errors) == (0, "")
  first, row, last_row, last = printed.splitlines()
  assert re.fullmatch(
    rf"{tmp_path}: training on 1 \w+ device; the first step of a stage compiles", first
  )
  terms = r"loss \S+  bpp \S+  mse \S+  gradient_norm \S+  learning_rate \S+"
  assert re.fullmatch(rf"hvs_sd 1/2  {terms}", row), "the first step compiles: no rate"
  assert re.fullmatch(rf"hvs_sd 2/2  {terms}  \S+ images/s  0:00 left", last_row)
  assert last == f"{tmp_path}: stage hvs_sd is trained, 2 steps"
  assert (tmp_path / "hvs_sd/checkpoints/2").is_dir()

  assert run(*short) == (0, f"{first}\n{last}\n", ""), "nothing is left to do"


def test_damaged_checkpoint_is_named_in_the_last_line(
  run: Run, short: tuple[str, ...], tmp_path: Path
):
  run(*short)
  folder = tmp_path / "hvs_sd/checkpoints/2"
  files = [file for file in folder.glob("ema/**/d/*") if file.is_file()]
  max(files, key=lambda file: file.stat().st_size).unlink()
  # In a process of its own: what its end brings to light counts as well.
  status, _, errors = start(*short, "--config.hvs_sd.num_steps=3")
  assert status == 2
  # Threads of Orbax's now and then have their say before.
  assert re.fullmatch(rf"train: {folder} cannot be restored: .*", errors.splitlines()[-1])


@pytest.mark.parametrize(
  ("arguments", "reason"),
  [
    (["--config.data.synthetic=0"], "config.data.images must be a folder of photographs"),
    (["--config.data.synthetic=0", "--config.data.images=/nowhere"], "file or folder: /nowhere"),
    (["--config.data.images=/nowhere"], "one of the three), got '/nowhere'"),
    (["--config.learning_rate=1"], "learning_rate"),
    (["--config.hvs_sd.learning=1"], "learning"),
    (["--config.hvs_sd.crop_px=17"], "a multiple of 8, at least 8, got 17"),
    (["--config.hvs_sd.num_steps=many"], "num_steps"),
    (["--config.jnd.accumulation_steps=2"], "a divisor of batch_size, 1, got 2"),
    (["--config.seed=-1"], "config.seed must be in [0, 2^32), got -1"),
    (["--config.stage=all"], "all"),
    (["--config.compute_dtype=float16"], "float16"),
    (["--config.jnd.quality_domain=feature"], "<perceptual|pixels>"),
    (["--config=nowhere.py"], "nowhere.py"),
    ([f"--workdir={TINY}"], "Not a directory"),
    (["--config.stage=jnd"], "no checkpoint of stage 'hvs_sd'"),
  ],
)
def test_what_cannot_be_done_is_said(run: Run, tmp_path: Path, arguments: list[str], reason: str):
  status, _, errors = run(f"--config={TINY}", f"--workdir={tmp_path}", *arguments)
  assert status == 2
  assert re.fullmatch(rf"train: .*{re.escape(reason)}.*\n", errors, re.DOTALL)


def test_limit_of_megapixels(
  run: Run, short: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # restored afterwards
  monkeypatch.setattr(formats, "_most_pixels", None)
  (tmp_path / "photos").mkdir()
  Image.new("RGB", (200, 400)).save(tmp_path / "photos/big.png")
  photos = ("--config.data.synthetic=0", f"--config.data.images={tmp_path}/photos")
  status, _, errors = run(*short, *photos, "--max-megapixels=0.079")
  assert status == 2
  limit = r"too large to be safe: .*80000 pixels.*; --max-megapixels raises the limit.*"
  assert re.fullmatch(rf"train: .*big\.png: {limit}", errors.splitlines()[-1])
  status, _, errors = run(*short, *photos, "--max-megapixels=0.081")
  assert (status, errors) == (0, "")
  assert (tmp_path / "hvs_sd/sheets/0000002.png").exists()


def test_limit_below_the_sheet_s_letters(
  run: Run, short: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
  """Pillow holds the text that it draws to the limit of the images that it opens."""
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
  monkeypatch.setattr(formats, "_most_pixels", None)
  status, _, errors = run(*short, "--max-megapixels=0.0001")
  assert (status, errors) == (0, "")


def test_export_needs_a_trained_generator(run: Run, tmp_path: Path):
  status, printed, errors = run("export", f"--workdir={tmp_path}", f"--out={tmp_path}/w")
  assert (status, printed) == (2, "")
  assert errors.startswith(f"train: no checkpoint of stage 'jnd' in {tmp_path}; train it first")


@pytest.mark.parametrize(
  ("arguments", "reason"),
  [
    ([], "--config is needed"),
    (["--workdir=d"], "--config is needed"),
    (["--config=c.py"], "--workdir is needed"),
    (["export", "--workdir=d"], "--out is needed"),
    (["export", "--out=w"], "--workdir is needed"),
    (["export", "--workdir=d", "--out=w", "--level=2"], "at most 1, got 2"),
    (["aot", "--config=c.py"], "--topology is needed"),
    (["aot", "--topology=v5e:2x2"], "--config is needed"),
    (["aot", "--config=c.py", "--topology=v5e:2x2", "--slices=0"], "from 1 to 256, got 0"),
    (["--config=c.py", "--workdir=d", "--slices=2"], "--slices is of no use with training"),
    (["sing", "--workdir=d"], "'sing'"),
    (["--workdir=d", "--config=c.py", "--config.seed", "3"], "--config.seed=value, in one word"),
    (["--workdir=d", "--config=c.py", "--seed=3"], "--seed=3 (overrides are --config.name=value)"),
    (["--workdir=d", "--config=c.py", "--max-megapixels=0"], "expected a number above 0"),
    (
      ["export", "--workdir=d", "--out=w", "--max-megapixels=9"],
      "--max-megapixels is of no use with export",
    ),
    (["--workdir=d", "--config=c.py", "--multi"], "unknown arguments: --multi"),
  ],
)
def test_command_line_is_checked(
  arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
):
  with pytest.raises(SystemExit, match="2"):
    main(arguments)
  assert reason in capsys.readouterr().err


def test_help_shows_how(capsys: pytest.CaptureFixture[str]):
  with pytest.raises(SystemExit, match="0"):
    main(["--help"])
  printed = capsys.readouterr().out
  for command in (
    "--config configs/default.py --workdir D --config.data.images=PHOTOS",
    "export --workdir D --out W",
    "aot --config configs/tpu_pod.py --topology v5e:16x16",
  ):
    assert f"\n  python -m hvsjnd_jax.train {command}\n" in printed
  for option in ("--multihost", "--topology NAME", "--workdir DIR", "--max-megapixels M"):
    assert option in printed


def test_no_other_hosts_to_join(tmp_path: Path):
  # In a process of its own: hosts are joined before JAX is used.
  status, printed, errors = start("--multihost", f"--config={TINY}", f"--workdir={tmp_path}")
  assert (status, printed) == (2, "")
  assert re.fullmatch(r"train: --multihost: .*\n", errors)

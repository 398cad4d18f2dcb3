"""Images on which a run is killed: named, tried again by themselves, and then left out."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax import eval as command
from hvsjnd_jax.cli.attempts import count_killed, read_killed
from hvsjnd_jax.data.images import Picture, read_picture
from hvsjnd_jax.runtime.memory import MemoryLimit
from tests.support.evaluating import photos, report, run

__all__ = ["photos", "report", "run"]  # fixtures

ROOT = Path(__file__).parents[2]

# Runs the command, but is killed in the midst of the images of a height.
DIE = """
import os, signal, sys, time
from hvsjnd_jax import eval as command
evaluate = command.evaluate
def evaluate_or_die(analyzer, picture, **options):
  if len(picture.pixels) == 20:
    time.sleep(0.5)  # in which the next image is read
    os.kill(os.getpid(), signal.SIGKILL)
  return evaluate(analyzer, picture, **options)
command.evaluate = evaluate_or_die
sys.exit(command.main(sys.argv[1:]))
"""


@pytest.fixture
def deadly(photos: Path) -> Path:
  """An image that comes first, and kills the runs of `DIE`."""
  pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
  Image.fromarray(pixels).save(photos / "a/a.png")
  return photos / "a/a.png"


def start(folder: Path, *arguments: object) -> tuple[int, str, str]:
  done = subprocess.run(
    [sys.executable, "-c", DIE, *map(str, arguments)],
    cwd=folder,
    env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    capture_output=True,
    text=True,
  )
  return done.returncode, done.stdout, done.stderr


def test_run_does_not_die_on_an_image_forever(
  photos: Path,
  deadly: Path,
  weights_folder: Path,
  tmp_path: Path,
  run: Callable[..., int],
  capsys: pytest.CaptureFixture[str],
):
  arguments = ("--path", photos, "--model", weights_folder, "--jsonl", "out.jsonl")
  status, stdout, _ = start(tmp_path, *arguments)
  assert (status, stdout.count("Images Path is")) == (-signal.SIGKILL, 0)

  status, stdout, stderr = start(tmp_path, *arguments)
  assert (status, stdout.count("Images Path is")) == (-signal.SIGKILL, 2)
  said = "the last run was killed while this image was computed; trying it again"
  assert stderr == f"eval: {deadly}: {said}\n"

  # The next image had been read ahead when the first run was killed, and is innocent.
  status, stdout, stderr = start(tmp_path, *arguments)
  assert (status, stdout.count("Images Path is")) == (1, 1)
  assert f"eval: {photos}/a/c.png: {said}\n" in stderr
  reason = "left out: 2 runs were killed while it was computed; --retry tries it again"
  assert f"eval: {deadly}: {reason}\n" in stderr
  assert stderr.endswith("eval: 1 of 4 files could not be used\n")
  assert "Mean over 3 images" in stdout
  records = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
  assert records[1] == {"path": str(deadly), "error": reason}

  assert run(*arguments[:2], "--jsonl", "out.jsonl") == 1
  assert f"eval: {deadly}: {reason}\n" in capsys.readouterr().err
  assert run(*arguments[:2], "--jsonl", "out.jsonl", "--retry") == 0
  assert "Mean over 4 images" in capsys.readouterr().out
  assert run(*arguments[:2], "--jsonl", "straight.jsonl") == 0
  assert Path("out.jsonl").read_bytes() == Path("straight.jsonl").read_bytes()
  assert {file.name for file in tmp_path.glob("*.jsonl*")} == {"out.jsonl", "straight.jsonl"}


def test_image_is_noted_before_it_is_read_and_not_after_the_end(
  photos: Path, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
):
  noted: list[str] = []

  def read(path: Path) -> Picture:
    noted.append(Path("out.jsonl.trying").read_text().splitlines()[-1])
    if path.name == "d.bmp":
      raise KeyboardInterrupt
    return read_picture(path)

  monkeypatch.setattr(command, "find_photographs", lambda *_, **__: photographs)
  photographs = command.Photographs([photos / "b.png", photos / "d.bmp"], read)
  assert run("--jsonl", "out.jsonl") == 130
  assert noted == [json.dumps(str(photos / name)) for name in ("b.png", "d.bmp")]
  assert [file.name for file in Path().glob("out.jsonl*")] == ["out.jsonl"]


def test_only_images_without_a_record_are_suspect(tmp_path: Path):
  file = tmp_path / "out.jsonl"
  (tmp_path / "out.jsonl.trying").write_text('"a"\n"b"\n"c"\n')
  (tmp_path / "out.jsonl.trying3").write_text('"d"\n"e')  # torn, and so not yet tried
  for _ in range(2):
    assert count_killed(file, done={"a"}, ended={"a", "b"}) == {"c": 1, "d": 1}
  (tmp_path / "out.jsonl.trying").write_text('"c"\n')
  assert count_killed(file, done={"d"}, ended=()) == {"c": 2}
  assert read_killed(file) == {"c": 2}
  assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl.killed"]


def test_image_that_ends_in_an_error_kills_no_run(
  photos: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
):
  (photos / "broken.png").touch()
  for _ in range(3):
    assert run("--path", photos, "--jsonl", "out.jsonl") == 1
    assert "killed" not in capsys.readouterr().err


def test_image_too_large_for_the_container_is_not_decoded(
  photos: Path,
  run: Callable[..., int],
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  Image.new("RGB", (5000, 4000)).save(photos / "large.png")
  monkeypatch.setattr(
    "hvsjnd_jax.cli.image_loop.find_memory_limit",
    lambda: MemoryLimit(10**9, "this container allows"),
  )
  monkeypatch.setattr("hvsjnd_jax.cli.image_loop.measure_memory", lambda: 2 * 10**8)
  assert run("--path", photos, "--window", "128x128") == 1
  # 0.2 GB are taken, 0.02 by the window, and 1.6 by 80 bytes a pixel.
  wasteful, *lines = capsys.readouterr().err.splitlines()
  assert wasteful.startswith("eval: --window 128x128: computes")
  assert lines == [
    f"eval: {photos}/large.png: 5000x4000 pixels need about 2.0 GB of memory, and this container "
    "allows 1.0 GB; reduce the image",
    "eval: 1 of 4 files could not be used",
  ]

"""Standard output and error: terminals, pipes, full disks, odd names."""

import io
import json
import os
import pty
import shutil
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvsjnd_jax import eval as command
from tests.support.evaluating import photos, run

__all__ = ["photos", "run"]  # fixtures

ROOT = Path(__file__).parents[2]


def test_control_c(
  run: Callable[..., int],
  photos: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  def interrupt(*args: object, **options: object) -> None:
    raise KeyboardInterrupt

  monkeypatch.setattr(command, "evaluate", interrupt)
  assert run("--path", photos) == 130
  assert capsys.readouterr().err == "eval: interrupted\n"


def test_file_name_of_any_bytes(
  run: Callable[..., int], photos: Path, monkeypatch: pytest.MonkeyPatch
):
  name = os.fsdecode(b"\xff\xe9.png")
  shutil.move(photos / "b.png", photos / name)
  (photos / os.fsdecode(b"\xfe.png")).touch()
  output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
  monkeypatch.setattr(sys, "stdout", output)
  assert run("--path", photos, "--json", "report.json", "--save", "out") == 1
  assert rb"photos/\udcff\udce9.png" in output.buffer.getvalue()
  paths = [image["path"] for image in json.loads(Path("report.json").read_text())["images"]]
  assert str(photos / name) in paths


def _start(folder: Path, *arguments: object, **options: Any) -> subprocess.Popen[str]:
  return subprocess.Popen(
    [sys.executable, "-m", "hvsjnd_jax.eval", *map(str, arguments)],
    cwd=folder,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    text=True,
    **options,
  )


def test_command_on_a_terminal(photos: Path, weights_folder: Path, tmp_path: Path):
  """From another folder, with results in a pipe and the progress bar on a terminal."""
  terminal, end = pty.openpty()
  termios.tcsetwinsize(end, (24, 80))
  arguments = ("--path", "photos", "--model", weights_folder)
  process = _start(tmp_path, *arguments, stdout=subprocess.PIPE, stderr=end)
  stdout, _ = process.communicate()
  os.close(end)
  with open(terminal, "rb", buffering=0) as file:
    bar = file.read(65536).decode()
  assert process.returncode == 0
  assert "100%" in bar
  assert "3/3" in bar
  assert stdout.count("Images Path is: photos/") == 3
  assert "%" not in stdout


@pytest.mark.parametrize("sink", ["closed pipe", "full disk"])
def test_output_that_cannot_be_written(
  photos: Path, weights_folder: Path, tmp_path: Path, sink: str
):
  arguments = ("--path", photos / "b.png", "--model", weights_folder)
  if sink == "closed pipe":  # what `| head -0` leaves behind
    reader, writer = os.pipe()
    os.close(reader)
    wanted = (141, "")
  else:
    writer = os.open("/dev/full", os.O_WRONLY)
    wanted = (2, "eval: [Errno 28] No space left on device\n")
  process = _start(tmp_path, *arguments, stdout=writer, stderr=subprocess.PIPE)
  os.close(writer)
  _, stderr = process.communicate()
  assert (process.returncode, stderr) == wanted


def _read_words(stdout: str) -> list[str]:
  return [line for line in stdout.splitlines() if line.startswith(("Images Path is", "Mean over"))]


@pytest.mark.parametrize(
  "closed",
  ["2>&- >&-", *(pytest.param(one, marks=pytest.mark.slow) for one in ("2>&-", ">&-", "<&-"))],
)
def test_closed_stream_changes_nothing_else(
  photos: Path, weights_folder: Path, tmp_path: Path, closed: str
):
  (photos / "broken.png").touch()
  line = f"exec {sys.executable} -m hvsjnd_jax.eval --path photos --model {weights_folder}"
  done = subprocess.run(
    ["sh", "-c", f"{line} --save out --json out.json {closed}"],
    cwd=tmp_path,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1
  assert len(_read_words(done.stdout)) == (0 if closed.endswith(" >&-") or closed == ">&-" else 4)
  assert done.stderr.count("\n") == (0 if "2>&-" in closed else 2)
  assert len(json.loads((tmp_path / "out.json").read_text())["images"]) == 3
  assert len(list((tmp_path / "out").rglob("*.png"))) == 3 * 5


def test_report_on_stdout_stands_alone(
  run: Callable[..., int], photos: Path, capsys: pytest.CaptureFixture[str]
):
  assert run("--path", photos, "--json", "-") == 0
  stdout, stderr = capsys.readouterr()
  assert len(json.loads(stdout)["images"]) == 3
  assert len(_read_words(stderr)) == 4
  assert not Path("-").exists()


@pytest.mark.parametrize(
  ("option", "said"),
  [("--jsonl", "--jsonl -: expected a name"), ("--save", "-: expected the name of a folder")],
)
def test_stdout_is_for_the_report_alone(
  run: Callable[..., int], photos: Path, capsys: pytest.CaptureFixture[str], option: str, said: str
):
  assert run("--path", photos, option, "-") == 2
  assert capsys.readouterr().err == f"eval: {said}; only --json can go to standard output\n"

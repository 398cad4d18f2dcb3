"""Runs that are stopped, and disks that fill up: what is there afterwards is whole."""

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax import weights
from hvsjnd_jax.cli.outputs import write_json
from hvsjnd_jax.data import __main__, tfds_writer
from hvsjnd_jax.data.images import Picture, read_picture
from hvsjnd_jax.eval import main
from hvsjnd_jax.model.jnd_model import JNDModel

ROOT = Path(__file__).parents[2]
SIZE = (16, 24)
IMAGES = 40  # more than are done before a signal arrives
OUTPUTS = (
  *("original.png", "distorted.png", "jnd.png", "jnd.npy", "attention.png", "sheet.png"),
  "thumbnail.jpg",
)
TIMEOUT_SECONDS = 200


@pytest.fixture
def photos(tmp_path: Path) -> Path:
  folder = tmp_path / "photos"
  folder.mkdir()
  rng = np.random.default_rng(0)
  for index in range(IMAGES):
    pixels = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f"{index:02d}.png")
  (folder / "notes.txt").touch()
  return folder


@contextmanager
def disk_of(most: int) -> Iterator[None]:
  """No file may grow beyond so many bytes: a disk that fills up in its midst.

  A file that pytest itself writes to, such as a log of the tests, has the limit too: so it holds
  for a block, and not for a whole test.
  """
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def count_whole(folder: Path) -> dict[str, int]:
  """How many files each image has, all of which can be read; by name."""
  counts: dict[str, int] = {}
  for file in folder.glob("*"):
    if file.suffix == ".npy":
      assert np.load(file).shape == (*SIZE, 3)
    else:
      with Image.open(file) as image:
        image.load()
    stem, output = file.name.split("_")
    assert output in OUTPUTS
    counts[stem] = counts.get(stem, 0) + 1
  return counts


# In a process that was started in the background, Python leaves SIGINT ignored.
RUN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from hvsjnd_jax.eval import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
  ("number", "after"), [(signal.SIGINT, 0), (signal.SIGINT, 4), (signal.SIGKILL, 4)]
)
def test_images_that_were_done_are_whole(
  photos: Path, weights_folder: Path, tmp_path: Path, number: signal.Signals, after: int
):
  out, report = tmp_path / "out", tmp_path / "report.json"
  arguments = ("--path", photos, "--model", weights_folder, "--save", out, "--json", report)
  process = subprocess.Popen(
    [sys.executable, "-c", RUN, *map(str, arguments)],
    cwd=ROOT,
    env=os.environ | {"PYTHONUNBUFFERED": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  deadline = threading.Timer(TIMEOUT_SECONDS, process.kill)
  deadline.start()
  assert process.stdout is not None
  seen = 0
  for line in process.stdout:  # the first is about the note that was passed over
    seen += line.startswith("Images Path is")
    if seen == after:
      process.send_signal(number)
      break
  _, stderr = process.communicate()
  deadline.cancel()
  assert not report.exists()
  # One image may be told of and not yet saved.
  least = max(seen - 1, 0)
  if number == signal.SIGINT:
    assert (process.returncode, stderr) == (130, "eval: interrupted\n")
    counts = count_whole(out).values()
    assert set(counts) <= {len(OUTPUTS)}
    assert least <= len(counts) < IMAGES
  else:  # another one may be saved in part
    assert (process.returncode, stderr) == (-signal.SIGKILL, "")
    for partial in out.glob("*.partial"):
      partial.unlink()
    counts = sorted(count_whole(out).values(), reverse=True)
    assert set(counts[:-1]) <= {len(OUTPUTS)}
    assert least - 1 <= counts.count(len(OUTPUTS)) < IMAGES


def test_disk_that_fills_up_while_pictures_are_saved(
  photos: Path,
  weights_folder: Path,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
):
  out = tmp_path / "out"
  arguments = ("--path", photos, "--model", weights_folder, "--save", out)
  with disk_of(10_000):  # a sheet is larger
    assert main([*map(str, arguments)]) == 2
  assert capsys.readouterr().err == f"eval: {out}/00: cannot be written: File too large\n"
  assert count_whole(out) == {"00": OUTPUTS.index("sheet.png")}


def test_report_on_a_full_disk_leaves_the_former_one(
  photos: Path,
  weights_folder: Path,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
):
  report = tmp_path / "report.json"
  report.write_text("{}\n")
  arguments = ("--path", photos / "00.png", "--model", weights_folder, "--json", report)
  with disk_of(200):
    assert main([*map(str, arguments)]) == 2
  assert capsys.readouterr().err == f"eval: {report}: cannot be written: File too large\n"
  assert report.read_text() == "{}\n"
  assert not list(tmp_path.glob("*.partial"))


def test_weights_on_a_full_disk_leave_nothing(tmp_path: Path, model: JNDModel):
  refused = pytest.raises(weights.WeightsError, match="w: cannot be written: File too large")
  with refused, disk_of(10**6):
    weights.save(tmp_path / "w", model, provenance={})
  assert not list(tmp_path.iterdir())


def test_read_only_folder_is_refused_before_the_work(
  photos: Path,
  weights_folder: Path,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  monkeypatch.setattr(os, "access", lambda *_: False)  # which root is not refused by chmod
  for option, name in (("--save", "out"), ("--json", "out/report.json")):
    arguments = ("--path", photos, "--model", weights_folder, option, tmp_path / name)
    assert main([*map(str, arguments)]) == 2
    stdout, stderr = capsys.readouterr()
    assert "Images Path is" not in stdout
    assert stderr == f"eval: {tmp_path}/out: a folder that cannot be written to\n"


def test_device_is_written_to_and_a_link_s_target_replaced(tmp_path: Path):
  pipe, link = tmp_path / "pipe", tmp_path / "link.json"
  os.mkfifo(pipe)
  link.symlink_to("target.json")
  with ThreadPoolExecutor(max_workers=1) as thread:
    read = thread.submit(pipe.read_text)
    write_json(pipe, {"a": 1})
    assert json.loads(read.result()) == {"a": 1}
  write_json(link, {"a": 2})
  assert json.loads((tmp_path / "target.json").read_text()) == {"a": 2}
  assert pipe.is_fifo()
  assert link.is_symlink()
  assert {file.name for file in tmp_path.iterdir()} == {"pipe", "link.json", "target.json"}


def test_interrupted_build_of_a_dataset_leaves_nothing(
  photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
  reads = itertools.count()

  def read(path: Path) -> Picture:
    if next(reads) == 3:
      raise KeyboardInterrupt
    return read_picture(path)

  monkeypatch.setattr(tfds_writer, "read_picture", read)
  (photos / "notes.txt").unlink()
  before = set(tmp_path.iterdir())
  assert __main__.main(["build", "--images", str(photos), "--out", str(tmp_path / "out")]) == 130
  assert capsys.readouterr().err == "data: interrupted\n"
  assert set(tmp_path.iterdir()) == before

"""Evaluating a large corpus: shared by processes, killed, gone on with, and the same result."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax import weights
from hvsjnd_jax.cli import saved_images
from hvsjnd_jax.cli.command import UsageError
from hvsjnd_jax.cli.jsonl import gather
from hvsjnd_jax.data.__main__ import main as build
from hvsjnd_jax.eval import main
from hvsjnd_jax.model.jnd_model import JNDModel

ROOT = Path(__file__).parents[2]
IMAGES = 24
TIMEOUT_SECONDS = 200
BROKEN = "photos/b/broken.png"
OPTIONS = ("--lmbda", 10, "--jsonl", "out.jsonl", "--save", "out", "--outputs", "jnd.npy")


@pytest.fixture(scope="module")
def weights_folder(tmp_path_factory: pytest.TempPathFactory, model: JNDModel) -> Path:
  folder = tmp_path_factory.mktemp("weights") / "w"
  weights.save(folder, model, provenance={})
  return folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A folder with `photos`: images of several sizes in nested folders, and a file that is none."""
  folder = tmp_path_factory.mktemp("tree")
  for index in range(IMAGES):
    file = folder / "photos" / "ab"[index % 2] / str(index % 3) / f"{index:02d}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(index)
    Image.fromarray(rng.integers(0, 256, (16 + index, 40, 3), np.uint8)).save(file)
  (folder / BROKEN).touch()
  return folder


@pytest.fixture(scope="module")
def straight(tree: Path, weights_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """The folder of the one process that nobody disturbs."""
  folder = tmp_path_factory.mktemp("straight")
  shutil.copytree(tree, folder, dirs_exist_ok=True)
  with contextlib.chdir(folder):
    assert run(weights_folder, "--json", "out.json") == 1
  return folder


def run(weights_folder: Path, *arguments: object) -> int:
  options = ("--path", "photos", "--model", weights_folder, *OPTIONS)
  return main([*map(str, options), *map(str, arguments)])


@pytest.fixture
def fresh(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  """A working folder with the tree alone."""
  shutil.copytree(tree, tmp_path, dirs_exist_ok=True)
  monkeypatch.chdir(tmp_path)


@pytest.fixture
def finished(straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  """A working folder with the tree and all that the undisturbed run wrote."""
  shutil.copytree(straight, tmp_path, dirs_exist_ok=True)
  monkeypatch.chdir(tmp_path)


def start_two(weights_folder: Path, *arguments: object) -> list[subprocess.Popen[str]]:
  """Starts two processes of two devices each in the working folder, as SLURM would."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  environment = {
    "PYTHONPATH": str(ROOT),
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "2",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # as here: for the same bits
    "SLURM_JOB_ID": "1",
    "SLURM_STEP_NODELIST": "127.0.0.1",
    "SLURM_NTASKS": "2",
    "JAX_COORDINATOR_PORT": str(port),
  }
  options = ("--path", "photos", "--model", weights_folder, *OPTIONS, "--multihost", *arguments)
  return [
    subprocess.Popen(
      [sys.executable, "-m", "hvsjnd_jax.eval", *map(str, options)],
      env=os.environ | environment | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]


def finish(processes: list[subprocess.Popen[str]]) -> tuple[list[int], list[str], list[str]]:
  """Waits for all; exit status, stdout and stderr of each."""
  try:
    written = [process.communicate(timeout=TIMEOUT_SECONDS) for process in processes]
  finally:
    for process in processes:
      process.kill()
  stdout, stderr = zip(*written, strict=True)
  return [process.returncode for process in processes], list(stdout), list(stderr)


def read_lines(file: str = "out.jsonl") -> list[dict[str, Any]]:
  return [json.loads(line) for line in Path(file).read_text().splitlines()]


def read_done(file: str) -> set[str]:
  """The images that have a whole line with scores, in a file that may be torn."""
  done = re.findall(r'^{"path": "(.*?)", "height".*}$', Path(file).read_text(), re.MULTILINE)
  assert len(done) == len(set(done))
  return set(done)


def list_computed(stdout: str) -> set[str]:
  head = "Images Path is: "
  lines = [line.removeprefix(head) for line in stdout.splitlines() if line.startswith(head)]
  assert len(lines) == len(set(lines))
  return set(lines)


def assert_as_straight(straight: Path) -> None:
  """All files are there, with the bytes of the run that nobody disturbed."""
  for file in straight.rglob("*.*"):
    assert Path(file.relative_to(straight)).read_bytes() == file.read_bytes(), file
  assert not list(Path().glob("out.jsonl.*"))


def test_line_holds_an_image_s_scores(straight: Path):
  settings, *records = read_lines(str(straight / "out.jsonl"))
  assert settings["settings"]["window"] == [128, 128]
  report = json.loads((straight / "out.json").read_text())
  assert [r for r in records if "error" not in r] == report["images"]
  assert (
    [r for r in records if "error" in r]
    == report["errors"]
    == [{"path": BROKEN, "error": "not an image that Pillow can read"}]
  )
  assert list(records[0]) == ["path", "height", "width", "lmbda", *report["mean"], "saved"]
  first = records[0]
  assert (first["path"], first["height"]) == ("photos/a/0/00.png", 16)
  assert np.load(straight / f"{first['saved']}_jnd.npy").shape == (16, 40, 3)
  assert len(records) == IMAGES + 1


def test_two_processes_write_what_one_does(straight: Path, fresh: None, weights_folder: Path):
  status, stdout, stderr = finish(start_two(weights_folder, "--json", "out.json"))
  assert status == [1, 0], stderr  # the broken file is the first one's
  shares = [list_computed(text) for text in stdout]
  assert len(shares[0]) == len(shares[1]) == IMAGES / 2
  assert not shares[0] & shares[1]
  assert f"Mean over {IMAGES} images" in stdout[0]
  assert "Mean over" not in stdout[1]
  assert_as_straight(straight)


def test_killed_processes_are_gone_on_with_by_one(
  straight: Path, fresh: None, weights_folder: Path, capsys: pytest.CaptureFixture[str]
):
  processes = start_two(weights_folder)
  part = Path("out.jsonl.part1")
  deadline = time.monotonic() + TIMEOUT_SECONDS
  while not (part.exists() and read_done(str(part))):
    assert time.monotonic() < deadline
    time.sleep(0.005)
  for process in processes:
    process.kill()
  assert finish(processes)[0] == [-signal.SIGKILL] * 2
  done = read_done("out.jsonl") | read_done(str(part))
  assert 1 <= len(done) < IMAGES

  assert run(weights_folder, "--json", "out.json") == 1
  stdout = capsys.readouterr().out
  assert f"out.jsonl: {len(done)} of {IMAGES + 1} images are done already\n" in stdout
  computed = list_computed(stdout)
  assert not computed & done
  assert len(computed | done) == IMAGES
  assert_as_straight(straight)


def test_torn_line_is_done_again(
  straight: Path, finished: None, weights_folder: Path, capsys: pytest.CaptureFixture[str]
):
  text = Path("out.jsonl").read_text()
  Path("out.jsonl").write_text(text[: text.rindex('"psnr"')])
  assert run(weights_folder) == 1
  assert list_computed(capsys.readouterr().out) == {"photos/b/2/23.png"}
  assert_as_straight(straight)


def test_file_that_was_mended_is_tried_again(
  finished: None, weights_folder: Path, capsys: pytest.CaptureFixture[str]
):
  before = read_lines()
  shutil.copy("photos/a/0/00.png", BROKEN)
  assert run(weights_folder) == 0
  assert list_computed(capsys.readouterr().out) == {BROKEN}
  after = read_lines()
  mended = [record for record in after if record not in before]
  assert [record["path"] for record in mended] == [BROKEN]
  assert len(after) == len(before)


def test_error_beside_scores_does_not_count(
  straight: Path, finished: None, weights_folder: Path, capsys: pytest.CaptureFixture[str]
):
  """As where the process that failed on the image left a part, and another one went on."""
  settings, record, *_ = read_lines()
  error = {"path": record["path"], "error": "as it was"}
  Path("out.jsonl.part7").write_text("".join(f"{json.dumps(row)}\n" for row in (settings, error)))
  assert run(weights_folder) == 1
  assert list_computed(capsys.readouterr().out) == set()
  assert_as_straight(straight)


def test_line_is_behind_the_pictures(
  straight: Path, fresh: None, weights_folder: Path, monkeypatch: pytest.MonkeyPatch
):
  with monkeypatch.context() as patched:
    written: list[Path] = []

    def fail_at_last(file: Path, values: np.ndarray) -> None:
      written.append(file)
      if len(written) == 3:
        raise OSError(28, "No space left on device")
      np.save(file, values)

    patched.setattr(saved_images, "write_npy", fail_at_last)
    assert run(weights_folder) == 2
  assert len(read_done("out.jsonl")) == 2
  assert run(weights_folder, "--json", "out.json") == 1
  assert_as_straight(straight)


OTHER = {
  "lmbda": (("--lmbda", 9), "lmbda 10.0, not 9.0"),
  "seed": (("--seed", 1), "seed 0, not 1"),
  "metrics": (("--metrics", "psnr,gmsd"), r'metrics \["psnr"\], not \["psnr", "gmsd"\]'),
  "window": (("--window", "128x136"), r"window \[128, 128\], not \[128, 136\]"),
  "weights": (("--model", "default"), r'weights "\w{64}", not "\w{64}"'),
  "resolution": (("--resolution", "native"), 'resolution "reference", not "native"'),
  "attention": (("--attention-layer", "feature"), 'attention "reconstruction", not "feature"'),
  "dtype": (("--dtype", "bfloat16"), 'dtype "float32", not "bfloat16"'),
  "outputs": (
    ("--outputs", "sheet.png,jnd.npy"),
    r'outputs \["jnd.npy"\], not \["jnd.npy", "sheet.png"\]',
  ),
}


@pytest.mark.parametrize(("arguments", "difference"), OTHER.values(), ids=OTHER)
def test_other_settings_are_refused(
  finished: None,
  weights_folder: Path,
  capsys: pytest.CaptureFixture[str],
  arguments: tuple[object, ...],
  difference: str,
):
  before = Path("out.jsonl").read_bytes()
  assert run(weights_folder, *arguments) == 2
  advice = "give the same settings, or another file\n"
  assert re.fullmatch(
    f"eval: out.jsonl: written with {difference}; {advice}", capsys.readouterr().err
  )
  assert Path("out.jsonl").read_bytes() == before


def test_other_images_are_refused(
  finished: None, weights_folder: Path, capsys: pytest.CaptureFixture[str]
):
  arguments = [*map(str, OPTIONS), "--model", str(weights_folder)]
  assert main(["--path", "photos/a", *arguments]) == 2
  assert capsys.readouterr().err == (
    "eval: out.jsonl: holds images that are not among those given (12), such as photos/b/0/03.png; "
    "give the same ones, and more if you like, or another file\n"
  )


def test_pictures_elsewhere_are_refused(
  finished: None, weights_folder: Path, capsys: pytest.CaptureFixture[str]
):
  assert run(weights_folder, "--save", "elsewhere") == 2
  # One whose name differs in the extension only, and from now on all names keep theirs.
  Image.new("RGB", (40, 16)).save("photos/a/0/00.bmp")
  assert run(weights_folder) == 2
  head = "eval: out.jsonl: pictures of photos/a/0/00.png: written to out/a/0/00, not"
  advice = "give the same --save and images, or another file"
  assert capsys.readouterr().err.splitlines() == [
    f"{head} elsewhere/a/0/00; {advice}",
    f"{head} out/a/0/00.png; {advice}",
  ]


@pytest.mark.parametrize("text", ["", "notes\n", "[1]\n", '{"path": "x"}\n'])
def test_another_s_file_is_left_alone(
  finished: None, weights_folder: Path, capsys: pytest.CaptureFixture[str], text: str
):
  Path("out.jsonl").write_text(text)
  assert run(weights_folder) == 2
  assert capsys.readouterr().err == (
    "eval: out.jsonl: exists, and holds no records; give another name\n"
  )
  assert Path("out.jsonl").read_text() == text


def test_missing_lines_are_told(finished: None):
  """As where each process has a disk of its own."""
  with pytest.raises(
    UsageError, match=r"no line for 1 of 2 .* such as x.png; it must lie in a fol"
  ):
    gather(Path("out.jsonl"), [BROKEN, "x.png"])


def test_processes_end_together_where_one_cannot_go_on(fresh: None, weights_folder: Path):
  Path("out.jsonl").write_text("notes\n")
  status, _, stderr = finish(start_two(weights_folder))
  assert status[0] == 2
  assert status[1] != 0
  assert "eval: out.jsonl: exists, and holds no records" in stderr[0]


@pytest.fixture
def dataset(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  monkeypatch.chdir(tmp_path)
  assert build(["build", "--images", str(tree / "photos"), "--out", "dataset"]) == 1
  return Path("dataset")


def run_on_dataset(weights_folder: Path, *arguments: str) -> int:
  options = ("--tfds", "dataset", "--model", weights_folder, *OPTIONS)
  return main([*map(str, options), *arguments])


def test_dataset_has_its_folder_s_scores(
  straight: Path, dataset: Path, weights_folder: Path, capfd: pytest.CaptureFixture[str]
):
  assert run_on_dataset(weights_folder) == 0
  assert capfd.readouterr().err == ""
  settings, *records = read_lines()
  wanted_settings, *wanted = read_lines(str(straight / "out.jsonl"))
  assert settings == wanted_settings
  names = [f"{i:06d}" for i in range(IMAGES)]
  assert [record.pop("path") for record in records] == [f"dataset/train/{n}" for n in names]
  assert [record.pop("saved") for record in records] == [f"out/{n}" for n in names]
  assert {file.name for file in Path("out").iterdir()} == {f"{n}_jnd.npy" for n in names}
  wanted = [record for record in wanted if "error" not in record]
  for record in wanted:
    del record["path"], record["saved"]
  # In TFDS's order; every image has a height of its own.
  assert sorted(records, key=lambda record: record["height"]) == sorted(
    wanted, key=lambda record: record["height"]
  )


def test_damaged_record_of_a_dataset_is_named(
  dataset: Path, weights_folder: Path, capfd: pytest.CaptureFixture[str]
):
  (file,) = dataset.glob("*.array_record*")
  data = bytearray(file.read_bytes())
  second = data.index(b"\x89PNG", data.index(b"\x89PNG") + 1)
  data[second + 100 : second + 200] = bytes(100)
  file.write_bytes(data)
  assert run_on_dataset(weights_folder, "--tfds-split", "train[:3]") == 1
  reason = r"cannot be read: .*"
  name = re.escape("dataset/train[:3]/000001")
  assert re.fullmatch(
    rf"eval: {name}: {reason}\neval: 1 of 3 files could not be used\n", capfd.readouterr().err
  )
  assert [("error" in record) for record in read_lines()[1:]] == [False, True, False]


def test_folder_that_is_no_dataset(
  fresh: None, weights_folder: Path, capsys: pytest.CaptureFixture[str]
):
  Path("dataset").mkdir()
  assert run_on_dataset(weights_folder) == 2
  assert re.fullmatch("eval: dataset 'dataset', split 'train': .*\n", capsys.readouterr().err)

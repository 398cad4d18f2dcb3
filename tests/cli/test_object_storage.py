"""Commands on gs:// addresses, against an emulator of object storage."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from hvsjnd_jax import weights
from hvsjnd_jax.data import lines
from hvsjnd_jax.data.__main__ import main as build
from hvsjnd_jax.data.images import write_png
from hvsjnd_jax.data.paths import PathError, is_remote, list_objects, parse_path
from hvsjnd_jax.eval import main
from hvsjnd_jax.model.jnd_model import JNDModel
from tests.support.object_storage import copy_to_storage

ARGUMENTS = ("--lmbda", "10", "--window", "120x120", "--outputs", "original.png,distorted.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
  """A folder with two photographs, one of them in a subfolder, and a file that is none."""
  folder = tmp_path / "photos"
  (folder / "below").mkdir(parents=True)
  rng = np.random.default_rng(0)
  for name in ("a.png", "below/b.png"):
    write_png(folder / name, rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
  (folder / "notes.txt").write_text("of these photographs")
  return folder


def evaluate(place: Path) -> dict[str, dict[str, float]]:
  """Runs eval with all that it reads and writes below a place; returns the records."""
  words = {"--model": "weights", "--path": "photos", "--save": "out", "--jsonl": "out.jsonl"}
  arguments = [word for name, file in words.items() for word in (name, str(place / file))]
  assert main([*arguments, *ARGUMENTS, "--json", str(place / "out.json")]) == 0
  report = json.loads((place / "out.json").read_text())
  assert report["skipped"] == [str(place / "photos/notes.txt")]
  records = map(json.loads, (place / "out.jsonl").read_text().splitlines()[1:])
  return {record.pop("path").removeprefix(f"{place}/photos/"): record for record in records}


def test_eval_reads_and_writes_in_the_store_as_on_a_disk(
  remote: Path, photos: Path, fast_model: JNDModel, capsys: pytest.CaptureFixture[str]
):
  disk = photos.parent
  weights.save(disk / "weights", fast_model, provenance={})
  copy_to_storage(disk, remote)
  want, got = evaluate(disk), evaluate(remote)
  assert got.keys() == want.keys() == {"a.png", "below/b.png"}
  for name, record in got.items():
    stem = str(record.pop("saved")).removeprefix(f"{remote}/")
    assert want[name].pop("saved") == str(disk / stem)
    assert record == want[name]
    for output in ("original.png", "distorted.png", "thumbnail.jpg"):
      file = f"{stem}_{output}"
      assert (remote / file).read_bytes() == (disk / file).read_bytes()
  page, same = (place / "out/index.html" for place in (remote, disk))
  assert page.read_text().replace(str(remote), str(disk)) == same.read_text()
  assert not list_objects(remote / "out.jsonl.trying")
  capsys.readouterr()
  evaluate(remote)
  assert f"{remote}/out.jsonl: 2 of 2 images are done already" in capsys.readouterr().out


def test_eval_reads_a_dataset_in_the_store(
  remote: Path, photos: Path, fast_model: JNDModel, monkeypatch: pytest.MonkeyPatch
):
  disk, out = photos.parent, remote / "dataset"
  monkeypatch.setenv("XDG_CACHE_HOME", str(disk / "cache"))
  weights.save(disk / "weights", fast_model, provenance={})
  assert build(["build", "--images", str(photos), "--out", str(out)]) == 0
  given = ("--model", str(disk / "weights"), "--tfds", str(out), "--tfds-split", "train")
  saved = ("--save", str(disk / "out"), "--json", str(disk / "out.json"))
  assert main([*given, *ARGUMENTS, *saved]) == 0
  records = json.loads((disk / "out.json").read_text())["images"]
  assert [record["path"] for record in records] == [f"{out}/train/{i:06d}" for i in range(2)]
  assert len(list((disk / "out").rglob("*_distorted.png"))) == 2


def test_lines_are_there_after_seconds_and_all_at_the_end(
  remote: Path, monkeypatch: pytest.MonkeyPatch
):
  file, seconds = remote / "lines", [0.0]
  monkeypatch.setattr(lines, "monotonic", lambda: seconds[0])
  file.write_text("before\n")
  with lines.open_lines(file) as growing:
    for line, expected in enumerate((1, 1, 3, 3)):
      growing.write(f"{line}\n")
      growing.flush()
      assert file.read_text().count("\n") == 1 + expected
      seconds[0] += 1.5
  assert file.read_text() == "before\n0\n1\n2\n3\n"


def test_what_another_run_wrote_since_is_kept(remote: Path):
  file = remote / "lines"
  with lines.open_lines(file) as growing:
    growing.write("ours\n")
    growing.flush()
    file.write_text("ours\ntheirs\n")
  assert file.read_text() == "ours\ntheirs\n"
  growing = lines.open_lines(file)
  growing.write("also ours\n")
  file.write_text("theirs\n")
  with pytest.raises(PathError, match="lines: another process has written it since"):
    growing.close()
  assert file.read_text() == "theirs\n"


def fail(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
  """Runs a command that cannot work; returns the last line of what it said."""
  try:
    status = main([*arguments])
  except SystemExit as error:
    status = error.code
  assert status == 2
  said = capsys.readouterr().err
  assert "Traceback" not in said
  return said.splitlines()[-1]


def test_mistakes_are_told_in_a_line(
  remote: Path, photos: Path, fast_model: JNDModel, capsys: pytest.CaptureFixture[str]
):
  none = f"no such file or folder: {remote}/none"
  assert none in fail(capsys, "--path", str(remote / "none"))
  assert "unknown model 'gs://" in fail(capsys, "--model", str(remote / "weights"))
  weights.save(photos.parent / "weights", fast_model, provenance={})
  model, path = ("--model", str(photos.parent / "weights")), ("--path", str(photos))
  said = fail(capsys, *model, *path, *ARGUMENTS, "--save", "gs://no-such-bucket/out")
  assert "gs://no-such-bucket/out" in said
  assert "expected a bucket" in fail(capsys, "--save", "gs://")


def test_other_stores_and_a_missing_package_are_told_in_a_line(
  capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
  monkeypatch.chdir(tmp_path)
  assert "s3://a/b: expected a path on a disk or a gs:// address" in fail(
    capsys, "--save", "s3://a/b"
  )
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  for option in ("--save", "--jsonl", "--json", "--path"):
    assert fail(capsys, option, "gs://a/b").endswith(
      f"argument {option}: gs://a/b: gs:// needs another package: pip install 'hvsjnd_jax[gcs]'"
    )
  assert "pip install 'hvsjnd_jax[gcs]'" in fail(capsys, "--model", "gs://a/b")
  assert not list(tmp_path.iterdir())  # no folder that is called "gs:"


def test_slash_that_pathlib_drops_is_put_back(bucket: str):
  path = parse_path(Path(f"{bucket}/a/b.png"))
  assert is_remote(path)
  assert str(path) == f"{bucket}/a/b.png"

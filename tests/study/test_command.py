"""The study's command: what it builds, prints, writes and refuses."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax import eval as evaluation_command
from hvsjnd_jax import weights
from hvsjnd_jax.data.images import read_image
from hvsjnd_jax.study.__main__ import main
from hvsjnd_jax.study.design import Model
from hvsjnd_jax.study.plots import draw_plots
from tests.support.evaluating import SIZE, draw
from tests.support.observers import (
  LMBDAS,
  Observer,
  draw_observers,
  make_design,
  take_part,
)


@pytest.fixture
def answers(tmp_path: Path) -> Callable[..., Path]:
  """Writes the files of four people and a cheater who answered a study."""

  def write(**options: Any) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    design = make_design(images=("a", "$b_{"), models=("default", "other"), repeats=2, **options)
    observers = [*draw_observers(4, threshold=7, spread=0.2, seed=0, factors={"other": 1.5})]
    observers.append(Observer(lambda image, model: 1, blind=True))
    for i, observer in enumerate(observers):
      record = take_part(design, observer, code=f"P{i}", seed=i)
      (folder / f"P{i}.json").write_text(json.dumps(record))
    return folder

  return write


def test_analyze(answers: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
  folder = answers()
  (folder / "broken.json").write_text("{")
  out, report = tmp_path / "out", tmp_path / "r.json"
  options = ("--out", str(out), "--json", str(report), "--draws", "20")
  assert main(["analyze", str(folder), *options]) == 1
  stdout, stderr = capsys.readouterr()
  assert stderr.startswith(f"study: {folder / 'broken.json'}: damaged: no JSON")
  assert len(stderr.splitlines()) == 1
  assert "4 participants; 1 more left out\n  P4: missed " in stdout
  assert "participants were resampled" in stdout
  assert {file.name for file in out.iterdir()} == {
    *("calibration.json", "thresholds.csv", "psychometric.png", "thresholds.png")
  }
  for name in ("psychometric.png", "thresholds.png"):
    assert min(read_image(out / name).shape[:2]) > 300

  found = json.loads(report.read_text())
  assert list(found) == [
    *("study", "title", "method", "draws", "seed", "resampled", "participants", "models"),
    *("differences", "errors"),
  ]
  assert [p["left_out"] is None for p in found["participants"]] == [True] * 4 + [False]
  assert [model["name"] for model in found["models"]] == ["default", "other"]
  pooled = found["models"][0]["pooled"]
  assert pooled["low"] < 7 < pooled["high"]
  assert sum(answer["shown"] for answer in pooled["answers"]) == pooled["trials"] == 4 * 2 * 2 * 10
  (difference,) = found["differences"]
  assert difference["ratio"] == pytest.approx(
    pooled["lmbda"] / found["models"][1]["pooled"]["lmbda"]
  )
  assert difference["high"] < 1
  assert difference["p"] < 0.05
  rows = list(csv.DictReader((out / "thresholds.csv").read_text().splitlines()))
  assert [(row["model"], row["image"]) for row in rows] == [
    *(("default", ""), ("other", ""), ("default", "a"), ("default", "$b_{")),
    *(("other", "a"), ("other", "$b_{")),
  ]
  assert float(rows[0]["lmbda"]) == pytest.approx(pooled["lmbda"])


def test_one_jnd_is_the_study_s_threshold(
  tmp_path: Path, weights_folder: Path, capsys: pytest.CaptureFixture[str]
):
  """`eval --calibration F --jnd J` injects J times the threshold, for these weights alone."""
  design = make_design(repeats=6)
  sha256 = weights.read_manifest(weights_folder)["sha256"]
  design.models[0] = Model("mine", sha256)
  record = take_part(design, Observer(lambda image, model: 6.0, lapse=0), code="P", seed=0)
  (tmp_path / "P.json").write_text(json.dumps(record))
  out, report, photo = (tmp_path / name for name in ("out", "r.json", "a.png"))
  draw(0).save(photo)
  assert main(["analyze", str(tmp_path / "P.json"), "--out", str(out), "--draws", "5"]) == 0
  (calibrated,) = json.loads((out / "calibration.json").read_text())["models"]
  lmbda = calibrated["lmbda"]
  assert 4 < lmbda < 9

  def evaluate(*options: object, model: Path | str = weights_folder) -> int:
    words = ("--path", photo, "--json", report, "--model", model, *options)
    return evaluation_command.main(list(map(str, words)))

  file = out / "calibration.json"
  assert evaluate("--calibration", file, "--jnd", 1.5) == 0
  assert json.loads(report.read_text())["lmbda"] == pytest.approx(1.5 * lmbda)
  capsys.readouterr()

  assert evaluate("--calibration", file, "--jnd", 1, "--resolution", "native") == 2
  assert "--resolution native: --calibration is of the model's own maps" in capsys.readouterr().err
  assert evaluate("--calibration", file, "--jnd", 1, model="fast") == 2
  assert "no threshold of these weights; it has those of: mine" in capsys.readouterr().err
  for broken in ("{}", '{"format": 1', "\ufeff"):
    file.write_text(broken)
    assert evaluate("--calibration", file, "--jnd", 1) == 2
    stderr = capsys.readouterr().err
    assert "expected the calibration.json of `hvsjnd_jax.study analyze`" in stderr
    assert len(stderr.splitlines()) == 1
  for options in (("--jnd", 1), ("--calibration", file)):
    with pytest.raises(SystemExit):
      evaluate(*options)
    assert "need each other" in capsys.readouterr().err


def test_a_threshold_that_was_not_reached_calibrates_nothing(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  record = take_part(make_design(), Observer(lambda image, model: 1.0), code="P", seed=0)
  for i, trial in enumerate(record["trials"]):  # they see the traps, and else guess half of all
    right = trial["kind"] == "trap" or i // len(LMBDAS) % 2
    trial["answer"] = trial["side"] if right else {"left": "right", "right": "left"}[trial["side"]]
  (tmp_path / "P.json").write_text(json.dumps(record))
  assert main(["analyze", str(tmp_path), "--out", str(tmp_path / "out"), "--draws", "5"]) == 0
  assert "default, all images: above the largest lmbda shown" in capsys.readouterr().out
  assert json.loads((tmp_path / "out" / "calibration.json").read_text())["models"] == []


def test_nobody_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
  cheater = Observer(lambda image, model: 1, blind=True)
  record = take_part(make_design(), cheater, code="P", seed=0)
  (tmp_path / "P.json").write_text(json.dumps(record))
  assert main(["analyze", str(tmp_path)]) == 2
  assert capsys.readouterr().err == "study: no participant is left whose answers count\n"


def test_answers_are_not_written_over(
  answers: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
  folder = answers()
  before = {file: file.read_bytes() for file in folder.iterdir()}
  first = min(before)
  for option, place, reason in (
    ("--json", first, "one of the files to read"),
    ("--out", folder, "holds the participants' files; choose another folder"),
  ):
    assert main(["analyze", str(folder), option, str(place)]) == 2
    assert reason in capsys.readouterr().err
  assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_one_draw_gives_no_interval(capsys: pytest.CaptureFixture[str]):
  with pytest.raises(SystemExit, match="2"):
    main(["analyze", "RESULTS", "--draws", "1"])
  assert "expected a whole number from 2 to 100000, got 1" in capsys.readouterr().err


def test_plots_without_matplotlib(
  answers: Callable[..., Path],
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
  assert main(["analyze", str(answers()), "--out", str(tmp_path / "out")]) == 2
  assert "plots need matplotlib: pip install 'hvsjnd_jax[study]'" in capsys.readouterr().err
  assert draw_plots.__module__ == "hvsjnd_jax.study.plots"


def test_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
  for name in ("a", "b/a"):
    (tmp_path / "photos" / name).parent.mkdir(exist_ok=True, parents=True)
    draw(len(name)).save(tmp_path / "photos" / f"{name}.png")
  (tmp_path / "photos" / "broken.png").touch()
  out, report = tmp_path / "STUDY", tmp_path / "r.json"
  words = ["build", "--path", str(tmp_path / "photos"), "--out", str(out)]
  hostile = "</script><img src=x onerror=alert(1)>"
  options = ["--model", "uniform", "masking", "--lmbda", "4,2", "--title", hostile]
  assert main([*words, *options, "--json", str(report)]) == 1
  stdout, stderr = capsys.readouterr()
  assert "broken.png: " in stderr
  assert "traps show lmbda 16, and 1 of 10 may be missed" in stdout
  assert [image["name"] for image in json.loads(report.read_text())["images"]] == ["a", "a (2)"]
  pictures = {str(file.relative_to(out)) for file in (out / "pictures").rglob("*.png")}
  names = ("original", *(f"{model}_{level}" for model in (0, 1) for level in (0, 1, 2)))
  assert pictures == {f"pictures/{i}/{name}.png" for i in (0, 1) for name in names}
  for file in out.rglob("*.png"):
    assert read_image(file).shape == (*SIZE, 3)
  assert hostile not in (out / "index.html").read_text()
  assert {file.name for file in out.iterdir() if file.is_file()} == {
    *("index.html", "study.css", "study.js", "study.json", "design.js")
  }
  assert main([*words, *options]) == 2
  assert capsys.readouterr().err.endswith("STUDY: exists already; choose another\n")


@pytest.mark.parametrize(
  ("options", "reason"),
  [
    (("--title", "x" * 1001), "no study that can be analyzed"),
    (("--model", "nobody"), "--model: unknown model 'nobody'"),
    (("--lmbda", "5"), "--lmbda: a study needs two or more"),
    (("--lmbda", "5,500000"), "to 2.5e+05, such as"),
  ],
)
def test_build_refuses(
  options: tuple[str, ...], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  pixels = np.zeros((*SIZE, 3), np.uint8)
  Image.fromarray(pixels).save(tmp_path / "a.png")
  out = tmp_path / "STUDY"
  try:
    status = main(["build", "--path", str(tmp_path / "a.png"), "--out", str(out), *options])
  except SystemExit as error:
    status = error.code
  assert status == 2
  assert reason in capsys.readouterr().err
  assert not out.exists()

"""Pictures that `eval --save` writes: where they lie, and what they never replace."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvsjnd_jax.cli import saved_images
from tests.support.evaluating import OUTPUTS, draw, photos, report, run

__all__ = ["photos", "report", "run"]  # fixtures


def _names(folder: str) -> set[str]:
  """The images whose five pictures lie in a folder."""
  files = {str(file.relative_to(folder)) for file in Path(folder).rglob("*") if file.is_file()}
  stems = {name.removesuffix("_sheet.png") for name in files if name.endswith("_sheet.png")}
  assert files == {f"{stem}_{name}" for stem, name in itertools.product(stems, OUTPUTS)}
  return stems


def test_pictures_lie_as_their_images_do(run: Callable[..., int], photos: Path):
  assert run("--path", photos, "--save", "deep/out") == 0
  assert _names("deep/out") == {"a/c", "b", "d"}


def test_images_of_one_name_keep_apart(run: Callable[..., int], photos: Path):
  draw(5).save(photos / "b.bmp")
  draw(6).save(photos / "b.png.bmp")
  (photos / "e").mkdir()
  draw(7).save(photos / "e/b.png")
  assert run("--path", photos, "--save", "out") == 0
  assert _names("out") == {"a/c.png", "b.bmp", "b.png", "b.png.bmp", "d.bmp", "e/b.png"}


def test_pictures_stay_inside_the_folder(
  run: Callable[..., int], photos: Path, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.chdir(photos / "a")
  assert run("--path", "../b.png", "../../photos/a/c.png", "--save", "../../out") == 0
  assert _names("../../out") == {"b", "a/c"}


def test_second_run_does_not_evaluate_the_first(
  report: Callable[..., dict[str, Any]], photos: Path
):
  arguments = ("--path", photos, "--save", photos / "out")
  assert report(*arguments) == report(*arguments)
  assert _names(str(photos / "out")) == {"a/c", "b", "d"}


def test_no_input_is_overwritten(
  run: Callable[..., int], photos: Path, capsys: pytest.CaptureFixture[str]
):
  assert run("--path", photos, "--save", photos) == 0
  before = (photos / "b_distorted.png").read_bytes()
  assert run("--path", photos, "--save", photos, "--lmbda", 9) == 2
  assert re.search(
    r"_distorted.png is an image to evaluate; choose another folder for --save",
    capsys.readouterr().err,
  )
  assert (photos / "b_distorted.png").read_bytes() == before


def test_disk_full_while_saving(
  run: Callable[..., int],
  photos: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  def fail(*args: object) -> None:
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(saved_images, "write_png", fail)
  assert run("--path", photos, "--save", "out") == 2
  assert capsys.readouterr().err == "eval: out/a/c: cannot be written: No space left on device\n"

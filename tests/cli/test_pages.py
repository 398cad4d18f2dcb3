"""The page that `eval --save` writes, and what it never replaces."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hvsjnd_jax.cli import pages
from hvsjnd_jax.cli.pages import check_page
from hvsjnd_jax.cli.saved_images import VISION_MAPS, choose_outputs
from hvsjnd_jax.metrics import METRICS
from hvsjnd_jax.model.jnd_model import JNDModel
from tests.support.evaluating import OUTPUTS, SIZE, photos, report, run
from tests.support.pages import read_page

__all__ = ["photos", "report", "run"]  # fixtures


def test_every_metric_has_a_name_for_readers():
  assert METRICS.keys() <= pages._NAMES.keys()


def test_page_shows_every_lmbda(report: Callable[..., dict[str, Any]], photos: Path):
  outputs = "original.png,distorted.png,jnd.png,attention.png,butteraugli.png"
  options = ("--save", "out", "--outputs", outputs)
  several = report("--path", photos, "--lmbda", "5,10,2.5", *options)
  page = read_page("out/index.html")
  assert page["setting"] == {"name": "lmbda", "values": ["5", "10", "2.5"], "kind": "slider"}
  assert page["copies"][0]["files"] == ["distorted.png", "distorted@10.png", "distorted@2.5.png"]
  names = [layer["name"] for layer in page["overlays"]]
  assert names == ["JND map, brightened", "attention, blue to red", "Butteraugli, 0 to 4"]
  assert [image["name"] for image in page["images"]] == ["a/c", "b", "d"]
  assert [page["images"][0][side] for side in ("height", "width")] == list(SIZE)
  assert several["lmbda"] == [5, 10, 2.5]
  for image, record in zip(page["images"], several["images"], strict=True):
    assert image["scores"] == [
      [[copy[name] for name in ("psnr", "psnr_r", "psnr_g", "psnr_b")]]
      for copy in (record, *record["others"])
    ]
    assert [copy["lmbda"] for copy in (record, *record["others"])] == [5, 10, 2.5]
  # Each copy is the one that its lmbda alone would have given.
  single = report("--path", photos, "--lmbda", 10, "--save", "single")
  copy = Path("out/b_distorted@10.png").read_bytes()
  assert copy == Path("single/b_distorted.png").read_bytes()
  for name in ("psnr", "psnr_r"):
    assert several["other_means"][0][name] == pytest.approx(single["mean"][name])
  assert "other_means" not in single
  assert "others" not in single["images"][0]


def test_page_of_a_run_that_went_on_has_all_images(run: Callable[..., int], photos: Path):
  (photos / "broken.png").touch()
  options = ("--lmbda", "5,10", "--save", "out", "--jsonl", "lines.jsonl")
  assert run("--path", photos / "a", photos / "b.png", *options) == 0
  before = Path("out/index.html").read_text()
  assert len(read_page("out/index.html")["images"]) == 2
  assert run("--path", photos / "a", photos / "b.png", *options) == 0
  assert Path("out/index.html").read_text() == before
  assert run("--path", photos, *options) == 1
  page = read_page("out/index.html")
  assert [image["path"] for image in page["images"]] == [
    str(photos / name) for name in ("a/c.png", "b.png", "d.bmp")
  ]


def test_page_tells_the_lmbda_of_a_psnr(report: Callable[..., dict[str, Any]], photos: Path):
  result = report("--path", photos / "b.png", "--psnr", 30, "--save", "out")
  page = read_page("out/index.html")
  assert [score["name"] for score in page["scores"]][-1] == "lmbda"
  assert page["images"][0]["scores"][0][0][-1] == result["images"][0]["lmbda"]
  assert page["setting"]["values"] == ["30 dB"]


def test_no_page_where_there_is_nothing_to_blink(run: Callable[..., int], photos: Path):
  outputs = ",".join(set(OUTPUTS) - {"original.png", "thumbnail.jpg"})
  assert run("--path", photos, "--save", "out", "--outputs", outputs) == 0
  assert not {file.suffix for file in Path("out").iterdir()} & {".html", ".jpg"}


def test_page_of_somebody_else_stays(
  run: Callable[..., int], photos: Path, capsys: pytest.CaptureFixture[str]
):
  Path("out").mkdir()
  Path("out/index.html").write_text("<title>My photographs</title>")
  assert run("--path", photos, "--save", "out") == 2
  error = "eval: out/index.html: exists, and was not written by this command; choose another "
  assert capsys.readouterr().err.startswith(error)
  assert [file.name for file in Path("out").iterdir()] == ["index.html"]


def test_page_never_replaces_an_image(tmp_path: Path):
  (tmp_path / "index.html").touch()
  with pytest.raises(Exception, match="one of the files to read"):
    check_page(tmp_path, inputs=[tmp_path / "index.html"])


def test_maps_of_models_are_drawn_with_their_metrics(model: JNDModel):
  def choose(metrics: Sequence[str]) -> set[str]:
    return set(choose_outputs(None, model, metrics)) & VISION_MAPS.keys()

  assert choose(["psnr", "ssimulacra2"]) == set()
  assert choose(["butteraugli_max", "cvvdp"]) == {"butteraugli.png", "cvvdp.png"}
  assert choose(["cvvdp_fhd"]) == {"cvvdp_fhd.png"}

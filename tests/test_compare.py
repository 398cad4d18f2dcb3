"""The comparing command: equal noise for every model, scores, and what is said of failures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax import compare as command
from hvsjnd_jax import weights
from hvsjnd_jax.baselines import BASELINES
from hvsjnd_jax.compare import main
from hvsjnd_jax.data.images import read_image
from hvsjnd_jax.estimator import estimate
from hvsjnd_jax.evaluation.vision_maps import VISION_MODELS, draw_map
from hvsjnd_jax.metrics import butteraugli_map
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.viz.sheets import visible_jnd
from tests.support.comparisons import SIZE, add, pixels
from tests.support.pages import find_data, read_page

__all__ = ["pixels"]  # fixtures


@pytest.fixture
def photos(tmp_path: Path, pixels: np.ndarray) -> Path:
  folder = tmp_path / "photos"
  folder.mkdir()
  for seed, name in enumerate(("a.png", "b.png")):
    Image.fromarray(np.roll(pixels, 8 * seed, axis=1)).save(folder / name)
  return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
  """Runs the command in an empty folder, with maps of known forms."""
  monkeypatch.chdir(tmp_path)
  uniform = BASELINES["uniform"]
  maps: dict[str, Callable[..., jax.Array]] = {
    "bright": lambda images: images * jnp.asarray((0.1, 0.05, 0.02)) + 0.001,
    "none": jnp.zeros_like,
  }
  baselines = {
    name: uniform._replace(function=draw, title=name.title()) for name, draw in maps.items()
  }
  monkeypatch.setattr(
    "hvsjnd_jax.evaluation.estimators.BASELINES", {"uniform": uniform} | baselines
  )

  def run(*arguments: object, models: str = "bright,uniform") -> int:
    return main(["--psnr", "30", "--models", models, *map(str, arguments)])

  return run


def test_results(
  run: Callable[..., int], photos: Path, capsys: pytest.CaptureFixture[str], pixels: np.ndarray
):
  assert run("--path", photos, "--json", "out/r.json", "--sheet", "out/s.png", "--seed", 3) == 1
  stdout, stderr = capsys.readouterr()
  assert stderr == ""
  result = json.loads(Path("out/r.json").read_text())
  assert list(result) == [
    *("psnr", "seed", "window", "models", "channels", "channels_own", "total"),
    *("gain_by_split", "images", "errors", "skipped"),
  ]
  assert (result["psnr"], result["seed"], result["errors"]) == (30, 3, [])
  assert result["models"][0] == {"name": "bright", "title": "Bright"}
  assert [image["path"] for image in result["images"]] == [
    str(photos / name) for name in ("a.png", "b.png")
  ]
  for model in ("bright", "uniform"):
    for name in ("ssim", "gmsd", "fsim", "butteraugli_3norm", "ssimulacra2", "cvvdp"):
      values = [image["total"][model][name] for image in result["images"]]
      assert result["total"]["mean"][model][name] == pytest.approx(np.mean(values))
    for image in result["images"]:
      for name in ("psnr_r", "psnr_g", "psnr_b", "psnr"):
        for case in ("channels", "channels_own"):
          assert image[case][model][name] == pytest.approx(30, abs=0.006)
      assert image["total"][model]["psnr"] == pytest.approx(30, abs=0.006)
      assert image["total"][model]["ms_ssim"] is None
  bright = result["images"][0]["total"]["bright"]
  assert bright["psnr_r"] < bright["psnr_g"] < bright["psnr_b"]
  assert bright["scale_r"] == bright["scale_b"]
  assert result["channels"]["first_better"].keys() == {"uniform"}
  for case in ("channels", "channels_own", "total"):
    distances = [
      [image[case][model]["butteraugli_max"] for image in result["images"]]
      for model in ("bright", "uniform")
    ]
    share = np.mean([a < b for a, b in zip(*distances, strict=True)])
    assert result[case]["first_better"]["uniform"]["butteraugli_max"] == share

  heads = [line for line in stdout.splitlines() if line.startswith(("30 dB", "What"))]
  assert heads == [
    f"{case}: {what}"
    for case in (
      "30 dB in each of R, G and B; one sign a pixel for all channels",
      "30 dB in each of R, G and B; signs of each channel's own",
      "30 dB over the three channels together; one sign a pixel for all channels",
    )
    for what in (
      "means over 2 images, * the best",
      "on how many of the images bright is better",
    )
  ] + [
    "What a model's own split among the channels gains, + being better",
  ]
  for name in ("butteraugli", "ssimulacra2", "cvvdp"):
    assert name in stdout
  assert stdout.endswith("ms_ssim: 2 of 2 images are smaller than the 161x161 that it needs\n")
  sheet = read_image(Path("out/s.png"))
  assert sheet.shape[1] > 3 * 5 * SIZE[1], "three panels in a row, five times as large"
  assert (sheet == pixels[0, 0]).all(axis=-1).any()


def test_page_shows_every_model_with_either_signs(run: Callable[..., int], photos: Path):
  assert run("--path", photos, "--save", "out", "--json", "r.json") == 1
  page, result = read_page("out/index.html"), json.loads(Path("r.json").read_text())
  assert page["setting"] == {"name": "Signs", "values": ["shared", "own"], "kind": "choice"}
  assert page["copies"] == [
    {"name": name, "files": [f"{name}@shared.png", f"{name}@own.png"]}
    for name in ("bright", "uniform")
  ]
  red = [score["name"] for score in page["scores"]].index("PSNR R")
  for image, record in zip(page["images"], result["images"], strict=True):
    assert image["path"] == record["path"]
    original = read_image(Path("out") / f"{image['name']}_original.png")
    np.testing.assert_array_equal(original, read_image(Path(image["path"])))
    for signs, case in enumerate(("channels", "channels_own")):
      for model, layer in enumerate(page["copies"]):
        copy = read_image(Path("out") / f"{image['name']}_{layer['files'][signs]}")
        error = np.square(copy[..., 0] / 255 - original[..., 0] / 255).mean()
        psnr = record[case][layer["name"]]["psnr_r"]
        assert image["scores"][signs][model][red] == psnr
        assert psnr == pytest.approx(-10 * np.log10(error), abs=1e-3)


def test_page_has_every_model_s_maps(
  run: Callable[..., int], photos: Path, tmp_path: Path, model: JNDModel
):
  weights.save(tmp_path / "w", model, provenance={})
  options = ("--save", "out", "--outputs", "jnd.png,attention.png,butteraugli.png,original.png")
  path = photos / "a.png"
  assert run("--path", path, *options, models="w,bright") == 1  # ms_ssim
  assert not Path("out/index.html").exists(), "there are no copies to look at"
  assert sorted(file.name for file in Path("out").iterdir()) == [
    *("a_bright@butteraugli@own.png", "a_bright@butteraugli@shared.png", "a_bright@jnd.png"),
    *("a_original.png", "a_w@attention.png"),
    *("a_w@butteraugli@own.png", "a_w@butteraugli@shared.png", "a_w@jnd.png"),
  ]
  assert run("--path", path, *options[:3], f"{options[3]},distorted.png", models="w,bright") == 1
  page = read_page("out/index.html")
  assert page["overlays"] == [
    {
      "name": "JND map, brightened",
      "files": [["w@jnd.png"] * 2, ["bright@jnd.png"] * 2],
    },
    {"name": "attention, blue to red", "files": [["w@attention.png"] * 2, None]},
    {
      "name": "Butteraugli, 0 to 4",
      "files": [
        [f"{name}@butteraugli@{signs}.png" for signs in ("shared", "own")]
        for name in ("w", "bright")
      ],
    },
  ]
  original = read_image(path).astype(np.float32) / 255
  jnd = original * np.asarray((0.1, 0.05, 0.02), np.float32) + 0.001
  np.testing.assert_array_equal(read_image(Path("out/a_bright@jnd.png")), visible_jnd(jnd)[0])
  copy = read_image(Path("out/a_bright@own.png")).astype(np.float32) / 255
  values = np.asarray(butteraugli_map(jnp.asarray(copy[None]), jnp.asarray(original[None]))[0])
  drawn = draw_map(VISION_MODELS["butteraugli_max"], values)
  shown = read_image(Path("out/a_bright@butteraugli@own.png"))
  # One rounding step of the colours, as the map is compiled in another way.
  np.testing.assert_allclose(shown.astype(int), drawn.astype(int), atol=1)


def test_failures_are_named_and_the_rest_goes_on(
  run: Callable[..., int], photos: Path, capsys: pytest.CaptureFixture[str]
):
  (photos / "broken.png").touch()
  Image.new("RGB", (7, 9)).save(photos / "small.png")
  options = ("--json", "r.json", "--save", "out")
  assert run("--path", photos, *options, models="uniform,none,bright") == 1
  stdout, stderr = capsys.readouterr()
  zero = "30 dB cannot be reached in R: the map is zero throughout"
  assert f"compare: {photos}/a.png, none: {zero}\n" in stderr
  result = json.loads(Path("r.json").read_text())
  assert {"path": str(photos / "b.png"), "model": "none", "error": zero} in result["errors"]
  assert {error["path"] for error in result["errors"] if "model" not in error} == {
    str(photos / "broken.png"),
    str(photos / "small.png"),
  }
  assert result["channels"]["mean"].keys() == {"uniform", "bright"}
  assert "means over 2 images" in stdout
  assert not list(Path("out").glob("*_none@*"))
  for image in json.loads(find_data(Path("out/index.html").read_text()))["images"]:
    for copies in image["scores"]:
      assert [scores is None for scores in copies] == [False, True, False]


def test_nothing_but_failures(
  run: Callable[..., int], photos: Path, capsys: pytest.CaptureFixture[str]
):
  assert run("--path", photos, "--sheet", "s.png", "--json", "r.json", models="none") == 1
  stdout, stderr = capsys.readouterr()
  assert stdout.count("no image on which every model could be scored") == 3
  assert "compare: s.png not written: no image has every model's noise\n" in stderr
  assert json.loads(Path("r.json").read_text())["total"] == {"mean": {}, "first_better": {}}


def test_weights_are_drawn_through_windows(
  run: Callable[..., int], photos: Path, tmp_path: Path, model: JNDModel, pixels: np.ndarray
):
  weights.save(tmp_path / "w", model, provenance={})
  assert run("--path", photos / "a.png", "--json", "r.json", models="w") == 1  # ms_ssim
  result = json.loads(Path("r.json").read_text())
  assert result["models"][0].keys() == {"name", "sha256"}
  jnd = np.asarray(estimate(model, pixels[None].astype(np.float32) / 255))[0]
  scale = [result["images"][0]["channels"]["w"][f"scale_{c}"] for c in "rgb"]
  np.testing.assert_allclose(scale, add(pixels, jnd, 30).scale, rtol=1e-3)


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
  "unknown model": (
    ("--models", "uniform,nowhere"),
    "--models: unknown model 'nowhere'; known: default, fast, paper, masking, uniform, bright, "
    "none, folders of weights",
  ),
  "no model": (("--models", ""), "--models: unknown model ''; known: default"),
  "folder without weights": (("--models", "photos"), "photos/manifest.json: No such file"),
  "no such path": (("--path", "nowhere"), "no such file or folder: nowhere"),
  "json to a folder": (("--path", "photos", "--json", "photos"), "--json photos: a folder"),
  "attention without HVS-SD": (
    ("--path", "photos", "--save", "out", "--outputs", "attention.png"),
    "--outputs attention.png: no model has HVS-SD, and so none has attention",
  ),
  "pictures among the images": (
    ("--path", "photos", "--save", "photos"),
    "photos: holds the images; choose another folder for what is written",
  ),
  "pictures to standard output": (
    ("--path", "photos", "--save", "-"),
    "-: expected the name of a folder; only --json can go to standard output",
  ),
  "sheet over an image": (
    ("--path", "photos", "--sheet", "photos/a.png"),
    "--sheet photos/a.png: one of the files to read; choose another",
  ),
}


@pytest.mark.parametrize(("arguments", "reason"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_done_is_said(
  run: Callable[..., int],
  photos: Path,
  capsys: pytest.CaptureFixture[str],
  arguments: tuple[str, ...],
  reason: str,
):
  assert run(*(("--path", photos) if "--path" not in arguments else ()), *arguments) == 2
  stderr = capsys.readouterr().err
  assert stderr.startswith(f"compare: {reason}")
  assert stderr.count("\n") == 1


@pytest.mark.parametrize("db", ["0", "-3", "nan", "abc", "100"])
def test_bad_psnr(capsys: pytest.CaptureFixture[str], db: str):
  with pytest.raises(SystemExit, match="2"):
    main([f"--psnr={db}"])
  assert f"--psnr: expected a number of dB between 0 and 100, got {db}" in capsys.readouterr().err


def test_without_models_all_that_have_a_name_are_compared():
  parsed: Any = command._parse(["--psnr", "30"])
  assert parsed.models.split(",") == ["default", "fast", "paper", "masking", *BASELINES]


def test_report_and_sheet_need_a_file_each(capsys: pytest.CaptureFixture[str]):
  with pytest.raises(SystemExit, match="2"):
    main(["--psnr", "36", "--sheet", "s.png", "--json", "s.png"])
  assert "--json and --sheet need a file each" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x.jpg", "x", "-"])
def test_sheet_is_png(name: str, capsys: pytest.CaptureFixture[str]):
  with pytest.raises(SystemExit, match="2"):
    main(["--psnr", "30", "--sheet", name])
  assert f"argument --sheet: expected a name that ends in .png, got {name}" in (
    capsys.readouterr().err
  )

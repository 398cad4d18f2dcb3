"""The comparing command: equal noise for every model, scores, and what is said of failures."""

import json
import os
import re
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
from hvsjnd_jax.evaluation import comparison, tables
from hvsjnd_jax.evaluation.butteraugli_program import (
  ButteraugliError,
  butteraugli,
  find_butteraugli,
)
from hvsjnd_jax.metrics import gmsd
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.noise import draw_signs
from hvsjnd_jax.noise_scale import Noisy, UnreachableError, find_scale, scale_to_psnr

SIZE = (48, 64)  # one for all tests: one compilation


def psnr(noisy: np.ndarray, pixels: np.ndarray) -> float:
  return 10 * np.log10(255**2 / np.mean((noisy.astype(float) - pixels.astype(float)) ** 2))


@pytest.fixture
def pixels() -> np.ndarray:
  """With structure, and with saturated values in every channel."""
  rng = np.random.default_rng(1)
  coarse = rng.integers(-40, 296, (*(side // 8 for side in SIZE), 3)).repeat(8, 0).repeat(8, 1)
  return np.clip(coarse + rng.integers(-9, 10, coarse.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def jnd(pixels: np.ndarray) -> np.ndarray:
  return np.random.default_rng(2).uniform(0.001, 0.02, pixels.shape).astype(np.float32)


def add(pixels: np.ndarray, jnd: np.ndarray, db: float, *, by_channel: bool = True) -> Noisy:
  signs = draw_signs(pixels, seed=0)
  return scale_to_psnr(pixels, jnd, signs, psnr_db=db, by_channel=by_channel)


@pytest.mark.parametrize("db", [20, 32.57, 45])
def test_every_channel_has_the_psnr(pixels: np.ndarray, jnd: np.ndarray, db: float):
  noisy, _ = add(pixels, jnd * (1, 2, 5), db)
  for c in range(3):
    assert psnr(noisy[..., c], pixels[..., c]) == pytest.approx(db, abs=0.005)


def test_noise_is_the_scaled_map(pixels: np.ndarray, jnd: np.ndarray):
  noisy, scale = add(pixels, jnd, 30)
  signs = draw_signs(pixels, seed=0)[..., None]
  wanted = np.clip(pixels + 255 * signs * jnd * scale, 0, 255)
  assert np.abs(noisy - wanted).max() <= 0.502
  assert np.unique(signs).tolist() == [-1, 1]


def test_three_channels_together_have_the_psnr(pixels: np.ndarray, jnd: np.ndarray):
  noisy, scale = add(pixels, jnd * (1, 2, 3), 32.57, by_channel=False)
  assert psnr(noisy, pixels) == pytest.approx(32.57, abs=0.005)
  assert len(set(scale)) == 1
  red, green, blue = (psnr(noisy[..., c], pixels[..., c]) for c in range(3))
  assert red > green + 4 > blue + 6, "the map's split stays: 6.0 and 3.5 dB apart"


def test_flat_map_changes_all_pixels_alike():
  gray = np.full((*SIZE, 3), 128, np.uint8)
  flat = 0.25 * np.ones(gray.shape) * (1, 2, 3)
  noisy, scale = add(gray, flat, 20 * np.log10(255 / 6))
  assert (np.abs(noisy.astype(int) - gray) == 6).all()
  for c in range(3):
    assert 5.5 <= 255 * scale[c] * flat[0, 0, c] <= 6.5


def test_flat_map_reaches_what_no_single_level_does():
  gray = np.full((*SIZE, 3), 128, np.uint8)
  noisy, _ = add(gray, np.ones(gray.shape), 31.9)
  assert set(np.unique(np.abs(noisy.astype(int) - gray))) == {6, 7}
  assert psnr(noisy[..., 2], gray[..., 2]) == pytest.approx(31.9, abs=0.005)


def test_scale_in_closed_form():
  """Without clipping, the error is that of the scaled map, and 1/12 of the rounding."""
  gray = np.full((200, 300, 3), 128, np.uint8)
  jnd = np.random.default_rng(3).uniform(0, 0.02, gray.shape)
  _, scale = add(gray, jnd, 30)
  wanted = np.sqrt((255**2 / 10**3 - 1 / 12) / np.square(255 * jnd).mean(axis=(0, 1)))
  np.testing.assert_allclose(scale, wanted, rtol=2e-3)


def test_scale_of_any_measure(jnd: np.ndarray):
  """An error that is not the square of the scale, and stands still in places."""

  def measure(scale: float) -> float:
    return min(max(scale, 2) ** 5 * 1e-9 * (1 if scale < 7 else 2), 0.1)

  for db in (50, 30, 10):
    scale = find_scale(measure, jnd, psnr_db=db, largest=1e6)
    assert -10 * np.log10(measure(scale)) == pytest.approx(db, abs=0.005)
  with pytest.raises(
    UnreachableError, match=r"^46 dB .* at x: .* PSNR jumps past it, to 4[47][.]7"
  ):
    find_scale(measure, jnd, psnr_db=46, largest=1e6, where=" at x")
  with pytest.raises(UnreachableError, match=r"^9 dB cannot .*: at most noise it is 10.00 dB"):
    find_scale(measure, jnd, psnr_db=9, largest=1e6)


def test_signs_follow_from_seed_and_content(pixels: np.ndarray):
  signs = draw_signs(pixels, seed=0)
  np.testing.assert_array_equal(signs, draw_signs(pixels.copy(), seed=0))
  assert (signs != draw_signs(pixels, seed=1)).any()
  assert (signs != draw_signs(pixels[::-1].copy(), seed=0)).any()


def test_what_cannot_be_reached_is_said(pixels: np.ndarray, jnd: np.ndarray):
  with pytest.raises(UnreachableError, match=r"^30 dB .* in G: the map is zero throughout$"):
    add(pixels, jnd * (1, 0, 1), 30)
  with pytest.raises(UnreachableError, match=r"^30 dB cannot be reached: the map is zero"):
    add(pixels, 0 * jnd, 30, by_channel=False)
  corner = np.zeros_like(jnd)
  corner[:2, :2] = 0.1
  with pytest.raises(
    UnreachableError, match=r"in R: at most noise it is \d+\.\d\d dB, .* zero at 99.9 % of"
  ):
    add(pixels, corner, 20)
  with pytest.raises(UnreachableError, match=r"^3 dB .* at most noise .* zero at 0.0 %"):
    add(pixels, jnd, 3)
  with pytest.raises(UnreachableError, match=r"^40 dB .* in R: .* jumps past it, to \d+.\d\d dB"):
    add(pixels[:2, :2], jnd[:2, :2], 40)
  with pytest.raises(UnreachableError, match="the map holds values that are negative"):
    add(pixels, np.where(jnd > 0.01, np.nan, jnd), 30)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
  """Puts a script in butteraugli_main's place, alone on the PATH; returns where."""

  def write(script: str) -> str:
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    file = folder / "butteraugli_main"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    found = find_butteraugli()
    assert found is not None
    return found

  return write


# Its distances: 3.25 and 1.5, where it is given two PNG files, the original first.
SAYS = '[ -s "$1" ] && [ -s "$2" ] && echo "3.2500000000" && echo "3-norm: 1.500000"'


def test_butteraugli_is_parsed(fake: Callable[[str], str], pixels: np.ndarray):
  figures = butteraugli(fake(SAYS), pixels, pixels)
  assert figures == {"butteraugli_3norm": 1.5, "butteraugli_max": 3.25}


@pytest.mark.parametrize(
  ("script", "reason"),
  [
    ("echo sRGB >&2; echo no >&2; exit 3", "butteraugli_main ended with 3: no"),
    ("echo nan", "expected a number and '3-norm: x', got 'nan'"),
    ("", "expected a number and '3-norm: x', got ''"),
  ],
)
def test_butteraugli_fails(
  fake: Callable[[str], str], pixels: np.ndarray, script: str, reason: str
):
  with pytest.raises(ButteraugliError, match=reason):
    butteraugli(fake(script), pixels, pixels)


@pytest.mark.skipif(find_butteraugli() is None, reason="butteraugli_main is not installed")
def test_butteraugli_itself(pixels: np.ndarray, jnd: np.ndarray):
  program = find_butteraugli()
  assert program is not None
  assert set(butteraugli(program, pixels, pixels).values()) == {0}
  weak, strong = (butteraugli(program, add(pixels, jnd, db).pixels, pixels) for db in (40, 25))
  for figure in weak:
    assert 0 < weak[figure] < strong[figure]


def scores(**figures: float | None) -> dict[str, float | None]:
  return {"ssim": figures.get("ssim", 0.5), "gmsd": figures.get("gmsd", 0.1)}


def test_means_are_over_the_images_that_every_model_has():
  images = [
    {"a": scores(ssim=0.2), "b": scores(ssim=0.4)},
    {"a": scores(ssim=0.9)},  # b failed
    {"a": scores(ssim=0.4), "b": scores(ssim=0.5, gmsd=0.3)},
  ]
  mean = comparison.average(images)
  assert mean["a"] == pytest.approx({"ssim": 0.3, "gmsd": 0.1})
  assert mean["b"] == pytest.approx({"ssim": 0.45, "gmsd": 0.2})
  assert comparison.average([]) == {}
  assert comparison.average([{"a": scores()}, {"b": scores()}]) == {}


def test_share_of_images_on_which_the_first_is_better():
  images = [
    {"a": scores(ssim=0.5, gmsd=0.1), "b": scores(ssim=0.4, gmsd=0.2)},
    {"a": scores(ssim=0.5, gmsd=0.3), "b": scores(ssim=0.5, gmsd=0.2)},  # a tie is no win
    {"b": scores()},
    {"a": scores(ssim=None, gmsd=0.1), "b": scores(ssim=None, gmsd=0.2)},
  ]
  wins = comparison.count_wins(images, "a")
  assert wins == {"b": pytest.approx({"ssim": 1 / 2, "gmsd": 2 / 3})}


def test_gain_is_positive_where_the_split_is_better():
  channels = [{"a": scores(ssim=0.5, gmsd=0.3), "b": scores()}]
  total = [{"a": scores(ssim=0.4, gmsd=0.1)}]
  gains = comparison.gain_by_split(channels, total)
  assert gains == {"a": pytest.approx({"ssim": -0.1, "gmsd": 0.2})}


def test_table():
  rows = {"first": scores(ssim=0.5, gmsd=0.1), "b": scores(ssim=None, gmsd=0.05)}
  columns = tables.list_columns(rows, kind="score")
  assert tables.tabulate(rows, columns).splitlines() == [
    "        ssim    gmsd",
    "model higher   lower",
    "first 0.5000* 0.1000",
    "b          -  0.0500*",
  ]


def test_crop_is_where_the_models_differ_most():
  pixels = np.full((300, 400, 3), 100, np.uint8)
  strong = pixels.copy()
  strong[100:260, 200:360] += 8
  both = {"a": pixels + np.uint8(2), "b": strong + np.uint8(2)}
  difference, rows, columns = comparison.find_difference(pixels, both)
  assert (difference, rows, columns) == (pytest.approx(8), slice(100, 260), slice(200, 360))
  difference, rows, columns = comparison.find_difference(pixels[:50, :70], {"a": strong[:50, :70]})
  assert (difference, rows, columns) == (0, slice(0, 50), slice(0, 70))


@pytest.fixture
def photos(tmp_path: Path, pixels: np.ndarray) -> Path:
  folder = tmp_path / "photos"
  folder.mkdir()
  for seed, name in enumerate(("a.png", "b.png")):
    Image.fromarray(np.roll(pixels, 8 * seed, axis=1)).save(folder / name)
  return folder


@pytest.fixture
def run(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: Callable[[str], str]
) -> Callable[..., int]:
  """Runs the command in an empty folder, with maps of known forms and a fake Butteraugli."""
  fake(SAYS)
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
    *("psnr", "seed", "window", "models", "channels", "total", "gain_by_split"),
    *("images", "errors"),
  ]
  assert (result["psnr"], result["seed"], result["errors"]) == (30, 3, [])
  assert result["models"][0] == {"name": "bright", "title": "Bright"}
  assert [image["path"] for image in result["images"]] == [
    str(photos / name) for name in ("a.png", "b.png")
  ]
  for model in ("bright", "uniform"):
    for figure in ("ssim", "gmsd", "fsim", "butteraugli_3norm"):
      values = [image["total"][model][figure] for image in result["images"]]
      assert result["total"]["mean"][model][figure] == pytest.approx(np.mean(values))
    for image in result["images"]:
      for figure in ("psnr_r", "psnr_g", "psnr_b", "psnr"):
        assert image["channels"][model][figure] == pytest.approx(30, abs=0.006)
      assert image["total"][model]["psnr"] == pytest.approx(30, abs=0.006)
      assert image["total"][model]["ms_ssim"] is None
  bright = result["images"][0]["total"]["bright"]
  assert bright["psnr_r"] < bright["psnr_g"] < bright["psnr_b"]
  assert bright["scale_r"] == bright["scale_b"]
  assert result["channels"]["first_better"].keys() == {"uniform"}
  assert result["channels"]["first_better"]["uniform"]["butteraugli_max"] == 0

  heads = [line for line in stdout.splitlines() if line.startswith(("30 dB", "What"))]
  assert heads == [
    "30 dB in each of R, G and B: means over 2 images, * the best",
    "30 dB in each of R, G and B: on how many of the images bright is better",
    "30 dB over the three channels together: means over 2 images, * the best",
    "30 dB over the three channels together: on how many of the images bright is better",
    "What a model's own split among the channels gains, + being better",
  ]
  assert "butteraugli" in stdout
  assert stdout.endswith("ms_ssim: 2 of 2 images are smaller than the 161x161 that it needs\n")
  sheet = read_image(Path("out/s.png"))
  assert sheet.shape[1] > 3 * 5 * SIZE[1], "three panels in a row, five times as large"
  assert (sheet == pixels[0, 0]).all(axis=-1).any()


def test_scores_are_the_library_s(pixels: np.ndarray, jnd: np.ndarray):
  noisy = add(pixels, jnd, 30).pixels
  measured = comparison.score(noisy, pixels, program=None)
  pair = (jnp.asarray(image[None], jnp.float32) / 255 for image in (noisy, pixels))
  assert measured["gmsd"] == pytest.approx(float(gmsd(*pair)[0]), rel=1e-5)
  assert not [name for name in measured if "butteraugli" in name]


def test_same_signs_for_every_model(pixels: np.ndarray, jnd: np.ndarray):
  models = {"a": lambda _: jnd, "b": lambda _: jnd[::-1]}
  noisy = comparison.compare(pixels, models, psnr_db=25, seed=0, program=None).noisy
  change = {name: copy.astype(int) - pixels for name, copy in noisy.items()}
  assert (change["a"] * change["b"] >= 0).all()


def test_without_butteraugli(
  run: Callable[..., int],
  photos: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  monkeypatch.setenv("PATH", os.devnull)
  assert run("--path", photos, "--json", "r.json") == 1
  stdout, stderr = capsys.readouterr()
  assert re.fullmatch(r"compare: left out: butteraugli_main .* libjxl-devtools\n", stderr)
  assert "butteraugli" not in stdout
  assert "butteraugli_" not in Path("r.json").read_text().replace(str(photos), "")


def test_failures_are_named_and_the_rest_goes_on(
  run: Callable[..., int], photos: Path, capsys: pytest.CaptureFixture[str]
):
  (photos / "broken.png").touch()
  Image.new("RGB", (7, 9)).save(photos / "small.png")
  assert run("--path", photos, "--json", "r.json", models="uniform,none,bright") == 1
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


def test_nothing_but_failures(
  run: Callable[..., int], photos: Path, capsys: pytest.CaptureFixture[str]
):
  assert run("--path", photos, "--sheet", "s.png", "--json", "r.json", models="none") == 1
  stdout, stderr = capsys.readouterr()
  assert stdout.count("no image on which every model could be scored") == 2
  assert "compare: s.png not written: no image has every model's noise\n" in stderr
  assert json.loads(Path("r.json").read_text())["total"] == {"mean": {}, "first_better": {}}


def test_butteraugli_that_fails_is_named(
  run: Callable[..., int],
  fake: Callable[[str], str],
  photos: Path,
  capsys: pytest.CaptureFixture[str],
):
  fake("echo broken >&2; exit 1")
  assert run("--path", photos, models="uniform") == 1
  line = "uniform: butteraugli_main ended with 1: broken\n"
  assert capsys.readouterr().err.count(line) == 2


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
    "--models: unknown model 'nowhere'; known: default, paper, masking, uniform, bright, none, "
    "folders of weights",
  ),
  "no model": (("--models", ""), "--models: unknown model ''; known: default"),
  "folder without weights": (("--models", "photos"), "photos/manifest.json: No such file"),
  "no such path": (("--path", "nowhere"), "no such file or folder: nowhere"),
  "json to a folder": (("--path", "photos", "--json", "photos"), "--json photos: a folder"),
  "sheet over an image": (
    ("--path", "photos", "--sheet", "photos/a.png"),
    "--sheet photos/a.png: one of the images; choose another file",
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
  assert parsed.models.split(",") == ["default", "paper", "masking", *BASELINES]

"""The evaluation command: what it computes, prints and reports."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from hvsjnd_jax import eval as command
from hvsjnd_jax import weights
from hvsjnd_jax.data.images import Picture, read_image, to_uint8
from hvsjnd_jax.estimator import estimate
from hvsjnd_jax.evaluation.evaluate import Copy, Evaluation
from hvsjnd_jax.metrics import fsim
from hvsjnd_jax.metrics.backbones import VGG16
from hvsjnd_jax.model import windows
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.noise import draw_signs, inject
from hvsjnd_jax.ops.samples import reduce_to_8_bits
from hvsjnd_jax.runtime.jobs import as_job
from tests.support.colors import encode_deep_png
from tests.support.evaluating import OUTPUTS, PSNRS, SIZE, draw, photos, report, run

__all__ = ["photos", "report", "run"]  # fixtures


def test_prints_the_published_words(
  run: Callable[..., int], photos: Path, capsys: pytest.CaptureFixture[str]
):
  assert run("--path", photos, "--lmbda", 10) == 0
  stdout, stderr = capsys.readouterr()
  number = r"\d+\.\d{4}\n"
  lines = "".join(rf"{name} PSNR: {number}" for name in ("Result-R", "Result-G", "Result-B"))
  lines += f"Total PSNR: {number}"
  names = (photos / name for name in ("a/c.png", "b.png", "d.bmp"))
  images = "".join(f"Images Path is: {re.escape(str(name))}\n{lines}" for name in names)
  skipped = re.escape(f"Files skipped, having no image's extension: 1 ({photos}/notes.txt)\n")
  assert re.fullmatch(f"{skipped}{images}Mean over 3 images:\n{lines}", stdout)
  assert stderr == "", "no progress bar where nobody watches"


def test_json_holds_all_scores(
  report: Callable[..., dict[str, Any]], photos: Path, weights_folder: Path
):
  (photos / "a/broken.png").touch()
  result = report("--path", photos, "--lmbda", 2.5, "--seed", 3, status=1)
  assert list(result) == [
    *("lmbda", "target_psnr", "found_lmbda", "seed", "window", "weights"),
    *("images", "mean", "errors", "skipped"),
  ]
  assert (result["target_psnr"], result["found_lmbda"]) == (None, None)
  assert [image["lmbda"] for image in result["images"]] == [2.5] * 3
  assert result["window"] == [128, 128]
  assert (result["lmbda"], result["seed"]) == (2.5, 3)
  assert result["weights"] == {
    "name": str(weights_folder),
    "sha256": weights.read_manifest(weights_folder)["sha256"],
    "resolution": "reference",
    "attention": "reconstruction",
    "dtype": "float32",
  }
  names = ["a/c.png", "b.png", "d.bmp"]
  assert [image["path"] for image in result["images"]] == [str(photos / name) for name in names]
  for name in PSNRS:
    values = [image[name] for image in result["images"]]
    assert result["mean"][name] == pytest.approx(np.mean(values))
  assert result["errors"] == [
    {"path": str(photos / "a/broken.png"), "error": "not an image that Pillow can read"}
  ]


def test_scores_and_pictures_are_the_method_s(
  report: Callable[..., dict[str, Any]], photos: Path, model: JNDModel, tmp_path: Path
):
  result = report("--path", photos / "b.png", "--lmbda", 10, "--save", "out")
  pixels = read_image(photos / "b.png")
  pictures = {f"b_{name}" for name in OUTPUTS}
  assert {file.name for file in Path("out").iterdir()} == {*pictures, "index.html"}
  jnd = np.load("out/b_jnd.npy")
  wanted = estimate(model, jax.numpy.asarray(pixels[None] / 255, "float32"))[0]
  np.testing.assert_allclose(jnd, wanted, atol=1e-6)

  # Each pixel moved by ±10 JND, the three channels the same way, and no further than to
  # black or white; then rounded.
  distorted = read_image(Path("out/b_distorted.png")).astype(float)
  up, down = (np.clip(pixels / 255 + s * 10 * jnd, 0, 1) * 255 for s in (1, -1))
  is_up, is_down = (np.abs(distorted - y).max(-1) < 0.51 for y in (up, down))
  assert (is_up | is_down).all()
  assert 0.3 < (is_up & ~is_down).mean() < 0.7

  # Of the rounded picture: its error is within 1/2 of the exact one's.
  [image] = result["images"]
  error = np.square(np.where(is_up[..., None], up, down) - pixels)
  assert image["psnr"] == pytest.approx(10 * np.log10(255**2 / error.mean()), abs=1e-3)
  for name, mse in zip(PSNRS, error.mean((0, 1)), strict=False):
    assert image[name] == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-3)
  for name in ("jnd", "attention"):
    assert read_image(Path(f"out/b_{name}.png")).shape == pixels.shape
  assert result["mean"] == {name: image[name] for name in PSNRS}


@pytest.mark.parametrize("db", [8, 32.57, 60])
def test_every_image_has_the_psnr_asked_for(
  report: Callable[..., dict[str, Any]],
  photos: Path,
  capsys: pytest.CaptureFixture[str],
  db: float,
):
  result = report("--path", photos, "--psnr", db)
  assert (result["lmbda"], result["target_psnr"], result["errors"]) == (None, db, [])
  for image in result["images"]:
    assert image["psnr"] == pytest.approx(db, abs=0.005)
  lmbdas = [image["lmbda"] for image in result["images"]]
  assert len(set(lmbdas)) == 3, "each its own"
  found = result["found_lmbda"]
  assert found == {
    "mean": pytest.approx(np.mean(lmbdas)),
    "median": pytest.approx(np.median(lmbdas)),
  }
  lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("lmbda")]
  assert lines == [
    *(f"lmbda: {lmbda:.6g}" for lmbda in lmbdas),
    f"lmbda: {found['mean']:.6g}, median {found['median']:.6g}",
  ]


def test_lmbda_that_was_found_gives_the_same_again(
  report: Callable[..., dict[str, Any]], photos: Path
):
  arguments = ("--path", photos / "b.png", "--dtype", "bfloat16", "--save", "out")
  [solved] = report(*arguments, "--psnr", 30)["images"]
  picture = Path("out/b_distorted.png").read_bytes()
  [given] = report(*arguments, "--lmbda", solved["lmbda"])["images"]
  assert given == solved
  assert Path("out/b_distorted.png").read_bytes() == picture


def test_psnr_that_an_image_cannot_have_is_named_and_the_rest_goes_on(
  report: Callable[..., dict[str, Any]], photos: Path, capsys: pytest.CaptureFixture[str]
):
  # From random values black and white are 4.8 dB away, from gray 6.0.
  gray = photos / "gray.png"
  noise = np.random.RandomState(4).randint(-2, 3, (*SIZE, 3))
  Image.fromarray((128 + noise).astype(np.uint8)).save(gray)
  result = report("--path", photos, "--psnr", 5.5, status=1)
  (error,) = result["errors"]
  assert error["path"] == str(gray)
  assert re.match(r"5.5 dB cannot be reached: at most noise it is \d.\d\d dB, ", error["error"])
  assert [image["psnr"] for image in result["images"]] == pytest.approx([5.5] * 3, abs=0.005)
  assert capsys.readouterr().err.splitlines() == [
    f"eval: {gray}: {error['error']}",
    "eval: 1 of 4 files could not be used",
  ]


def test_map_of_zeros_reaches_no_psnr(
  report: Callable[..., dict[str, Any]], photos: Path, monkeypatch: pytest.MonkeyPatch
):
  start = windows.Analyzer.start

  def draw_zeros(*args: Any) -> Any:
    maps = yield from start(*args)
    return maps._replace(jnd=np.zeros_like(maps.jnd))

  monkeypatch.setattr(windows.Analyzer, "start", draw_zeros)
  result = report("--path", photos / "b.png", "--psnr", 30, status=1)
  assert (result["images"], result["found_lmbda"]) == ([], None)
  (error,) = result["errors"]
  assert error["error"] == "30 dB cannot be reached: the map is zero throughout"


def test_no_noise_is_100_db(report: Callable[..., dict[str, Any]], photos: Path):
  result = report("--path", photos / "b.png", "--lmbda", 0, "--save", "out")
  assert result["mean"] == dict.fromkeys(PSNRS, 100)
  np.testing.assert_array_equal(
    read_image(Path("out/b_distorted.png")), read_image(photos / "b.png")
  )


def test_metrics_are_reported_in_the_order_asked_for(
  report: Callable[..., dict[str, Any]], photos: Path, capsys: pytest.CaptureFixture[str]
):
  result = report("--path", photos, "--lmbda", 10, "--metrics", "gmsd, psnr,ssim,gmsd")
  number = r"\d+\.\d{4}"
  lines = rf"gmsd: 0\.\d{{6}}\n(.* PSNR: {number}\n){{4}}ssim: 0\.\d{{6}}\n"
  image = rf"Images Path is: .*\n{lines}"
  stdout = capsys.readouterr().out
  assert re.fullmatch(rf".*extension: 1 .*\n({image}){{3}}Mean over 3 images:\n{lines}", stdout)
  for record in result["images"]:
    assert list(record) == ["path", "height", "width", "lmbda", "gmsd", *PSNRS, "ssim"]
  assert list(result["mean"]) == ["gmsd", *PSNRS, "ssim"]
  for name in result["mean"]:
    values = [record[name] for record in result["images"]]
    assert result["mean"][name] == pytest.approx(np.mean(values))


def test_metrics_are_those_of_the_library(report: Callable[..., dict[str, Any]], photos: Path):
  result = report("--path", photos / "b.png", "--lmbda", 10, "--metrics", "fsim", "--save", "out")
  assert result["mean"].keys() == {"fsim"}
  distorted, reference = (
    jax.numpy.asarray(read_image(file)[None] / 255, "float32")
    for file in (Path("out/b_distorted.png"), photos / "b.png")
  )
  # The saved picture is rounded to 8 bits.
  assert result["mean"]["fsim"] == pytest.approx(float(fsim(distorted, reference)[0]), abs=1e-3)


def test_16_bits_reach_the_map_and_the_noise(
  report: Callable[..., dict[str, Any]], photos: Path, weights_folder: Path
):
  """Of a ramp within one 8-bit level, which is flat in 8 bits."""
  ramp = np.linspace(30000, 30128, SIZE[1]).astype(np.uint16)
  samples = np.broadcast_to(ramp[:, None], (*SIZE, 3))
  deep, flat = photos / "deep.png", photos / "flat.png"
  deep.write_bytes(encode_deep_png(samples))
  Image.fromarray(reduce_to_8_bits(samples)).save(flat)
  report("--path", deep, flat, "--lmbda", 10, "--save", "out")
  drawn = np.load("out/deep_jnd.npy")
  image = (samples[None] / 65535).astype(np.float32)
  wanted = estimate(weights.load(weights_folder), image)[0]
  np.testing.assert_allclose(drawn, wanted, rtol=1e-3, atol=1e-6)
  assert np.abs(drawn - np.load("out/flat_jnd.npy")).max() > 1e-4
  distorted = read_image(Path("out/deep_distorted.png"))
  signs = draw_signs(read_image(deep), seed=0)
  noisy = inject(image, drawn[None], signs, lmbda=10)[0]
  np.testing.assert_array_equal(distorted, to_uint8(np.asarray(noisy)))


def test_image_too_small_for_a_metric(
  report: Callable[..., dict[str, Any]], photos: Path, capsys: pytest.CaptureFixture[str]
):
  draw(6).resize((10, 9)).save(photos / "small.png")
  result = report("--path", photos, "--metrics", "ssim,ms_ssim", status=1)
  stdout, stderr = capsys.readouterr()
  assert "small.png\nssim: 10x9 pixels; at least 11x11 are needed\nms_ssim: 10x9 pixels;" in stdout
  assert stdout.endswith("ms_ssim: no image is large enough; at least 161x161 are needed\n")
  assert stderr == ""
  ssims = [image["ssim"] for image in result["images"]]
  assert ssims[3] is None
  assert result["mean"] == {"ssim": pytest.approx(np.mean(ssims[:3])), "ms_ssim": None}
  assert result["errors"] == []


def test_dists_with_its_network(
  report: Callable[..., dict[str, Any]], photos: Path, tmp_path: Path
):
  weights.save(tmp_path / "vgg16", VGG16(rngs=nnx.Rngs(0)), provenance={})
  arguments = ("--path", photos / "b.png", "--metrics", "dists", "--vgg16", "vgg16")
  assert report(*arguments, "--lmbda", 0)["mean"] == {"dists": 0}
  assert 0 < report(*arguments, "--lmbda", 10)["mean"]["dists"] < 1


def test_bytes_follow_from_seed_and_image_alone(run: Callable[..., int], photos: Path):
  files = [photos / name for name in ("b.png", "a/c.png", "d.bmp")]
  for index, order in enumerate([files, files[::-1], [photos], files[1:2]]):
    assert run("--path", *order, "--lmbda", 10, "--save", f"out{index}") == 0
  assert run("--path", photos, "--lmbda", 10, "--seed", 1, "--save", "reseeded") == 0

  def distorted(folder: str, name: str = "a/c") -> bytes:
    return Path(folder, f"{name}_distorted.png").read_bytes()

  assert distorted("out0") == distorted("out1") == distorted("out2") == distorted("out3", "c")
  assert distorted("out0", "b") == distorted("out1", "b") == distorted("out2", "b")
  assert distorted("reseeded") != distorted("out0")


def test_options_reach_the_model(report: Callable[..., dict[str, Any]], photos: Path):
  plain = report("--path", photos / "b.png", "--lmbda", 10)
  for option, value in (
    ("resolution", "native"),
    ("attention-layer", "feature"),
    ("dtype", "bfloat16"),
  ):
    other = report("--path", photos / "b.png", "--lmbda", 10, f"--{option}", value)
    assert other["weights"][option.removesuffix("-layer")] == value
    assert other["mean"] != plain["mean"]


def test_attention_of_weights_without_hvs_sd_is_refused(
  photos: Path, capsys: pytest.CaptureFixture[str]
):
  arguments = ["--path", str(photos), "--model", "fast", "--attention-layer", "feature"]
  assert command.main(arguments) == 2
  assert "--model fast: these weights have no attention to read" in capsys.readouterr().err


def test_unknown_model_is_named(photos: Path, capsys: pytest.CaptureFixture[str]):
  assert command.main(["--path", str(photos), "--model", "deafult"]) == 2
  assert capsys.readouterr().err == (
    "eval: --model: unknown model 'deafult'; known: default, fast, paper, folders of weights\n"
  )


def test_pictures_among_the_images_are_refused(photos: Path, capsys: pytest.CaptureFixture[str]):
  before = sorted(photos.iterdir())
  assert command.main(["--path", str(photos), "--save", f"{photos}/../{photos.name}"]) == 2
  assert "holds the images; choose another folder" in capsys.readouterr().err
  assert sorted(photos.iterdir()) == before


def test_without_path_four_photographs_are_evaluated(
  run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
  seen = []

  @as_job
  def evaluate(analyzer: windows.Analyzer, picture: Picture, **_: object) -> Evaluation:
    pixels = picture.pixels
    seen.append(pixels.shape)
    return Evaluation(pixels, pixels, [Copy(pixels, 1.0, dict.fromkeys(PSNRS, 50.0), {})])

  monkeypatch.setattr(command, "evaluate", evaluate)
  assert run() == 0
  assert seen == [(512, 512, 3), (300, 451, 3), (400, 600, 3), (427, 640, 3)]
  assert "Mean over 4 images:\nResult-R PSNR: 50.0000\n" in capsys.readouterr().out


def test_folder_of_other_sizes_compiles_nothing_more(
  report: Callable[..., dict[str, Any]], photos: Path
):
  assert report("--path", photos)["window"] == [128, 128]
  for index, size in enumerate([(130, 90), (31, 77), (8, 300), (128, 129)]):
    draw(index).resize(size).save(photos / f"{index}.png")

  compiled: list[str] = []

  def count(event: str, duration_secs: float, **_: object) -> None:
    del duration_secs
    if event == "/jax/core/compile/backend_compile_duration":
      compiled.append(event)

  jax.monitoring.register_event_duration_secs_listener(count)
  try:
    assert len(report("--path", photos, "--window", "128x128")["images"]) == 7
  finally:
    jax.monitoring.unregister_event_duration_listener(count)
  assert compiled == []


def test_window_changes_rounding_alone(report: Callable[..., dict[str, Any]], photos: Path):
  draw(0).resize((300, 200)).save(photos / "large.png")
  results = [
    report("--path", photos, "--lmbda", 10, "--window", size) for size in ("128x160", "208x304")
  ]
  assert results[0]["window"] == [128, 160]
  assert results[0]["mean"] == pytest.approx(results[1]["mean"], abs=1e-3)


def test_wasteful_window_is_told(
  report: Callable[..., dict[str, Any]], photos: Path, capsys: pytest.CaptureFixture[str]
):
  report("--path", photos, "--window", "128x176")
  assert capsys.readouterr().err == ""
  report("--path", photos, "--window", "128x384")
  assert capsys.readouterr().err == (
    "eval: --window 128x384: computes 3.0 times the pixels of 128x128, the window chosen "
    "without it\n"
  )

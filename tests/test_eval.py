"""The evaluation command: what it prints and writes, and that nothing brings it down."""

import io
import itertools
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import termios
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
from hvsjnd_jax.cli import saved_images
from hvsjnd_jax.data.images import read_image
from hvsjnd_jax.estimator import estimate
from hvsjnd_jax.eval import main
from hvsjnd_jax.evaluation.evaluate import Evaluation
from hvsjnd_jax.metrics import fsim
from hvsjnd_jax.metrics.backbones import VGG16
from hvsjnd_jax.model import windows
from hvsjnd_jax.model.jnd_model import JNDModel

ROOT = Path(__file__).parents[1]
SIZE = (16, 24)  # one for all tests: one compilation

PSNRS = ("psnr_r", "psnr_g", "psnr_b", "psnr")
OUTPUTS = ("distorted.png", "jnd.png", "jnd.npy", "attention.png", "sheet.png")


def draw(seed: int) -> Image.Image:
  return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (*SIZE, 3)).astype(np.uint8))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
  """Three photographs and a note, in a folder and its subfolder."""
  folder = tmp_path / "photos"
  (folder / "a").mkdir(parents=True)
  for seed, name in enumerate(("b.png", "a/c.png", "d.bmp")):
    draw(seed).save(folder / name)
  (folder / "notes.txt").touch()
  return folder


@pytest.fixture
def run(
  weights_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
  monkeypatch.chdir(tmp_path)

  def run(*arguments: object) -> int:
    return main([*map(str, arguments), "--model", str(weights_folder)])

  return run


@pytest.fixture
def report(run: Callable[..., int], tmp_path: Path) -> Callable[..., dict[str, Any]]:
  """Runs the command, and reads the JSON that it wrote."""

  def report(*arguments: object, status: int = 0) -> dict[str, Any]:
    assert run(*arguments, "--json", tmp_path / "report.json") == status
    return json.loads((tmp_path / "report.json").read_text())

  return report


def test_prints_the_published_words(
  run: Callable[..., int], photos: Path, capsys: pytest.CaptureFixture[str]
):
  assert run("--path", photos, "--lmbda", 10) == 0
  stdout, stderr = capsys.readouterr()
  number = r"\d+\.\d{4}\n"
  figures = "".join(rf"{name} PSNR: {number}" for name in ("Result-R", "Result-G", "Result-B"))
  figures += f"Total PSNR: {number}"
  names = (photos / name for name in ("a/c.png", "b.png", "d.bmp"))
  images = "".join(f"Images Path is: {re.escape(str(name))}\n{figures}" for name in names)
  assert re.fullmatch(
    f"Files skipped, having no image's extension: 1\n{images}Mean over 3 images:\n{figures}", stdout
  )
  assert stderr == "", "no progress bar where nobody watches"


def test_json_holds_all_figures(
  report: Callable[..., dict[str, Any]], photos: Path, weights_folder: Path
):
  (photos / "a/broken.png").touch()
  result = report("--path", photos, "--lmbda", 2.5, "--seed", 3, status=1)
  assert list(result) == [
    *("lmbda", "target_psnr", "found_lmbda", "seed", "window", "weights"),
    *("images", "mean", "errors"),
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
  for figure in PSNRS:
    values = [image[figure] for image in result["images"]]
    assert result["mean"][figure] == pytest.approx(np.mean(values))
  assert result["errors"] == [
    {"path": str(photos / "a/broken.png"), "error": "not an image that Pillow can read"}
  ]


def test_figures_and_pictures_are_the_method_s(
  report: Callable[..., dict[str, Any]], photos: Path, model: JNDModel, tmp_path: Path
):
  result = report("--path", photos / "b.png", "--lmbda", 10, "--save", "out")
  pixels = read_image(photos / "b.png")
  assert {file.name for file in Path("out").iterdir()} == {f"b_{name}" for name in OUTPUTS}
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
  for figure, mse in zip(PSNRS, error.mean((0, 1)), strict=False):
    assert image[figure] == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-3)
  for name in ("jnd", "attention"):
    assert read_image(Path(f"out/b_{name}.png")).shape == pixels.shape
  assert result["mean"] == {figure: image[figure] for figure in PSNRS}


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
  analyze = windows.analyze

  def draw_zeros(*args: Any, **options: Any) -> Any:
    maps = analyze(*args, **options)
    return maps._replace(jnd=np.zeros_like(maps.jnd))

  monkeypatch.setattr(windows, "analyze", draw_zeros)
  result = report("--path", photos / "b.png", "--psnr", 30, status=1)
  assert (result["images"], result["found_lmbda"]) == ([], None)
  (error,) = result["errors"]
  assert error["error"] == "30 dB cannot be reached: the map is zero throughout"


def test_lmbda_and_psnr_exclude_each_other(capsys: pytest.CaptureFixture[str]):
  with pytest.raises(SystemExit, match="2"):
    main(["--lmbda", "1", "--psnr", "30"])
  stderr = capsys.readouterr().err
  assert "argument --psnr: not allowed with argument --lmbda" in stderr


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
  figures = rf"gmsd: 0\.\d{{6}}\n(.* PSNR: {number}\n){{4}}ssim: 0\.\d{{6}}\n"
  image = rf"Images Path is: .*\n{figures}"
  stdout = capsys.readouterr().out
  assert re.fullmatch(rf".*extension: 1\n({image}){{3}}Mean over 3 images:\n{figures}", stdout)
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


def test_without_path_four_photographs_are_evaluated(
  run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
  seen = []

  def evaluate(model: JNDModel, pixels: np.ndarray, **_: object) -> Evaluation:
    seen.append(pixels.shape)
    return Evaluation(pixels, pixels, pixels, 1.0, dict.fromkeys(PSNRS, 50.0))

  monkeypatch.setattr(command, "evaluate", evaluate)
  assert run() == 0
  assert seen == [(512, 512, 3), (300, 451, 3), (400, 600, 3), (427, 640, 3)]
  assert "Mean over 4 images:\nResult-R PSNR: 50.0000\n" in capsys.readouterr().out


def test_bad_files_are_named_and_the_rest_goes_on(
  report: Callable[..., dict[str, Any]], photos: Path, capfd: pytest.CaptureFixture[str]
):
  (photos / "empty.png").touch()
  (photos / "text.jpg").write_text("no picture")
  draw(5).save(photos / "short.jpg")
  (photos / "short.jpg").write_bytes((photos / "short.jpg").read_bytes()[:-300])
  (photos / "dangling.png").symlink_to("nowhere.png")
  draw(6).resize((7, 9)).save(photos / "small.png")
  bad = ("dangling.png", "empty.png", "short.jpg", "small.png", "text.jpg")
  result = report("--path", photos, status=1)
  assert len(result["images"]) == 3
  assert [error["path"] for error in result["errors"]] == [str(photos / name) for name in bad]
  lines = capfd.readouterr().err.splitlines()
  assert lines == [
    *(f"eval: {error['path']}: {error['error']}" for error in result["errors"]),
    "eval: 5 of 8 files could not be used",
  ]


def test_nothing_but_bad_files(report: Callable[..., dict[str, Any]], tmp_path: Path):
  (tmp_path / "x.png").touch()
  result = report("--path", tmp_path / "x.png", status=1)
  assert (result["images"], result["mean"]) == ([], {})


def test_pillow_s_warnings_are_no_clutter(
  run: Callable[..., int],
  photos: Path,
  monkeypatch: pytest.MonkeyPatch,
  capfd: pytest.CaptureFixture[str],
):
  draw(5).save(photos / "exif.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 5)
  # libtiff tells of damage by itself, past Python.
  draw(6).save(photos / "damaged.tif", compression="tiff_lzw")
  data = bytearray((photos / "damaged.tif").read_bytes())
  data[100:110] = bytes(10)
  (photos / "damaged.tif").write_bytes(data)
  # Between the limit and twice it, Pillow warns.
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", SIZE[0] * SIZE[1] - 1)
  assert run("--path", photos) == 1
  stdout, stderr = capfd.readouterr()
  assert re.fullmatch(r"eval: .*damaged.tif: damaged.*\neval: 1 of 5 files .*\n", stderr)
  assert "Mean over 4 images" in stdout


def test_image_too_large_for_the_machine(
  report: Callable[..., dict[str, Any]], photos: Path, monkeypatch: pytest.MonkeyPatch
):
  def fail(*args: object, **options: object) -> None:
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nand a long story")

  monkeypatch.setattr(windows, "analyze", fail)
  errors = report("--path", photos, status=1)["errors"]
  assert {error["error"] for error in errors} == {
    "24x16 pixels cannot be computed here: RESOURCE_EXHAUSTED: Out of memory"
  }


def test_image_for_more_memory_than_there_is(
  report: Callable[..., dict[str, Any]], photos: Path, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setattr(command, "_BYTES_PER_PIXEL", 10**12)
  errors = report("--path", photos, status=1)["errors"]
  assert len(errors) == 3
  assert re.fullmatch(
    r"24x16 pixels need about 384000 GB of memory, and this machine has \d+ GB; reduce the image",
    errors[0]["error"],
  )


def test_image_below_8_pixels(report: Callable[..., dict[str, Any]], photos: Path):
  draw(6).resize((7, 9)).save(photos / "small.png")
  (error,) = report("--path", photos, status=1)["errors"]
  assert error["error"] == "7x9 pixels; at least 8x8 are needed"


WRONG = {
  "no such path": (("--path", "nowhere"), "no such file or folder: nowhere"),
  "one of two paths": (("--path", "photos", "nowhere"), "no such file or folder: nowhere"),
  "long path": (("--path", "n" * 300), "no such file or folder: nnn"),
  "no image": (("--path", "empty"), "no image under empty: looked for .*[.]jpg .*[.]png "),
  "no weights": (("--path", "photos", "--model", "empty"), "manifest.json: No such file"),
  "model without networks": (
    ("--path", "photos", "--model", "masking"),
    "--model masking: expected a model with networks: .*; compare and calibrate take masking",
  ),
  "save to a file": (("--path", "photos", "--save", "file"), "file: no folder, and cannot be"),
  "save below a file": (("--path", "photos", "--save", "file/x"), "file/x: no folder, and"),
  "json to a folder": (("--path", "photos", "--json", "empty"), "--json empty: a folder"),
  "json below a file": (("--path", "photos", "--json", "file/x"), "file: no folder, and"),
  "unknown metric": (
    ("--path", "photos", "--metrics", "ssim,x"),
    "--metrics: unknown metric 'x'; known: psnr, ssim, .*gmsd, fsim, dists",
  ),
  "no metric": (("--path", "photos", "--metrics", ""), "--metrics: unknown metric ''; known: psnr"),
  "metric without its network": (
    ("--path", "photos", "--metrics", "psnr,dists"),
    "--metrics dists: .*vgg16-397923af.pth .*https://download.pytorch.org.*: "
    "python -m convert.from_torch --vgg16 vgg16-397923af.pth --out DIR; then add --vgg16 DIR",
  ),
  "no such network": (
    ("--path", "photos", "--metrics", "dists", "--vgg16", "nowhere"),
    ".*nowhere: no such folder.*--vgg16 vgg16-397923af.pth",
  ),
  "json to a full disk": (("--path", "photos", "--json", "/dev/full"), "/dev/full: cannot be"),
}


@pytest.mark.parametrize(("arguments", "reason"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_done_is_said(
  photos: Path,
  run: Callable[..., int],
  weights_folder: Path,
  capsys: pytest.CaptureFixture[str],
  arguments: tuple[str, ...],
  reason: str,
):
  Path("empty").mkdir()
  Path("file").touch()
  assert main(["--model", str(weights_folder), *arguments]) == 2
  stderr = capsys.readouterr().err
  assert re.match(f"eval: .*{reason}", stderr)
  assert stderr.count("\n") == 1


@pytest.mark.parametrize(
  ("option", "value", "reason"),
  [
    ("lmbda", "nan", "expected a number from 0 to 3.4e[+]38, got nan"),
    ("lmbda", "-1", "expected a number from 0 .*, got -1"),
    ("lmbda", "abc", "expected a number from 0 .*, got abc"),
    ("lmbda", "inf", "expected a number from 0 .*, got inf"),
    ("lmbda", "1e39", "expected a number from 0 .*, got 1e39"),
    ("psnr", "0", "expected a number of dB between 0 and 100, got 0"),
    ("psnr", "nan", "expected a number of dB between 0 and 100, got nan"),
    ("seed", "-1", "expected a whole number from 0 to 4294967295, got -1"),
    ("seed", "1.5", "expected a whole number from 0 .*, got 1.5"),
    ("seed", "4294967296", "expected a whole number from 0 .*, got 4294967296"),
    ("resolution", "8k", "invalid choice: '8k'"),
    ("attention-layer", "none", "invalid choice: 'none'"),
    ("window", "512", "expected HEIGHTxWIDTH, such as 512x768, got 512"),
    ("window", "100x128", "window: expected sides that are multiples of 8 above 112, got 100x128"),
    ("dtype", "float8", "invalid choice: 'float8'"),
  ],
)
def test_bad_option(capsys: pytest.CaptureFixture[str], option: str, value: str, reason: str):
  with pytest.raises(SystemExit, match="2"):
    main([f"--{option}", value])
  assert re.search(f"argument --{option}: {reason}", capsys.readouterr().err)


def test_largest_options(report: Callable[..., dict[str, Any]], photos: Path):
  result = report("--path", photos / "b.png", "--lmbda", 3.4e38, "--seed", 2**32 - 1)
  assert 0 < result["mean"]["psnr"] < 10


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


def test_image_given_twice_is_evaluated_once(report: Callable[..., dict[str, Any]], photos: Path):
  result = report("--path", photos / "b.png", photos, "--path", photos / "a/../b.png")
  assert [Path(image["path"]).name for image in result["images"]] == ["b.png", "c.png", "d.bmp"]


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

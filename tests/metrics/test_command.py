"""The command of the metrics: scores of pairs, the report, and maps."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax import metrics
from hvsjnd_jax.data.images import read_image
from hvsjnd_jax.metrics.__main__ import main
from hvsjnd_jax.viz.sheets import jet


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  """Makes the current folder: references `a` and `b` in photos, and noisy copies in coded."""
  monkeypatch.chdir(tmp_path)
  rng = np.random.default_rng(0)
  for folder in ("photos", "coded"):
    Path(folder).mkdir()
  for name in "ab":
    pixels = rng.integers(20, 236, (20, 28, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(f"photos/{name}.png")
    noisy = pixels + rng.integers(-20, 21, pixels.shape)
    Image.fromarray(noisy.astype(np.uint8)).save(f"coded/{name}.bmp")
  return tmp_path


def run(*arguments: str, distorted: str = "coded", reference: str = "photos") -> int:
  return main(["--distorted", distorted, "--reference", reference, *arguments])


def as_float(file: str) -> jax.Array:
  return jnp.asarray(read_image(Path(file))[None], jnp.float32) / 255


def test_folders_are_scored(folders: Path, capsys: pytest.CaptureFixture[str]):
  assert run("--metrics", "psnr,ssim", "--json", "out/r.json") == 0
  stdout, stderr = capsys.readouterr()
  assert stderr == ""
  report = json.loads(Path("out/r.json").read_text())
  first = ["distorted", "reference", "metrics"]
  assert list(report) == [*first, "images", "mean", "errors", "skipped"]
  assert report["metrics"] == ["psnr", "ssim"]
  assert report["errors"] == []
  for image, name in zip(report["images"], "ab", strict=True):
    files = {"distorted": f"coded/{name}.bmp", "reference": f"photos/{name}.png"}
    assert image.items() >= {"name": name, "height": 20, "width": 28, **files}.items()
    pair = [as_float(file) for file in files.values()]
    for metric in ("psnr", "ssim"):
      expected = float(getattr(metrics, metric)(*pair)[0])
      assert image[metric] == pytest.approx(expected, rel=1e-5)
  scores = [image["ssim"] for image in report["images"]]
  assert report["mean"]["ssim"] == pytest.approx(np.mean(scores))
  names, directions, *rows = [line.split() for line in stdout.splitlines()]
  assert names == ["psnr", "ssim"]
  assert directions == ["image", "dB,", "higher", "higher"]
  assert [row[0] for row in rows] == ["a", "b", "mean"]
  assert [float(row[-1]) for row in rows[:2]] == pytest.approx(scores, abs=1e-4)


def test_two_files_have_no_mean(folders: Path, capsys: pytest.CaptureFixture[str]):
  assert run("--metrics", "psnr", distorted="coded/a.bmp", reference="photos/b.png") == 0
  assert len(capsys.readouterr().out.splitlines()) == 3


def test_maps_are_numbers_and_pictures(folders: Path):
  status = run(
    "--metrics", "cvvdp", "--maps", "maps", distorted="coded/a.bmp", reference="photos/a.png"
  )
  assert status == 0
  assert sorted(file.name for file in Path("maps").iterdir()) == [
    "a_cvvdp.npy",
    "a_cvvdp_0-2.png",
  ]
  values = np.load("maps/a_cvvdp.npy")
  expected = metrics.cvvdp_map(as_float("coded/a.bmp"), as_float("photos/a.png"))[0]
  np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
  assert values.dtype == np.float32
  picture = read_image(Path("maps/a_cvvdp_0-2.png"))
  np.testing.assert_array_equal(picture, jet(np.clip(values / 2, 0, 1)))


def test_what_fails_takes_one_line_and_no_other_pair(
  folders: Path, capsys: pytest.CaptureFixture[str]
):
  Image.new("RGB", (9, 9)).save("coded/alone.png")
  Path("coded/damaged.png").write_bytes(b"none")
  for name in ("damaged", "other"):
    Image.new("RGB", (9, 9)).save(f"photos/{name}.png")
  Image.new("RGB", (9, 8)).save("coded/other.png")
  for folder in ("coded", "photos"):
    Image.new("RGB", (9, 9)).save(f"{folder}/small.png")
  assert run("--metrics", "ssim", "--json", "r.json") == 1
  stdout, stderr = capsys.readouterr()
  assert stderr.splitlines() == [
    "metrics: coded/alone.png: no image called alone in photos",
    "metrics: coded/damaged.png: not an image that Pillow can read",
    "metrics: coded/other.png: 9x8 pixels, but its reference photos/other.png has 9x9",
    "metrics: 3 files could not be used",
  ]
  *_, small, mean, too_small = stdout.splitlines()
  assert small.split() == ["small", "-"]
  assert mean.startswith("mean over 3")
  assert too_small == "ssim: 1 of 3 images are smaller than the 11x11 that it needs"
  report = json.loads(Path("r.json").read_text())
  assert [image["ssim"] is None for image in report["images"]] == [False, False, True]
  assert [error["path"] for error in report["errors"]] == [
    "coded/alone.png",
    "coded/damaged.png",
    "coded/other.png",
  ]


@pytest.mark.parametrize(
  ("arguments", "reason"),
  [
    (["--metrics", "lpips"], "--metrics: unknown metric 'lpips'; known: psnr, "),
    (["--metrics", "ssim", "--maps", "m"], "--maps: none of the --metrics has a map; these have: "),
    (["--metrics", "cvvdp", "--maps", "coded"], "coded: holds the images; choose another"),
    (["--metrics", "cvvdp", "--maps", "-"], "-: expected the name of a folder; only --json can"),
    (
      ["--metrics", "ssim", "--json", "photos/a.png"],
      "--json photos/a.png: one of the files to read",
    ),
    (["--metrics", "dists", "--vgg16", "none"], "ImageNet's VGG16 is needed"),
    (["--reference", "none"], "no such file or folder: none"),
  ],
)
def test_useless_arguments_end_in_one_line(
  folders: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
):
  assert run(*arguments) == 2
  stdout, stderr = capsys.readouterr()
  assert stdout == ""
  assert stderr.startswith(f"metrics: {reason}")
  assert stderr.count("\n") == 1

"""Pictures that `eval --save` writes: where they lie, and what they never replace."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax.cli import saved_images
from hvsjnd_jax.data.color_profiles import SRGB_CURVE, build_profile
from hvsjnd_jax.data.images import read_picture
from tests.support.colors import P3, chunk, insert_chunks
from tests.support.evaluating import OUTPUTS, draw, photos, report, run

__all__ = ["photos", "report", "run"]  # fixtures


def _names(folder: str) -> set[str]:
  """The images whose pictures lie in a folder, beside the page."""
  files = {str(file.relative_to(folder)) for file in Path(folder).rglob("*") if file.is_file()}
  stems = {name.removesuffix("_sheet.png") for name in files if name.endswith("_sheet.png")}
  pictures = {f"{stem}_{name}" for stem, name in itertools.product(stems, OUTPUTS)}
  assert files == pictures | {"index.html"}
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
  assert run("--path", photos / "b.png", "--save", photos) == 0
  before = (photos / "b_distorted.png").read_bytes()
  both = (photos / "b.png", photos / "b_original.png")
  assert run("--path", *both, "--save", photos, "--lmbda", 9) == 2
  assert re.search(
    r"_original.png is an image to evaluate; choose another folder for --save",
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


def _draw_with_alpha() -> Image.Image:
  image = draw(8)
  image.putalpha(Image.fromarray(np.linspace(0, 255, image.width * image.height).astype(np.uint8)
    .reshape(image.height, image.width)))  # fmt: skip
  return image


def test_colors_and_alpha_are_those_of_the_image(
  run: Callable[..., int], photos: Path, capsys: pytest.CaptureFixture[str]
):
  draw(5).save(photos / "p3.png", icc_profile=build_profile(SRGB_CURVE, P3))
  draw(6).save(photos / "broken.png", icc_profile=b"broken" * 99)
  hdr = insert_chunks((photos / "b.png").read_bytes(), chunk(b"cICP", bytes((9, 16, 0, 1))))
  (photos / "hdr.png").write_bytes(hdr)
  _draw_with_alpha().save(photos / "clear.png")
  assert run("--path", photos, "--save", "out", "--lmbda", 0) == 1
  ignored, lacking, hdr, count = sorted(capsys.readouterr().err.splitlines(), key=_by_reason)
  assert re.fullmatch(r"eval: \S+/broken.png: its colour profile is ignored, and .*", ignored)
  assert re.fullmatch(r"eval: \S+/p3.png: sRGB lacks the colours of \d+ of 384 pixels.*", lacking)
  assert re.fullmatch(r"eval: \S+/hdr.png: an HDR image \(PQ\).*", hdr)
  assert count == "eval: 1 of 7 files could not be used"

  for name in ("b", "p3", "broken", "clear"):
    saved = Path(f"out/{name}_distorted.png")
    assert saved.read_bytes() == Path(f"out/{name}_original.png").read_bytes(), "nothing blinks"
    assert b"sRGB\x01" in saved.read_bytes()[:64]
    before, after = read_picture(photos / f"{name}.png"), read_picture(saved)
    np.testing.assert_allclose(after.pixels.astype(int), before.pixels, rtol=0, atol=1)
    np.testing.assert_array_equal(after.alpha, before.alpha)
    assert not after.remarks
  assert read_picture(Path("out/b_sheet.png")).alpha is None


def _by_reason(line: str) -> int:
  return [word in line for word in ("ignored", "lacks", "HDR", "")].index(True)


@pytest.mark.parametrize("lmbda", [0.0, 0.02])
def test_distorted_copy_with_alpha_shows_the_noise_over_white(lmbda: float):
  rng = np.random.default_rng(0)
  alpha = np.arange(256, dtype=np.uint8).reshape(16, 16)
  opacity = alpha[..., None] / 255
  over_white = rng.random((16, 16, 3)) * opacity + 1 - opacity
  # Noise is below what can be added to so transparent a pixel without clipping.
  distorted = over_white + lmbda * opacity * rng.choice([-1, 1], over_white.shape)
  distorted = np.clip(distorted, 1 - opacity, 1).astype(np.float32)
  saved = saved_images._add_alpha(distorted, alpha)
  np.testing.assert_array_equal(saved[..., 3], alpha)
  shown = saved[..., :3] / 255 * opacity + 1 - opacity
  np.testing.assert_allclose(shown, distorted, rtol=0, atol=0.51 / 255)

"""Comparisons of models: scores, means, wins and gains."""

import jax.numpy as jnp
import numpy as np
import pytest

from hvsjnd_jax.data.images import Picture
from hvsjnd_jax.evaluation import comparison
from hvsjnd_jax.evaluation.comparison import Case
from hvsjnd_jax.evaluation.estimators import Maps
from hvsjnd_jax.evaluation.scores import ImageScores
from hvsjnd_jax.metrics import cvvdp, gmsd
from hvsjnd_jax.noise import SignProtocol
from hvsjnd_jax.runtime.jobs import as_job, run_job
from tests.support.comparisons import add, jnd, pixels

__all__ = ["jnd", "pixels"]  # fixtures


def scores(*, ssim: float | None = 0.5, gmsd: float | None = 0.1) -> ImageScores:
  return {"ssim": ssim, "gmsd": gmsd}


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
  assert comparison.count_wins(images, "c") == {}  # a model that failed on all of them
  wins = comparison.count_wins(images, "a")
  assert wins == {"b": pytest.approx({"ssim": 1 / 2, "gmsd": 2 / 3})}


def test_gain_is_positive_where_the_split_is_better():
  channels = [{"a": scores(ssim=0.5, gmsd=0.3), "b": scores()}]
  total = [{"a": scores(ssim=0.4, gmsd=0.1)}]
  gains = comparison.gain_by_split(channels, total)
  assert gains == {"a": pytest.approx({"ssim": -0.1, "gmsd": 0.2})}


def test_scores_are_the_library_s(pixels: np.ndarray, jnd: np.ndarray):
  noisy = add(pixels, jnd, 30).pixels
  measured = comparison.score(noisy, pixels)
  pair = [jnp.asarray(image[None], jnp.float32) / 255 for image in (noisy, pixels)]
  assert measured["gmsd"] == pytest.approx(float(gmsd(*pair)[0]), rel=1e-5)
  assert measured["cvvdp"] == pytest.approx(float(cvvdp(*pair)[0]), rel=1e-5)
  assert list(measured) == [
    *("psnr", "ssim", "ms_ssim", "gmsd", "fsim"),
    *("butteraugli_3norm", "butteraugli_max", "ssimulacra2", "cvvdp"),
    *("psnr_r", "psnr_g", "psnr_b"),
  ]
  assert measured["ms_ssim"] is None


def test_same_signs_for_every_model(pixels: np.ndarray, jnd: np.ndarray):
  models = {"a": as_job(lambda _: Maps(jnd)), "b": as_job(lambda _: Maps(jnd[::-1]))}
  compared = run_job(comparison.compare(Picture(pixels), models, psnr_db=25, seed=0))
  noisy = compared.noisy["channels"]
  change = {name: copy.astype(int) - pixels for name, copy in noisy.items()}
  assert (change["a"] * change["b"] >= 0).all()


def test_both_protocols_are_judged(pixels: np.ndarray, jnd: np.ndarray):
  models = {"a": as_job(lambda _: Maps(jnd))}
  cases = run_job(comparison.compare(Picture(pixels), models, psnr_db=25, seed=0)).scores
  assert list(cases) == ["channels", "channels_own", "total"]
  pairs: tuple[tuple[Case, SignProtocol], ...] = (("channels", "shared"), ("channels_own", "own"))
  for case, protocol in pairs:
    noisy = add(pixels, jnd, 25, protocol=protocol).pixels
    assert cases[case]["a"] | comparison.score(noisy, pixels) == cases[case]["a"]
  # Noise of one sign changes the luminance most, to which SSIM is tied.
  assert cases["channels"]["a"]["ssim"] != cases["channels_own"]["a"]["ssim"]


def test_shared_signs_have_a_loophole_and_own_signs_have_none():
  """A checkerboard that knows nothing of the image, and puts red and blue apart from green."""
  gray = np.full((64, 64, 3), 128, np.uint8)
  odd = np.indices(gray.shape[:2]).sum(axis=0)[..., None] % 2 == np.asarray((0, 1, 0))
  maps = {"uniform": np.ones(gray.shape), "board": 0.1 + 0.9 * odd}
  models = {name: as_job(lambda _, jnd=jnd: Maps(jnd)) for name, jnd in maps.items()}
  cases = run_job(comparison.compare(Picture(gray), models, psnr_db=32.57, seed=0)).scores

  def gain(case: comparison.Case) -> float:
    board, uniform = (cases[case][name]["butteraugli_3norm"] for name in ("board", "uniform"))
    assert board is not None
    assert uniform is not None
    return 1 - board / uniform

  assert gain("channels") > 0.1  # 0.164 was measured
  assert abs(gain("channels_own")) < 0.05  # 0.017

"""Tests BD-rates against closed forms, and that the filter keeps to its bound."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax.evaluation.scores import ImageScores
from tests.benchmarks import compression

SIZES = np.asarray([1000.0, 2000, 4000, 7000])
SCORES = np.asarray([50.0, 65, 80, 88])


def test_bd_rate_of_files_a_tenth_smaller():
  assert compression.bd_rate(0.9 * SIZES, SCORES, SIZES, SCORES) == pytest.approx(-10)


def test_bd_rate_counts_scores_that_both_reach():
  """Sizes that grow exponentially with the score, at a tenth more for one point of score."""
  sizes = 1000 * 1.1**SCORES
  found = compression.bd_rate(sizes[1:], SCORES[1:] - 1, sizes[:3], SCORES[:3])
  assert found == pytest.approx(10)
  assert np.isnan(compression.bd_rate(SIZES, SCORES, SIZES, SCORES + 40))


def test_points_that_cost_more_for_nothing_do_not_count():
  sizes, scores = np.append(SIZES, 9000), np.append(SCORES, 88)
  assert compression.bd_rate(sizes, scores, SIZES, SCORES) == pytest.approx(0)


def test_filter_keeps_to_its_bound_and_flattens_what_is_fainter():
  rng = np.random.default_rng(0)
  image = rng.random((24, 32, 3)).astype(np.float32)
  bound = 0.2 * rng.random(image.shape).astype(np.float32)
  change = np.abs(compression.prefilter(image, bound) - image)
  rounding = 1e-6
  assert (change <= bound + rounding).all()
  assert change.max() > 0.1
  faint = 0.5 + 0.01 * image
  assert compression.prefilter(faint, np.full_like(faint, 0.02)).std() < faint.std() / 3


def test_table_has_each_codec_and_filter(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
  """Scores are stood in for by the mean error, so that no model of vision is compiled."""

  def measure(
    distorted: np.ndarray, reference: np.ndarray, *_: object, **__: object
  ) -> ImageScores:
    assert distorted.shape == (32, 32, 3)
    error = float(np.abs(distorted - reference).mean())
    return {"ssimulacra2": -error, "cvvdp": -error}

  monkeypatch.setattr(compression, "measure", measure)
  rng = np.random.default_rng(0)
  pixels = rng.integers(256, size=(6, 8, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
  Image.fromarray(pixels).save(tmp_path / "a.png")
  assert compression.main(["--path", str(tmp_path), "--model", "masking", "--side", "32"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert [line.split()[0] for line in lines[1:]] == ["JPEG"] * 4 + ["WebP"] * 4 + ["AVIF"] * 4
  assert all(line.count("[") == 3 for line in lines[1:])

"""Tests that a file of every kind ends as the table says, and that it would show otherwise."""

import math
import sys
from pathlib import Path

import pytest

from tests.benchmarks import mixed_folder
from tests.benchmarks.mixed_folder import Fate

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

# So short that a folder of a few seconds is seen at a tenth and half.
SAMPLE_SECONDS = 0.05


def test_every_kind_ends_as_the_table_says(tmp_path: Path):
  kinds = len(mixed_folder.list_kinds())
  outcome = mixed_folder.measure(tmp_path, kinds, seconds=SAMPLE_SECONDS)
  assert not outcome.disagreements
  assert sum(count for count, _ in outcome.counts.values()) == kinds
  assert all(count == met > 0 for count, met in outcome.counts.values())
  assert all(math.isfinite(mib) for mib in outcome.rss_mib)


# By a kind's title: what the table is made to say of it, and what is then told.
WRONG: dict[str, tuple[Fate, str]] = {
  "PNG RGB": ("bad", "evaluated"),
  "PNG L": ("skipped", "not passed over"),
  "text": ("bad", "neither evaluated nor named"),
  "JPEG RGB": ("remarked", "its profile is not said to be broken"),
  "PNG with a broken profile": ("good", "its profile is ignored"),
  "half a PNG": ("good", "named: damaged or unreadable: image file is truncated"),
  "JPEG turned 6": ("good", "evaluated as 96x16, PSNR "),
}


def test_what_the_table_does_not_say_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  kinds = {kind.title: kind for kind in mixed_folder.list_kinds()}
  wrong = [kinds[title]._replace(fate=fate, turned=False) for title, (fate, _) in WRONG.items()]
  monkeypatch.setattr(mixed_folder, "list_kinds", lambda: wrong)
  monkeypatch.setattr(mixed_folder, "_SIZES", ((16, 96),))
  outcome = mixed_folder.measure(tmp_path, len(wrong), seconds=SAMPLE_SECONDS)
  assert [met for _, met in outcome.counts.values()] == [0, 0, 0, 0]
  assert len(outcome.disagreements) == len(WRONG)  # a file passed over for one that was not
  for line, (title, (_, verdict)) in zip(outcome.disagreements, WRONG.items(), strict=True):
    assert title in line
    assert f": {verdict}" in line

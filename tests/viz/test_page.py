"""The page as text: that nothing but its own script runs, and no name ends an element."""

import base64
import hashlib
import json
import re
from pathlib import PurePath

import numpy as np
import pytest

from hvsjnd_jax.viz.viewer.page import (
  MARK,
  Entry,
  Layer,
  Page,
  Score,
  Setting,
  draw_page,
  draw_thumbnail,
)


def _page(stem: str, *, title: str = "Pictures", score: float | None = 30.0) -> str:
  return draw_page(
    Page(
      *(title, "Some noise.", "original.png", "thumbnail.jpg"),
      copies=[Layer("distorted", ["distorted.png"])],
      overlays=[],
      setting=Setting("lmbda", ["10"], "slider"),
      scores=[Score("PSNR", "dB", 2)],
      entries=[Entry(PurePath(stem), f"{stem}.png", 24, 16, [[[score]], [None]])],
    )
  )


def _read(text: str, opening: str) -> str:
  [found] = re.findall(rf"{re.escape(opening)}(.*?)</", text, re.DOTALL)
  return found


def test_policy_allows_this_script_and_this_style():
  text = _page("a")
  assert MARK in text.encode()[:4096]
  for kind in ("style", "script"):
    digest = base64.b64encode(hashlib.sha256(_read(text, f"<{kind}>").encode()).digest()).decode()
    assert f"{kind}-src 'sha256-{digest}';" in text
  assert "default-src 'none'" in text
  assert "unsafe" not in text
  assert not re.search(r"\son\w+=|style=|https?:|src=", re.sub(r"<script.*", "", text, flags=re.S))


@pytest.mark.parametrize(
  ("stem", "url"),
  [
    ("a/b c", "a/b%20c_"),
    ("javascript:alert(1)", "javascript%3Aalert%281%29_"),
    ("#?%&\"'<", "%23%3F%25%26%22%27%3C_"),
    ("\udcff\n", "%FF%0A_"),
    ("{{script}}", "%7B%7Bscript%7D%7D_"),
  ],
)
def test_names_are_data(stem: str, url: str):
  text = _page(stem, title=f"</title>{stem}")
  encoded = _read(text, '<script type="application/json" id="data">')
  assert re.fullmatch(r"[\x20-\x7e]+", encoded)
  assert not set("<>&") & set(encoded)
  [image] = json.loads(encoded)["images"]
  assert (image["name"], image["path"], image["url"]) == (stem, f"{stem}.png", url)
  assert text.count("</title>") == text.count("<script>") == 1
  assert text.encode(), "a path that is not UTF-8 is no text for a file"


@pytest.mark.parametrize("score", [float("inf"), float("nan"), None])
def test_score_that_is_no_number_is_left_out(score: float | None):
  [image] = json.loads(_read(_page("a", score=score), 'id="data">'))["images"]
  assert image["scores"] == [[[None]], [None]]


def test_thumbnail_is_small():
  assert draw_thumbnail(np.zeros((1000, 3000, 3), np.uint8)).size == (360, 120)
  assert draw_thumbnail(np.zeros((8, 3000, 3), np.uint8)).size == (360, 1)
  assert draw_thumbnail(np.zeros((8, 12, 3), np.uint8)).size == (12, 8)

"""A whole study in a browser, by a participant who answers by the pixels that really change."""

import contextlib
import functools
import http.server
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from hvsjnd_jax.data.images import Picture, read_image
from hvsjnd_jax.evaluation.estimators import Maps
from hvsjnd_jax.runtime.jobs import as_job, run_job
from hvsjnd_jax.study.__main__ import main
from hvsjnd_jax.study.design import Design, Timing, identify
from hvsjnd_jax.study.pages import StudyPage, draw_pictures
from hvsjnd_jax.study.results import read_result
from tests.support.browser import LONGEST_S, browser
from tests.support.observers import climb

__all__ = ["browser"]  # a fixture

# Reads both pictures again and again, until the flicker has shown both of its sides; returns the
# largest mean absolute difference from what was seen first.
WATCH = """() => new Promise((resolve) => {
  const read = (id) => {
    const canvas = document.getElementById(id);
    return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  };
  const difference = (a, b) => a.reduce((sum, value, i) => sum + Math.abs(value - b[i]), 0)
    / (0.75 * a.length);
  const first = { left: read("left"), right: read("right") };
  const seen = { left: 0, right: 0 };
  let begun = null; // when the pictures were drawn at the latest
  const look = (now) => {
    begun ??= now;
    for (const id of ["left", "right"]) {
      seen[id] = Math.max(seen[id], difference(read(id), first[id]));
    }
    const done = now - begun > 180 && (seen.left || seen.right);
    if (done || now - begun > 20000) resolve(seen);
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})"""

# Compares a plate's colours with each digit's shape, in the font that the page has.
READ_PLATE = """() => {
  const plate = document.getElementById("plate");
  const side = plate.width;
  const dots = plate.getContext("2d").getImageData(0, 0, side, side).data;
  const likeness = (digit) => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    context.font = `bold ${0.78 * side}px sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(digit, side / 2, 0.53 * side);
    const shape = context.getImageData(0, 0, side, side).data;
    const pairs = [];
    for (let i = 0; i < dots.length; i += 4) {
      if (dots[i + 3] === 255) pairs.push([dots[i] - dots[i + 1], shape[i + 3] / 255]);
    }
    const mean = [0, 1].map((k) => pairs.reduce((sum, pair) => sum + pair[k], 0) / pairs.length);
    const product = (k, l) =>
      pairs.reduce((sum, pair) => sum + (pair[k] - mean[k]) * (pair[l] - mean[l]), 0);
    return Math.abs(product(0, 1)) / Math.sqrt(product(0, 0) * product(1, 1));
  };
  const digits = [..."23456789"];
  const found = digits.map(likeness);
  return digits[found.indexOf(Math.max(...found))];
}"""


# How many answers the browser keeps; the page's policy lets no test wait for an expression.
COUNT = """() => {
  const kept = Object.entries(localStorage).filter(([key]) => key.startsWith("hvsjnd_jax study"));
  return JSON.parse(kept[0][1]).trials.length;
}"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A small study, built by the command; then its pauses are made short."""
  folder = tmp_path_factory.mktemp("study")
  pixels = np.random.default_rng(0).integers(60, 190, (64, 48, 3)).astype(np.uint8)
  Image.fromarray(pixels).save(folder / "a.png")
  out = folder / "STUDY"
  options = ("--model", "uniform", "--lmbda", "2,4,...,12", "--repeats", "5", "--crop-px", "40")
  assert main(["build", "--path", str(folder / "a.png"), "--out", str(out), *options]) == 0
  quick = Timing(flicker_hz=10, longest_s=30, pause_s=0.02)
  design = msgspec.structs.replace(read_design(out), timing=quick, plates=4, traps=6, practice=2)
  StudyPage(out).finish(design)
  return out


def read_design(folder: Path) -> Design:
  return msgspec.convert(json.loads((folder / "study.json").read_text())["design"], Design)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
  """Serves the folder: from a disk, a browser does not let a test read pictures' pixels."""

  class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
      if self.path == "/favicon.ico":  # every browser asks for it, and no study has one
        self.send_response(204)
        self.end_headers()
      else:
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
      pass

  handler = functools.partial(Handler, directory=str(folder))
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


@contextlib.contextmanager
def open_page(browser: Any) -> Iterator[tuple[Any, list[str], list[str]]]:
  """Opens a page; gives it with what it complains of, and with the addresses that it asks for."""
  context = browser.new_context(viewport={"width": 900, "height": 700}, accept_downloads=True)
  page = context.new_page()
  complaints: list[str] = []
  asked: list[str] = []
  page.on("console", lambda message: complaints.append(message.text))
  page.on("pageerror", lambda error: complaints.append(str(error)))
  page.on("request", lambda request: asked.append(request.url))
  yield page, complaints, asked
  context.close()


def set_up(page: Any, code: str) -> None:
  """Goes through the screens before the plates."""
  page.fill("#code", code)
  page.click("#enter button")
  page.fill("#card-width", "428")
  page.click("#card-done")
  page.fill("#distance-cm", "50")
  page.click("#distance-form button")
  page.click("#dark-choices button >> nth=3")
  page.click("#bright-choices button >> nth=4")
  page.fill("#gamma-level", "186")
  page.click("#light-done")


def measure_changes(study: Path) -> list[float]:
  """Measures the mean absolute difference of the first image's pictures, by lmbda."""
  original = read_image(study / "pictures/0/original.png").astype(float)
  levels = range(len(read_design(study).lmbdas))
  shown = (read_image(study / f"pictures/0/0_{level}.png") for level in levels)
  return [float(np.abs(picture - original).mean()) for picture in shown]


def answer_all(page: Any, file: Path, *, threshold: float, reload_after: int | None = None) -> int:
  """Answers all trials, by keys and by pressing the pictures, and saves the participant's file.

  Args:
    page: The page, before the first trial.
    file: Where to save what the page lets download.
    threshold: The mean absolute difference above which the participant sees flicker; below,
      they guess.
    reload_after: After so many answers the page is loaded anew.

  Returns:
    The number of answers.
  """
  rng = np.random.default_rng(0)
  trials = 0
  with page.expect_download(timeout=10_000 * LONGEST_S) as downloading:
    while True:
      page.wait_for_selector("#left:visible, #start:visible, #end:visible")
      if page.is_visible("#end"):
        break
      if page.is_visible("#start"):
        page.click("#start")
        continue
      if trials == reload_after:  # a tab that was closed goes on where it was
        reload_after = None
        page.reload()
        page.fill("#code", "P07")
        page.click("#enter button")
        assert page.inner_text("#known-text") == f"This browser keeps {trials} answers of P07."
        page.click("#resume")
        continue
      seen = page.evaluate(WATCH)
      moving = max(seen, key=lambda side: seen[side])
      still = "left" if moving == "right" else "right"
      assert seen[still] == 0, "only one side flickers"
      answer = moving if seen[moving] > threshold or rng.random() < 0.5 else still
      if trials % 2:
        page.keyboard.press({"left": "ArrowLeft", "right": "ArrowRight"}[answer])
      else:
        page.click(f"#{answer}", no_wait_after=True)
      trials += 1
      until = time.monotonic() + LONGEST_S
      while page.evaluate(COUNT) < trials:
        assert time.monotonic() < until, f"answer {trials} is not kept"
        page.wait_for_timeout(5)
  downloading.value.save_as(file)
  return trials


def test_participant_who_sees_pixels(
  browser: Any, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  design = read_design(study)
  pixels = read_image(study.parent / "a.png")
  np.testing.assert_array_equal(read_image(study / "pictures/0/original.png"), pixels[12:52, 4:44])
  changes = measure_changes(study)
  assert changes == sorted(changes)
  threshold = (changes[2] + changes[3]) / 2  # between lmbda 6 and 8

  with serving(study) as address, open_page(browser) as (page, complaints, asked):
    page.goto(f"{address}/index.html")
    set_up(page, "P07")
    for number in range(design.plates):
      page.wait_for_selector(f"#plate-step:text('Colours, {number + 1} of')")
      page.click(f"#plate-choices button:text-is('{page.evaluate(READ_PLATE)}')")
    trials = answer_all(page, tmp_path / "P07.json", threshold=threshold, reload_after=20)
    assert all(url.startswith((address, "blob:")) for url in asked)
  # Chromium remarks on the test's reading of the pictures.
  assert not [text for text in complaints if "readback" not in text]

  result = read_result(tmp_path / "P07.json")
  assert (result.study, result.participant) == (identify(design), "P07")
  assert len(result.trials) == trials == design.practice + design.traps + 5 * len(design.lmbdas)
  assert result.screen.px_per_mm == pytest.approx(5)
  assert (result.screen.distance_cm, result.screen.dark_seen, result.screen.light_seen) == (
    50,
    3,
    4,
  )
  assert result.screen.gamma == pytest.approx(2.2, abs=0.01)
  assert [plate.answer for plate in result.plates] == [plate.shown for plate in result.plates]
  traps = [i for i, trial in enumerate(result.trials) if trial.kind == "trap"]
  assert max(np.diff([design.practice, *traps])) <= 2 * trials / design.traps + 1, "spread out"

  assert main(["analyze", str(tmp_path), "--json", str(tmp_path / "found" / "r.json")]) == 0
  (model,) = json.loads((tmp_path / "found" / "r.json").read_text())["models"]
  assert "1 participant; 0 more left out" in capsys.readouterr().out
  # The observer's function is a step between lmbda 6, where they guess, and 8, where they see.
  # By chance they guess right at 6 more often than not, so that a step from 4 fits as well.
  assert 4 < model["pooled"]["lmbda"] < 8


def test_staircase(browser: Any, study: Path, tmp_path: Path):
  """The page goes down after three right answers in a row, and up after a wrong one."""
  folder = tmp_path / "STUDY"
  shutil.copytree(study, folder)
  options: Any = {"method": "staircase", "longest_staircase": 18, "plates": 0, "practice": 0}
  design = msgspec.structs.replace(read_design(study), **options)
  StudyPage(folder).finish(design)
  changes = measure_changes(folder)
  with serving(folder) as address, open_page(browser) as (page, _, _):
    page.goto(f"{address}/index.html")
    set_up(page, "P07")
    answer_all(page, tmp_path / "P07.json", threshold=(changes[3] + changes[4]) / 2)
  main_trials = [t for t in read_result(tmp_path / "P07.json").trials if t.kind == "main"]
  levels = climb(design)
  level = next(levels)
  for trial in main_trials:
    assert trial.lmbda == design.lmbdas[level]
    level = levels.send(trial.answer == trial.side)
  assert level is None, "it ends where it should"


def test_from_a_disk(browser: Any, study: Path):
  """Where most participants will open it, the page runs too, and its policy lets nothing out."""
  with open_page(browser) as (page, complaints, asked):
    page.goto((study / "index.html").as_uri())
    set_up(page, "P08")
    for _ in range(4):
      page.click("#plate-choices button >> nth=8")
    page.click("#start")
    page.wait_for_selector("#left:visible")
    assert page.evaluate("document.getElementById('left').width") == 40
    assert not complaints
    outside = page.evaluate(
      """() => fetch("https://example.org/").then(() => "sent", (error) => String(error))"""
    )
    assert "Failed to fetch" in outside
    assert any("Content Security Policy" in text for text in complaints)
    assert all(url.startswith(study.as_uri()) for url in asked if "example.org" not in url)


def test_pixels_of_the_device(browser: Any, study: Path):
  """One pixel of a picture is one of the device, also where the page is enlarged."""
  context = browser.new_context(viewport={"width": 700, "height": 500}, device_scale_factor=1.5)
  page = context.new_page()
  page.goto((study / "index.html").as_uri())
  set_up(page, "P09")
  for _ in range(4):
    page.click("#plate-choices button >> nth=0")
  page.click("#start")
  page.wait_for_selector("#left:visible")
  boxes = [page.locator(f"#{side}").bounding_box() for side in ("left", "right")]
  page.set_viewport_size({"width": 90, "height": 500})  # 40 + 48 + 40 and twice 8 pixels are needed
  page.wait_for_selector("#left", state="hidden")
  assert page.inner_text("#small").startswith(
    "The pictures need a window of 96 by 38; this one has 90"
  )
  page.keyboard.press("ArrowLeft")  # what is not seen is not answered
  page.set_viewport_size({"width": 700, "height": 500})
  page.wait_for_selector("#left:visible")
  assert page.evaluate(COUNT) == 0
  context.close()
  for box in boxes:
    placed = [1.5 * box[key] for key in ("x", "y", "width", "height")]
    np.testing.assert_allclose(placed, np.round(placed), atol=0.02)
    assert placed[2:] == pytest.approx([40, 40], abs=0.02)


def test_pictures_are_those_of_eval():
  """The map and the signs are the whole image's; the crop comes last."""
  pixels = np.random.default_rng(1).integers(0, 256, (30, 50, 3)).astype(np.uint8)

  @as_job
  def estimator(pixels: np.ndarray) -> Maps:
    return Maps(np.linspace(0, 0.05, pixels.size, dtype=np.float32).reshape(pixels.shape))

  options: Any = {"estimators": {"m": estimator}, "lmbdas": [1.0, 3.0], "seed": 5}
  whole, ((weak, strong),) = run_job(draw_pictures(Picture(pixels), crop_px=64, **options))
  np.testing.assert_array_equal(whole, pixels)
  cut, ((cut_weak, cut_strong),) = run_job(draw_pictures(Picture(pixels), crop_px=20, **options))
  for part, image in ((cut, whole), (cut_weak, weak), (cut_strong, strong)):
    np.testing.assert_array_equal(part, image[5:25, 15:35])

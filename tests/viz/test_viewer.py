"""The page in a browser: what a reader sees of it, and what it never asks for.

The pages show images of 40x24 random pixels, so that a picture is known by any of its pixels.
"""

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.browser import LONGEST_S, browser
from tests.support.pages import (
  LMBDAS,
  MODELS,
  distort,
  paint,
  write_comparison,
  write_evaluation,
)

__all__ = ["browser"]  # a fixture

HOSTILE = (
  *('a"b', "q'<script>alert(1)<!--", "</script><img src=x onerror=alert(1)>"),
  *("amp&amp;#1?x=%20%41", "new\nline", "\u202egnp.exe", "שלום", "fox 🦊", "javascript:alert(1)"),
  *("back\\slash", "{{data}}", "\u2028separator", " ", "//evil.example/x"),
  os.fsdecode(b"not UTF-8 \xff"),
)

# Begins before any script of the page: counts what the policy forbade, and knows whose end of
# loading the page has been told of. A picture is `complete` somewhat before that.
WATCH = """
  window.violations = [];
  document.addEventListener("securitypolicyviolation", (event) => {
    violations.push(event.violatedDirective + " " + event.blockedURI);
  });
  window.ended = new WeakSet();
  for (const end of ["load", "error"]) {
    document.addEventListener(end, (event) => ended.add(event.target), true);
  }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A folder with the pages of an evaluation and of a comparison."""
  folder = tmp_path_factory.mktemp("pages")
  write_evaluation(folder / "evaluation", [Path(f"photos/{name}.png") for name in "bacd"])
  write_comparison(folder / "comparison", [Path("photos/a.png"), Path("photos/b.png")])
  return folder


Open = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
  """Opens a page; at the end, nothing must have failed, been forbidden or left the disk."""
  opened: list[Any] = []

  def open_page(file: Path, *, image: int | None = None, **options: Any) -> Any:
    context = browser.new_context(**{"viewport": {"width": 800, "height": 600}, **options})
    page = context.new_page()
    faults: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.on("request", lambda request: requests.append(request.url))
    page.add_init_script(WATCH)
    page.clock.install(time=0)
    page.goto(file.as_uri() + ("" if image is None else f"#{image + 1}"))
    # So that no press is long because the machine is slow; and the page has opened before that.
    page.clock.pause_at(600_000)
    page.faults, page.requests = faults, requests
    opened.append(page)
    return page

  yield open_page
  for page in opened:
    assert page.evaluate("violations") == []
    assert page.faults == []
    assert all(url.startswith("file:///") for url in page.requests)
    page.context.close()


def wait(page: Any, condition: str) -> None:
  """Waits until an expression is true; Playwright's own function would need 'unsafe-eval'."""
  until = time.monotonic() + LONGEST_S
  while not page.evaluate(condition):
    assert time.monotonic() < until, f"not true within {LONGEST_S} seconds: {condition}"
    page.wait_for_timeout(10)


def look(page: Any) -> np.ndarray:
  """What is to be seen where the image is, in the screen's pixels."""
  wait(
    page,
    "[...document.querySelectorAll('#plane img')].every((img) => ended.has(img))"
    " && document.querySelector('#plane img.under') !== null",
  )
  box = page.locator("#plane").bounding_box()
  return np.asarray(Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB"))


def read_names(page: Any) -> list[str]:
  return page.locator("#cards .name").all_text_contents()


def enlarge(pixels: np.ndarray, zoom: int) -> np.ndarray:
  return pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)


def test_gallery_sorts_and_finds(open_page: Open, folder: Path):
  page = open_page(folder / "evaluation/index.html")
  assert read_names(page) == list("abcd")
  page.locator("#order").click()
  assert read_names(page) == list("dcba")
  page.locator("#sort").select_option("PSNR")
  assert read_names(page) == list("bacd"), "from the highest to the lowest, as they were written"
  page.locator("#order").click()
  assert read_names(page) == list("dcab")
  assert page.locator("#cards .score").first.text_content() == "PSNR 42.00 dB"
  page.locator("#at").select_option("20")
  assert page.locator("#cards .score").first.text_content() == "PSNR 27.00 dB"
  page.locator("#sort").select_option("SSIMULACRA 2")
  assert read_names(page) == list("dacb"), "what has no score comes last"
  assert page.locator("#cards .score").last.text_content() == "SSIMULACRA 2 –"
  page.locator("#find").fill("A.png")
  assert read_names(page) == ["a"]
  assert page.locator("#count").text_content() == "1 of 4 images"


def test_focus_returns_to_the_image_that_was_open(open_page: Open, folder: Path):
  """Though another lmbda, chosen in the viewer, has sorted the gallery anew."""
  page = open_page(folder / "evaluation/index.html")
  page.locator("#sort").select_option("SSIMULACRA 2")
  before = read_names(page)
  page.locator("#cards li").nth(before.index("c")).locator("button, a").first.click()
  page.keyboard.press("]")
  page.keyboard.press("Escape")
  assert read_names(page) != before
  assert page.evaluate("document.activeElement.querySelector('.name').textContent") == "c"


def test_space_blinks_and_a_long_press_looks(open_page: Open, folder: Path):
  page = open_page(folder / "evaluation/index.html", image=0)
  original = paint(0)
  np.testing.assert_array_equal(look(page), original)
  page.keyboard.press(" ")
  np.testing.assert_array_equal(look(page), distort(original, LMBDAS[0]))
  assert page.locator("#left").text_content() == "distorted, lmbda 5"
  page.keyboard.press(" ")
  np.testing.assert_array_equal(look(page), original)
  page.keyboard.down(" ")
  page.clock.run_for(300)
  np.testing.assert_array_equal(look(page), distort(original, LMBDAS[0]))
  page.keyboard.up(" ")
  np.testing.assert_array_equal(look(page), original)


def test_blinks_twice_a_second(open_page: Open, folder: Path):
  page = open_page(folder / "evaluation/index.html", image=0)
  look(page)
  page.locator("#flicker").click()
  shown = []
  for _ in range(4):
    shown.append(page.locator("#left").text_content())
    page.clock.run_for(250)
  assert shown == ["distorted, lmbda 5", "original"] * 2
  page.keyboard.press("f")
  shown = page.locator("#left").text_content()
  page.clock.run_for(600)
  assert page.locator("#left").text_content() == shown


@pytest.mark.parametrize(("zoom", "ratio"), [(1, 1), (4, 1), (8, 1), (3, 2)])
def test_every_pixel_is_a_square(open_page: Open, folder: Path, zoom: int, ratio: int):
  page = open_page(folder / "evaluation/index.html", image=1, device_scale_factor=ratio)
  page.keyboard.press(str(zoom))
  np.testing.assert_array_equal(look(page), enlarge(paint(1), zoom))
  assert page.locator("#zoom").text_content() == f"{zoom}×"


def test_large_image_is_moved_to_its_edge(open_page: Open, folder: Path):
  viewport = {"width": 240, "height": 800}
  page = open_page(folder / "evaluation/index.html", image=1, viewport=viewport)
  for _ in range(7):
    page.locator("#in").click()
  assert page.locator("#in").is_disabled()
  wide = enlarge(paint(1), 8)
  assert wide.shape[1] == 320
  for left, x in ((40, 0), (70, -30), (80, -90)):  # 80 pixels do not fit
    page.mouse.move(120, 200)
    page.mouse.down()
    page.mouse.move(120 + x, 200, steps=3)
    page.mouse.up()
    if not x:
      page.mouse.click(120, 200)  # a tap blinks, and so did the former one
    box = page.locator("#plane").bounding_box()
    assert box["x"] == -left
    box |= {"x": 0, "width": 240}
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB"))
    np.testing.assert_array_equal(shot, wide[:, left : left + 240])


def test_image_stays_in_its_window(open_page: Open, folder: Path):
  page = open_page(folder / "evaluation/index.html", image=1)
  look(page)
  for change in (
    lambda: page.locator("summary").click(),
    lambda: page.set_viewport_size({"width": 501, "height": 502}),
  ):
    change()
    wait(
      page,
      "(([stage, plane]) => Math.abs(stage.x + stage.width / 2 - plane.x - plane.width / 2) <= 0.5"
      " && Math.abs(stage.y + stage.height / 2 - plane.y - plane.height / 2) <= 0.5)"
      "(['stage', 'plane'].map((id) => document.getElementById(id).getBoundingClientRect()))",
    )
    np.testing.assert_array_equal(look(page), paint(1))


def test_swipe_divides_original_and_copy(open_page: Open, folder: Path):
  page = open_page(folder / "evaluation/index.html", image=0)
  page.keyboard.press("8")
  page.keyboard.press("s")
  original = enlarge(paint(0), 8)
  copy = distort(original, LMBDAS[0])

  def check(shown: np.ndarray, middle: int) -> None:
    left, right = middle - 30, middle + 30  # beside the knob
    np.testing.assert_array_equal(shown[:, :left], original[:, :left])
    np.testing.assert_array_equal(shown[:, right:], copy[:, right:])

  check(look(page), 160)
  page.locator("#divider").press("ArrowLeft")
  check(look(page), 160 - 16)  # a fiftieth of the window's 800
  box = page.locator("#divider").bounding_box()
  page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 5)
  page.mouse.down()
  page.mouse.move(460, box["y"] + 5)
  page.mouse.up()
  check(look(page), 460 - 240)


def test_slider_changes_lmbda(open_page: Open, folder: Path):
  page = open_page(folder / "evaluation/index.html", image=0)
  page.keyboard.press(" ")
  for lmbda in LMBDAS[1:]:
    page.locator("#slide").press("ArrowRight")
    np.testing.assert_array_equal(look(page), distort(paint(0), lmbda))
    assert page.locator("#scores td").first.text_content() == f"{50 - lmbda:.2f} dB"
  page.keyboard.press("[")
  np.testing.assert_array_equal(look(page), distort(paint(0), LMBDAS[1]))


def test_maps_are_laid_over(open_page: Open, folder: Path):
  page = open_page(folder / "evaluation/index.html", image=0)
  names = page.locator("#overlay option").all_text_contents()
  assert names == [
    *("none", "JND map, brightened", "attention, blue to red", "Butteraugli, 0 to 4"),
  ]
  page.keyboard.press("o")
  page.locator("#opacity").fill("100")
  assert (look(page) == 255).all(), "a map of one value is white"
  page.locator("#opacity").fill("50")
  mean = (paint(0).astype(float) + 255) / 2
  assert np.abs(look(page) - mean).max() <= 1
  page.keyboard.press("o")
  page.keyboard.press("o")
  page.keyboard.press("]")
  look(page)
  shown = page.locator("#plane img.map").get_attribute("src")
  assert shown == "b_butteraugli@10.png"
  page.keyboard.press("o")
  np.testing.assert_array_equal(look(page), paint(0))


def test_keys_lead_through_the_images(open_page: Open, folder: Path):
  page = open_page(folder / "evaluation/index.html")
  page.locator("#cards a").nth(1).press("Enter")
  page.locator("#stage").wait_for()
  assert page.locator("#name").text_content() == "b"
  for key, name in (
    ("ArrowLeft", "a"),
    ("ArrowLeft", "a"),
    ("ArrowRight", "b"),
    ("ArrowRight", "c"),
  ):
    page.keyboard.press(key)
    wait(page, f"document.querySelector('#name').textContent === '{name}'")
  page.keyboard.press("Escape")
  page.locator("#gallery").wait_for()
  assert page.evaluate("document.activeElement.textContent").startswith("c")


def test_fingers_blink_and_zoom(open_page: Open, folder: Path):
  page = open_page(folder / "evaluation/index.html", image=0, has_touch=True, is_mobile=True)
  look(page)
  page.touchscreen.tap(400, 200)
  np.testing.assert_array_equal(look(page), distort(paint(0), LMBDAS[0]))
  session = page.context.new_cdp_session(page)

  def touch(kind: str, *across: int) -> None:
    points = [{"x": x, "y": 200, "id": index} for index, x in enumerate(across)]
    session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

  touch("touchStart", 390, 410)
  for spread in range(10, 51, 5):
    touch("touchMove", 400 - spread, 400 + spread)
  touch("touchEnd")
  wait(page, "document.querySelector('#zoom').textContent === '5×'")
  np.testing.assert_array_equal(look(page), enlarge(distort(paint(0), LMBDAS[0]), 5))


def test_any_two_models_blink_with_either_signs(open_page: Open, folder: Path):
  page = open_page(folder / "comparison/index.html", image=0)
  assert page.locator("#a option").all_text_contents() == ["original", *MODELS]
  page.locator("#a").select_option(MODELS[1])
  page.locator("#b").select_option(MODELS[2])
  page.locator("#stage").focus()
  for signs, more in (("shared", 0), ("own", 20)):
    page.locator("#choose").select_option(signs)
    page.locator("#stage").focus()
    for side in (1, 2):
      np.testing.assert_array_equal(look(page), distort(paint(0), 2 + side + more))
      assert page.locator("#left").text_content() == f"{MODELS[side]}, {signs} signs"
      page.keyboard.press(" ")
  assert page.locator("#scores tr").count() == 3
  page.keyboard.press("ArrowRight")
  wait(page, "document.querySelector('#name').textContent === 'b'")
  page.keyboard.press(" ")
  assert page.locator("#failed").text_content() == f"not there: {MODELS[2]}"


def test_map_is_that_of_the_model_and_the_signs_in_view(open_page: Open, folder: Path):
  page = open_page(folder / "comparison/index.html", image=0)
  assert page.locator("#overlay option").all_text_contents() == [
    *("none", "JND map, brightened", "attention, blue to red", "Butteraugli, 0 to 4"),
  ]
  page.locator("#a").select_option(MODELS[1])
  page.locator("#b").select_option(MODELS[2])
  page.locator("#overlay").select_option("JND map, brightened")
  page.locator("#opacity").fill("100")
  page.locator("#stage").focus()

  def check(levels: tuple[int, int]) -> None:
    for level in levels:
      assert (look(page) == level).all()
      page.keyboard.press(" ")

  check((11, 12))
  page.locator("#choose").select_option("own")
  page.locator("#stage").focus()
  check((11, 12))  # the map is of the image, not of the noise
  page.locator("#overlay").select_option("Butteraugli, 0 to 4")
  page.locator("#stage").focus()
  check((121, 122))
  page.keyboard.press("s")
  parts = look(page)
  assert (parts[:, 0] == 121).all()
  assert (parts[:, -1] == 122).all()
  page.keyboard.press("s")
  page.locator("#a").select_option("original")
  page.locator("#stage").focus()
  check((122, 122))  # over the original lies the map of what it is compared with
  page.locator("#overlay").select_option("attention, blue to red")
  look(page)
  assert page.locator("#failed").text_content() == "not there: attention, blue to red"
  page.locator("#b").select_option(MODELS[0])
  page.locator("#stage").focus()
  check((50, 50))
  assert page.locator("#failed").is_hidden()


def test_names_are_text_and_nothing_else(open_page: Open, tmp_path: Path):
  write_evaluation(tmp_path, [Path(f"photos/{name}.png") for name in HOSTILE])
  page = open_page(tmp_path / "index.html")
  paths = [str(Path(f"photos/{name}.png")) for name in HOSTILE]
  names = set(page.locator("#cards .name").evaluate_all("all => all.map((e) => e.textContent)"))
  assert names == {name.removeprefix("//") for name in HOSTILE}
  assert page.locator("main script, main [onerror], #cards img:not([loading])").count() == 0
  for index in range(len(HOSTILE)):
    page.evaluate(f"location.hash = '{index + 1}'")
    wait(page, f"document.querySelector('#name').title === {json.dumps(paths[index])}")
    np.testing.assert_array_equal(look(page), paint(index), HOSTILE[index])
  assert page.locator("#failed").is_hidden()


def test_policy_forbids_what_the_page_never_does(open_page: Open, folder: Path):
  page = open_page(folder / "evaluation/index.html")
  error = pytest.importorskip("playwright.sync_api").Error
  with pytest.raises(error, match="TrustedHTML"):
    page.evaluate("document.body.innerHTML = '<img src=x onerror=alert(1)>'")
  page.evaluate("fetch('https://evil.example/').catch(() => {})")
  wait(page, "violations.length === 2")
  assert page.evaluate("violations.splice(0)") == [
    "require-trusted-types-for trusted-types-sink",
    "connect-src https://evil.example/",
  ]
  page.faults.clear()


def test_light_and_dark(open_page: Open, folder: Path):
  means = {}
  for scheme in ("light", "dark"):
    for image in (None, 0):
      page = open_page(folder / "evaluation/index.html", image=image, color_scheme=scheme)
      shot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"))
      means[scheme, image] = np.median(shot)
  assert min(means["light", None], means["light", 0]) > 220
  assert max(means["dark", None], means["dark", 0]) < 40


def count_cards(page: Any) -> int:
  return page.locator("#cards li").count()


def test_thousand_images_load_as_they_are_scrolled_to(open_page: Open, tmp_path: Path):
  write_evaluation(tmp_path, [Path(f"photos/{index}.png") for index in range(1000)], drawn=1)
  page = open_page(tmp_path / "index.html")
  wait(
    page,
    "[...document.querySelectorAll('#cards img')].every("
    "(img) => ended.has(img) || img.getBoundingClientRect().top > innerHeight)",
  )
  pictures = [url for url in page.requests if url.endswith(".jpg")]
  assert 0 < len(pictures) < 150
  assert count_cards(page) <= 240
  assert page.locator("#count").text_content() == "1000 images"
  while (there := count_cards(page)) < 1000:
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    wait(page, f"document.querySelectorAll('#cards li').length > {there}")
  assert read_names(page) == [str(index) for index in range(1000)]


def test_high_window_is_filled(open_page: Open, tmp_path: Path):
  """Batches of cards follow each other while they leave the gallery's end in sight."""
  write_evaluation(tmp_path, [Path(f"photos/{index}.png") for index in range(600)], drawn=1)
  page = open_page(tmp_path / "index.html", viewport={"width": 1500, "height": 8000})
  filled = "document.body.scrollHeight > innerHeight"
  wait(page, filled)
  page.locator("#find").fill("599")
  assert read_names(page) == ["599"]
  page.locator("#find").fill("")
  wait(page, filled)

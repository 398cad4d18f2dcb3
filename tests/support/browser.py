"""The browser that the tests of pages share."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

# Nothing but the page itself, and colours as the file has them.
_OPTIONS = (
  *("--no-sandbox", "--disable-gpu", "--no-first-run", "--force-color-profile=srgb"),
  *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
  "--disable-quic",
)

# What takes longer on the slowest machine will never happen.
LONGEST_S = 60


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
  sync_api = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright: pip install '.[test]'"
  )
  chromium = shutil.which("chromium")
  if chromium is None:
    pytest.skip("needs the program chromium: apt-get install chromium")
  with sync_api.sync_playwright() as playwright:
    opened = playwright.chromium.launch(executable_path=chromium, args=list(_OPTIONS))
    yield opened
    opened.close()

"""A page of pictures to look at: a gallery, and a viewer that blinks, swipes and zooms.

The page is one file beside its pictures, and asks for nothing else: its script, style and data are
inside it. What a browser may do for it is said by a content security policy, which allows this
script and this style by their hashes, and pictures; where scripts could turn text into markup,
it forbids that too. Names of images are anybody's text. They reach the page as JSON, without a
character that could end the element that holds it, and are shown as text alone.
"""

import base64
import hashlib
import html
import json
import math
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import PurePath
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import numpy as np
from PIL import Image

from hvsjnd_jax.ops.types import Pixels

# What marks a page as one of ours, which a newer one may replace.
MARK = b'<meta name="generator" content="hvsjnd_jax">'

_THUMBNAIL_PX = 360  # of the longer side; a card of the gallery is half as wide


class Score(NamedTuple):
  """A score that the page shows and sorts by.

  Attributes:
    name: Its name for readers.
    unit: Its unit; "" for a plain number.
    digits: How many digits follow the point; None for six significant ones.
  """

  name: str
  unit: str = ""
  digits: int | None = 4


class Layer(NamedTuple):
  """A kind of picture that each image has.

  Attributes:
    name: Its name for readers.
    files: For each setting, what follows the image's stem in the file's name.
  """

  name: str
  files: Sequence[str]


class Overlay(NamedTuple):
  """A kind of map to lay over pictures.

  Attributes:
    name: Its name for readers.
    files: For each copy and setting, what follows the image's stem in the file's name; None for
      a copy that has no such map.
  """

  name: str
  files: Sequence[Sequence[str] | None]


class Setting(NamedTuple):
  """What the pictures were made with that the reader can change.

  Attributes:
    name: Its name for readers.
    values: Its values, in order.
    kind: Whether the values are steps of a slider, or a choice.
  """

  name: str
  values: Sequence[str]
  kind: Literal["slider", "choice"]


class Entry(NamedTuple):
  """An image on the page.

  Attributes:
    stem: The path of its pictures, less what `Layer.files` adds, from the page's folder.
    path: The image's own path, for readers.
    width: Its width in pixels.
    height: Its height.
    scores: For each setting and copy the scores, in the order of `Page.scores`. A score that
      there is not is None, and so is a copy that there is not.
  """

  stem: PurePath
  path: str
  width: int
  height: int
  scores: Sequence[Sequence[Sequence[float | None] | None]]


class Page(NamedTuple):
  """All that a page shows.

  Attributes:
    title: Its title.
    facts: A sentence on what was done.
    original: What follows an image's stem in the name of its unchanged picture.
    thumbnail: The same for the gallery's.
    copies: The pictures to compare with the original and with each other; at least one.
    overlays: Maps to lay over them.
    setting: What the slider or the choice sets.
    scores: The scores of a copy; at least one.
    entries: The images.
  """

  title: str
  facts: str
  original: str
  thumbnail: str
  copies: Sequence[Layer]
  overlays: Sequence[Overlay]
  setting: Setting
  scores: Sequence[Score]
  entries: Sequence[Entry]


def draw_page(page: Page) -> str:
  """Writes a page as HTML, in UTF-8; its file lies in the folder that stems start from.

  Examples:
    >>> layer, setting = Layer("distorted", ["d.png"]), Setting("lmbda", ["10"], "slider")
    >>> entry = Entry(PurePath("a&b"), "a&b.png", 8, 8, [[[30.0]]])
    >>> texts = ("Two <b>", "", "o.png", "t.jpg")
    >>> text = draw_page(Page(*texts, [layer], [], setting, [Score("PSNR")], [entry]))
    >>> "<title>Two &lt;b&gt;</title>" in text, "a%26b_" in text
    (True, True)
  """
  style, script = _read("viewer.css"), _read("viewer.js")
  policy = (
    "default-src 'none'; "
    "img-src 'self' file:; "  # a page that was opened from a disk has no 'self'
    f"style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
    "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
  )
  parts = {
    "policy": policy,
    "title": html.escape(page.title.encode(errors="replace").decode()),  # a path may be any bytes
    "style": style,
    "script": script,
    "data": _encode(_describe(page)),
  }
  pieces = _read("page.html").split("{{")
  filled = [pieces[0]]
  for piece in pieces[1:]:
    name, _, rest = piece.partition("}}")
    filled += [parts[name], rest]
  return "".join(filled)


def draw_thumbnail(pixels: Pixels) -> Image.Image:
  """Reduces an image to the size of the gallery's pictures; a smaller one keeps its size."""
  thumbnail = Image.fromarray(np.ascontiguousarray(pixels))
  thumbnail.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.LANCZOS, reducing_gap=3)
  return thumbnail


def _read(name: str) -> str:
  return (resources.files("hvsjnd_jax.viz.viewer") / name).read_text("utf-8")


def _hash(text: str) -> str:
  digest = hashlib.sha256(text.encode()).digest()
  return f"sha256-{base64.b64encode(digest).decode()}"


def _describe(page: Page) -> dict[str, Any]:
  return {
    "title": page.title,
    "facts": page.facts,
    "original": page.original,
    "thumbnail": page.thumbnail,
    "copies": [layer._asdict() for layer in page.copies],
    "overlays": [overlay._asdict() for overlay in page.overlays],
    "setting": page.setting._asdict(),
    "scores": [score._asdict() for score in page.scores],
    "images": [
      {
        "name": entry.stem.as_posix(),
        "path": entry.path,
        "url": quote(os.fsencode(entry.stem.as_posix())) + "_",
        "width": entry.width,
        "height": entry.height,
        "scores": [[_replace_infinite(copy) for copy in copies] for copies in entry.scores],
      }
      for entry in page.entries
    ],
  }


def _replace_infinite(scores: Sequence[float | None] | None) -> list[float | None] | None:
  """JSON has no number that is not finite."""
  if scores is None:
    return None
  return [s if s is not None and math.isfinite(s) else None for s in scores]


def _encode(described: dict[str, Any]) -> str:
  """Encodes data as JSON in ASCII, without a character that means something in HTML."""
  text = json.dumps(described, allow_nan=False, separators=(",", ":"))
  for character in "<>&":
    text = text.replace(character, f"\\u{ord(character):04x}")
  return text

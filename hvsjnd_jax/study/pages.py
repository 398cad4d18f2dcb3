"""The folder of a study: its pictures, and the page that shows them.

The page makes no request but for the files beside it, so that it runs from a disk, a memory stick
or any web server, and its content policy forbids it to send anything.
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import msgspec
import numpy as np

from hvsjnd_jax.data.atomic import whole_file
from hvsjnd_jax.data.images import Picture, to_uint8, write_png
from hvsjnd_jax.evaluation.estimators import Estimator
from hvsjnd_jax.noise import draw_signs, inject
from hvsjnd_jax.ops.samples import to_unit
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.runtime.jobs import Job
from hvsjnd_jax.study.design import Design, identify

_PAGE = ("index.html", "study.css", "study.js")

# A staircase takes about this share of the trials that it may take at most.
_STAIRCASE_SHARE = 0.75


def draw_pictures(
  picture: Picture,
  *,
  estimators: Mapping[str, Estimator],
  lmbdas: Sequence[float],
  seed: int,
  crop_px: int,
) -> Job[tuple[Pixels, list[list[Pixels]]]]:
  """Draws what a study shows of an image: the pictures of `eval --save`, cut around the centre.

  The map is that of the whole image, and so are the noise's signs.

  Args:
    picture: The image.
    estimators: What draws the maps, by name.
    lmbdas: The scales of the noise.
    seed: The seed of the noise's signs.
    crop_px: A longer side is cut to it.

  Returns:
    The original, and for each estimator the distorted copies, one for each lmbda.
  """
  crop = tuple(
    slice(max(0, (side - crop_px) // 2), max(0, (side - crop_px) // 2) + min(side, crop_px))
    for side in picture.pixels.shape[:2]
  )
  signs = draw_signs(picture.pixels, seed=seed)[crop]
  original = np.ascontiguousarray(picture.pixels[crop])
  image = to_unit(picture.finest[crop])[None]
  distorted = []
  for estimator in estimators.values():
    jnd = (yield from estimator(picture.finest)).jnd[crop][None]
    distorted.append([to_uint8(inject(image, jnd, signs, lmbda=lmbda)[0]) for lmbda in lmbdas])
  return original, distorted


def count_trials(design: Design) -> int:
  """Returns how many trials a participant sees; for staircases, about how many."""
  cells = len(design.images) * len(design.models)
  if design.method == "constant":
    main = cells * len(design.lmbdas) * design.repeats
  else:
    main = round(cells * design.longest_staircase * _STAIRCASE_SHARE)
  return main + design.practice + design.traps


class StudyPage:
  """A study's folder while it is written."""

  def __init__(self, folder: Path):
    self._folder = folder

  def add_image(self, index: int, original: Pixels, distorted: Sequence[Sequence[Pixels]]) -> None:
    """Writes the pictures of one image, losslessly.

    Args:
      index: Its place in the design's images.
      original: The image.
      distorted: Its copies by model and by lmbda, of which the last is that of traps.
    """
    folder = self._folder / "pictures" / str(index)
    folder.mkdir(parents=True)
    write_png(folder / "original.png", original)
    for m, copies in enumerate(distorted):
      for level, copy in enumerate(copies):
        write_png(folder / f"{m}_{level}.png", copy)

  def finish(self, design: Design) -> None:
    """Writes the design and the page, last of all."""
    described = {"id": identify(design), "design": msgspec.to_builtins(design)}
    text = msgspec.json.format(msgspec.json.encode(described)).decode()
    # A page that is opened from a disk may run a script beside it, but not read JSON.
    texts = {"study.json": f"{text}\n", "design.js": f"const STUDY = {text};\n"}
    page = resources.files("hvsjnd_jax.study") / "page"
    texts |= {name: (page / name).read_text(encoding="utf-8") for name in reversed(_PAGE)}
    for name, content in texts.items():
      with whole_file(self._folder / name) as partial:
        partial.write_text(content, encoding="utf-8")

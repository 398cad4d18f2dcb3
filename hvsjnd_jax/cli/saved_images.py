"""The pictures that `--save` writes of an image, and where they lie.

A picture's file is called by its image's stem, an underscore and a name. No such name ends in an
underscore and another one, so that two images never share a file. The names of copies whose noise
has another scale than the first one's hold it: `photo_distorted.png`, `photo_distorted@20.png`.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from hvsjnd_jax.cli.command import UsageError
from hvsjnd_jax.cli.outputs import make_folder, writing
from hvsjnd_jax.data import paths
from hvsjnd_jax.data.atomic import whole_file
from hvsjnd_jax.data.images import Picture, place, to_uint8, write_npy, write_png
from hvsjnd_jax.evaluation.evaluate import Copy, Evaluation
from hvsjnd_jax.evaluation.vision_maps import (
  VISION_MODELS,
  VisionModel,
  draw_map,
  find_models,
)
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.viz import sheets
from hvsjnd_jax.viz.viewer.page import draw_thumbnail

ORIGINAL = "original.png"

DISTORTED = "distorted.png"

JND = "jnd.png"

ATTENTION = "attention.png"

VISION_MAPS = {f"{model.name}.png": model for model in VISION_MODELS.values()}

OUTPUTS = (ORIGINAL, DISTORTED, JND, "jnd.npy", ATTENTION, *VISION_MAPS, "sheet.png")

# Those that depend on the scale of the noise.
_OF_NOISE = (DISTORTED, *VISION_MAPS, "sheet.png")

# What the page's gallery shows; it is written with the page alone.
THUMBNAIL = "thumbnail.jpg"


def parse_outputs(text: str, *, known: Sequence[str] = OUTPUTS) -> tuple[str, ...]:
  """Parses names of outputs, separated by commas, as the type of an option.

  Args:
    text: The names.
    known: Those that the command writes.

  Raises:
    ArgumentTypeError: If one is unknown; the message lists those that are known.
  """
  names = {name.strip() for name in text.split(",")}
  if unknown := names - set(known):
    raise argparse.ArgumentTypeError(f"unknown output {min(unknown)!r}; known: {', '.join(known)}")
  return tuple(name for name in known if name in names)


def choose_outputs(
  asked: Sequence[str] | None, model: JNDModel, metrics: Sequence[str]
) -> tuple[str, ...]:
  """Chooses what to write for each image: what is asked for, or all that there is.

  Maps of models of vision that are not among the metrics are written only if they are asked for,
  as they take time.

  Raises:
    UsageError: If attention is asked for, and the model has no HVS-SD.
  """
  if asked:
    if ATTENTION in asked and not model.hvs_sd:
      raise UsageError(f"--outputs {ATTENTION}: the model has no HVS-SD, and so no attention")
    return tuple(asked)
  lacking = {name for name, vision in VISION_MAPS.items() if vision not in find_models(metrics)}
  if not model.hvs_sd:
    lacking.add(ATTENTION)
  return tuple(name for name in OUTPUTS if name not in lacking)


def find_mapped(outputs: Sequence[str]) -> list[VisionModel]:
  """Lists the models of vision whose maps are among the outputs."""
  return [VISION_MAPS[name] for name in outputs if name in VISION_MAPS]


def has_page(outputs: Sequence[str]) -> bool:
  """Whether the outputs include what a page blinks between."""
  return {ORIGINAL, DISTORTED} <= set(outputs)


def name_output(name: str, lmbda: float | None) -> str:
  """Returns the name of an output for a copy with noise of another scale than the first.

  Args:
    name: One of `OUTPUTS`.
    lmbda: The scale; None for the first one.
  """
  if lmbda is None or name not in _OF_NOISE:
    return name
  stem, _, suffix = name.rpartition(".")
  return f"{stem}@{format_lmbda(lmbda)}.{suffix}"


def format_lmbda(lmbda: float) -> str:
  """Writes a scale with all its digits, and no more: 10, 2.5."""
  return repr(lmbda).removesuffix(".0")


def list_names(outputs: Sequence[str], other_lmbdas: Sequence[float]) -> list[str]:
  """Lists the names of all that is written for an image."""
  names = [name_output(name, lmbda) for lmbda in (None, *other_lmbdas) for name in outputs]
  return [*dict.fromkeys(names), *([THUMBNAIL] if has_page(outputs) else [])]


def make_stems(files: list[Path], folder: Path, names: Sequence[str]) -> dict[Path, Path]:
  """Maps each image to where its pictures go, less their suffixes.

  The pictures lie below the folder as the images lie below their common one. Where two images
  differ in the extension only, all of them keep theirs, so that the names depend on the set of
  files, not on their order.

  Args:
    files: The images.
    folder: Where the pictures go; it is made.
    names: What will be written for each image.

  Raises:
    UsageError: If the folder cannot be made, or a picture would replace one of the images.
  """
  make_folder(folder)
  places = {file: place(file) for file in files}
  root = _find_common_folder(list(places.values()))
  stems = {file: folder / path.relative_to(root).with_suffix("") for file, path in places.items()}
  if len(set(stems.values())) < len(files):
    stems = {file: folder / path.relative_to(root) for file, path in places.items()}
  inputs = set(places.values())
  for stem in stems.values():
    placed = place(stem)
    for name in names:
      if output(placed, name) in inputs:
        raise UsageError(
          f"{output(stem, name)} is an image to evaluate; choose another folder for --save"
        )
  return stems


def _find_common_folder(files: list[Path]) -> Path:
  """Returns the folder that all files are in, somewhere below it.

  Raises:
    UsageError: If some are on a disk, and others in an object store.
  """
  if len({paths.is_remote(file) for file in files}) > 1:
    raise UsageError("--save: expected images of one place, not of a disk and an object store")
  shared = set.intersection(*({*file.parents} for file in files))
  return max(shared, key=lambda folder: len(folder.parts))


def output(stem: Path, name: str) -> Path:
  """Returns the file of an image's picture."""
  return stem.with_name(f"{stem.name}_{name}")


def save_outputs(stem: Path, names: Sequence[str], picture: Picture, evaluated: Evaluation) -> None:
  """Writes pictures of one image.

  Args:
    stem: What `make_stems` returned for it.
    names: Which pictures, of `OUTPUTS`.
    picture: The image. Where it has alpha, so have its copies.
    evaluated: What was computed of it.

  Raises:
    UsageError: If one cannot be written.
  """
  with writing(stem):
    paths.make_folder(stem.parent)
    for index, copy in enumerate(evaluated.copies):
      draw = _list_drawings(picture, evaluated, copy)
      for name in names:
        if name in draw and (not index or name in _OF_NOISE):
          write = write_npy if name.endswith(".npy") else write_png
          write(output(stem, name_output(name, copy.lmbda if index else None)), draw[name]())
    if has_page(names):
      write_thumbnail(stem, picture.pixels)


def write_thumbnail(stem: Path, pixels: Pixels) -> None:
  """Writes the picture of an image that a page's gallery shows, whole or not at all."""
  with whole_file(output(stem, THUMBNAIL)) as partial:
    draw_thumbnail(pixels).save(partial, format="JPEG", quality=85)


def _list_drawings(
  picture: Picture, evaluated: Evaluation, copy: Copy
) -> dict[str, Callable[[], np.ndarray]]:
  """Lists by name what can be drawn of an image and one of its copies."""
  jnd, attention = evaluated.jnd, evaluated.attention
  drawings: dict[str, Callable[[], np.ndarray]] = {
    ORIGINAL: lambda: _draw_original(picture),
    DISTORTED: lambda: _add_alpha(copy.distorted, picture.alpha),
    JND: lambda: sheets.visible_jnd(jnd)[0],
    "jnd.npy": lambda: jnd,
    ATTENTION: lambda: sheets.jet(np.asarray(attention)),
    "sheet.png": lambda: sheets.analysis_sheet(
      picture.pixels,
      attention=attention,
      jnd=jnd,
      distorted=copy.distorted,
      note=f"lmbda {copy.lmbda:g}: {copy.scores['psnr']:.2f} dB",
    ),
  }
  for name, model in VISION_MAPS.items():
    if model.name in copy.maps:
      drawings[name] = partial(draw_map, model, copy.maps[model.name])
  return drawings


def _draw_original(picture: Picture) -> UInt8[np.ndarray, "h w channels"]:
  """Draws an image as its copies are drawn, so that no rounding of theirs blinks."""
  if picture.alpha is None:
    return picture.pixels
  return _add_alpha(picture.pixels.astype(np.float32) / 255, picture.alpha)


def _add_alpha(
  distorted: Float[np.ndarray, "h w 3"], alpha: UInt8[np.ndarray, "h w"] | None
) -> UInt8[np.ndarray, "h w channels"]:
  """Returns the colours that with this alpha show the distorted image over white."""
  if alpha is None:
    return to_uint8(distorted)
  opacity = np.maximum(alpha, 1)[..., None].astype(np.float32) / 255
  colors = np.where(alpha[..., None] > 0, 1 - (1 - distorted) / opacity, 1)
  return np.concatenate([to_uint8(colors), alpha[..., None]], axis=-1)

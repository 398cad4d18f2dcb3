"""Reads participants' files, and says of each that cannot be used why.

Nothing in a file is trusted: every value has a type and a range, and every trial must be one of
the study's.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.study.design import Design, Lmbda, Record, Text, identify

_LARGEST_BYTES = 32 * 2**20

Side = Literal["left", "right"]

_Positive = Annotated[float, Meta(gt=0, le=1e6)]
_Code = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,32}\Z")]
_Glyph = Annotated[str, Meta(max_length=10)]


class Screen(Record, frozen=True):
  """A participant's screen.

  Attributes:
    px_per_mm: Device pixels in a millimetre, by the card.
    device_pixel_ratio: Device pixels in a CSS pixel.
    width_px: The window's width in device pixels.
    height_px: Its height.
    distance_cm: From eye to screen, as the participant says.
    gamma: By matching a gray to black and white lines.
    dark_seen: How many of four dark squares were seen.
    light_seen: How many of four light squares were seen.
    refresh_hz: How often the page could draw in a second.
  """

  px_per_mm: _Positive
  device_pixel_ratio: _Positive
  width_px: _Positive
  height_px: _Positive
  distance_cm: _Positive
  gamma: _Positive
  dark_seen: Annotated[int, Meta(ge=0, le=4)]
  light_seen: Annotated[int, Meta(ge=0, le=4)]
  refresh_hz: _Positive


class Plate(Record, frozen=True):
  """A colour-vision plate: the digit that it shows, and the one that was read."""

  shown: _Glyph
  answer: _Glyph


class Trial(Record, frozen=True):
  """One pair of pictures, and on which side the flicker was and was seen."""

  kind: Literal["practice", "main", "trap"]
  image: Text
  model: Text
  lmbda: Lmbda
  side: Side
  answer: Side
  reaction_ms: Annotated[float, Meta(ge=0, le=1e9)]


class Result(Record, frozen=True):
  """A participant's file."""

  format: Literal["hvsjnd_jax study result"]
  version: Literal[1]
  study: Text
  design: Design
  participant: _Code
  started: Annotated[str, Meta(max_length=40)]
  finished: bool
  screen: Screen
  plates: Annotated[list[Plate], Meta(max_length=100)]
  trials: Annotated[list[Trial], Meta(max_length=1_000_000)]


class ResultError(HVSJNDError):
  """A file that holds no usable result."""


class Problem(NamedTuple):
  """A file that is left out, and why."""

  path: Path
  reason: str


class Results(NamedTuple):
  """The usable files of one study, by path, and those left out."""

  design: Design
  files: dict[Path, Result]
  problems: list[Problem]


def find_results(paths: Iterable[Path]) -> list[Path]:
  """Lists the files: those named, and the .json files of folders; each once.

  Raises:
    ResultError: If a path does not exist, or nothing is found.
  """
  found: dict[Path, Path] = {}
  for path in paths:
    if not path.exists():
      raise ResultError(f"no such file or folder: {path}")
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
      found.setdefault(file.resolve(), file)
  if not found:
    raise ResultError(f"no .json file in {', '.join(map(str, paths))}")
  return list(found.values())


def read_results(files: Sequence[Path]) -> Results:
  """Reads the files of one study: of the one that most of them belong to.

  Of several files of one participant, the first one is kept.

  Raises:
    ResultError: If none can be used; the message gives the first file's reason.
  """
  read: dict[Path, Result] = {}
  problems: list[Problem] = []
  for file in files:
    try:
      read[file] = read_result(file)
    except ResultError as error:
      problems.append(Problem(file, str(error)))
  if not read:
    raise ResultError(f"none of {len(files)} files can be used; {files[0]}: {problems[0].reason}")
  ((study, _),) = Counter(result.study for result in read.values()).most_common(1)
  kept: dict[Path, Result] = {}
  owner: dict[str, Path] = {}
  for file, result in read.items():
    if result.study != study:
      reason = f"belongs to another study, {result.study}; most of the files belong to {study}"
      problems.append(Problem(file, reason))
    elif result.participant in owner:
      reason = f"participant {result.participant} is in {owner[result.participant]} already"
      problems.append(Problem(file, reason))
    else:
      kept[file], owner[result.participant] = result, file
  return Results(next(iter(kept.values())).design, kept, problems)


def read_result(file: Path) -> Result:
  """Reads and checks one file.

  Raises:
    ResultError: If it cannot be read, is no result, is not finished, or contradicts itself.
  """
  try:
    if not file.is_file():
      raise ResultError("not a regular file")
    size = file.stat().st_size
    if size > _LARGEST_BYTES:
      raise ResultError(f"{size} bytes; a participant's file has less than {_LARGEST_BYTES}")
    data = file.read_bytes()
  except OSError as error:
    raise ResultError(f"cannot be read: {error.strerror or error}") from None
  try:
    result = msgspec.json.decode(data, type=Result)
  except msgspec.ValidationError as error:
    raise ResultError(f"no result of this version: {error}") from None
  except (msgspec.DecodeError, UnicodeDecodeError) as error:
    raise ResultError(f"damaged: no JSON: {error}") from None
  _check(result)
  return result


def _check(result: Result) -> None:
  design = result.design
  if result.study != identify(design):
    raise ResultError("its design was changed: it does not belong to the study's id")
  if sorted(set(design.lmbdas)) != design.lmbdas:
    raise ResultError("its lmbdas are not ascending")
  names = [[part.name for part in parts] for parts in (design.models, design.images)]
  if any(len(set(part)) < len(part) for part in names):
    raise ResultError("two of its images or models have one name")
  if not result.finished:
    raise ResultError(f"not finished: ends after {len(result.trials)} trials")
  _check_trials(result, *names)
  for wanted, parts in ((design.plates, result.plates), (design.traps, _of(result, "trap"))):
    if len(parts) != wanted:
      what = "plates" if parts is result.plates else "traps"
      raise ResultError(f"{len(parts)} {what}, but its study has {wanted}")


def _check_trials(result: Result, models: list[str], images: list[str]) -> None:
  """Refuses trials that are not the study's, or a wrong number of them."""
  design = result.design
  lmbdas = set(design.lmbdas)
  for i, trial in enumerate(result.trials):
    shown = {design.trap_lmbda} if trial.kind != "main" else lmbdas
    if trial.model not in models or trial.image not in images or trial.lmbda not in shown:
      raise ResultError(
        f"trial {i}: {trial.image!r} with lmbda {trial.lmbda:g} of {trial.model!r} is no "
        f"{trial.kind} trial of its study"
      )
  shown = Counter((t.image, t.model, t.lmbda) for t in _of(result, "main"))
  if design.method == "constant":
    cells = itertools.product(images, models, design.lmbdas)
    if shown != dict.fromkeys(cells, design.repeats):
      raise ResultError(
        f"not every image, model and lmbda was shown {design.repeats} times, as in its study"
      )
  else:
    tracks = Counter[tuple[str, str]]()
    for (image, model, _), count in shown.items():
      tracks[image, model] += count
    if len(tracks) < len(images) * len(models) or max(tracks.values()) > design.longest_staircase:
      raise ResultError("a staircase is missing, or longer than in its study")


def _of(result: Result, kind: str) -> list[Trial]:
  return [trial for trial in result.trials if trial.kind == kind]

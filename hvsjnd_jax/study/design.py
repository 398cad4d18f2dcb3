"""What a study is: the design that its page follows and that every participant's file repeats."""

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Method = Literal["constant", "staircase"]

# Names and titles are printed, and a terminal obeys control characters.
Text = Annotated[str, Meta(max_length=1000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
MOST_IMAGES = 1000
MOST_LMBDA = 1e6

Lmbda = Annotated[float, Meta(gt=0, le=MOST_LMBDA)]
_Count = Annotated[int, Meta(ge=1, le=1000)]
_Side = Annotated[int, Meta(ge=1, le=100_000)]

# Someone who guesses passes the traps with less than this probability.
_GUESSER_PASSES = 0.02


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
  """The base of all that is read from JSON: every field typed, none unknown."""


class Model(Record, frozen=True):
  """A JND model whose noise is shown.

  Attributes:
    name: The name or folder that it was built with.
    sha256: The hash of its weights; None where it has none.
  """

  name: Text
  sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")] | None


class Image(Record, frozen=True):
  """A photograph, or the crop of it that is shown."""

  name: Text
  height: _Side
  width: _Side


class Timing(Record, frozen=True):
  """How long things take.

  Attributes:
    flicker_hz: How often in a second the original is replaced by the distorted copy.
    longest_s: A pair is shown so long at most; after that, the answer is awaited before gray.
    pause_s: How long the screen is gray before a pair.
  """

  flicker_hz: Annotated[float, Meta(gt=0, le=30)] = 8.0
  longest_s: Annotated[float, Meta(gt=0, le=600)] = 6.0
  pause_s: Annotated[float, Meta(ge=0, le=60)] = 0.5


class Design(Record, frozen=True):
  """A study.

  Attributes:
    title: What participants read above the welcome.
    method: "constant": every lmbda is shown `repeats` times. "staircase": for each image and
      model, three right answers in a row lower the lmbda by a step, and a wrong one raises it.
    seed: With the participant's code, it decides the order and the sides.
    models: The models.
    images: The images.
    lmbdas: The scales of the noise, ascending.
    trap_lmbda: The scale that nobody overlooks, for traps and practice.
    repeats: Of each image, model and lmbda, by the method "constant".
    reversals: After so many turns a staircase ends.
    longest_staircase: After so many trials it ends at the latest.
    practice: The number of practice trials.
    traps: The number of trap trials.
    plates: The number of colour-vision plates.
    timing: How long things take.
  """

  title: Text
  method: Method
  seed: Annotated[int, Meta(ge=0, lt=2**32)]
  models: Annotated[list[Model], Meta(min_length=1, max_length=100)]
  images: Annotated[list[Image], Meta(min_length=1, max_length=MOST_IMAGES)]
  lmbdas: Annotated[list[Lmbda], Meta(min_length=2, max_length=1000)]
  trap_lmbda: Lmbda
  repeats: _Count = 4
  reversals: _Count = 8
  longest_staircase: _Count = 40
  practice: Annotated[int, Meta(ge=0, le=100)] = 5
  traps: Annotated[int, Meta(ge=6, le=100)] = 10
  plates: Annotated[int, Meta(ge=0, le=20)] = 6
  timing: Timing = Timing()


def validate(design: Design) -> Design:
  """Returns the design if all its values are in range.

  Raises:
    ValueError: If one is not.
  """
  try:
    return msgspec.convert(msgspec.to_builtins(design), Design)
  except msgspec.ValidationError as error:
    raise ValueError(str(error)) from None


def identify(design: Design) -> str:
  """Returns what names a design, and no other one."""
  # JavaScript writes 2 for 2.0; validating makes them one.
  encoded = msgspec.json.encode(validate(design), order="sorted")
  return hashlib.sha256(encoded).hexdigest()[:16]


def count_forgiven_traps(traps: int) -> int:
  """Returns how many traps may be missed: so few that someone who guesses passes in 1 of 50.

  Examples:
    >>> [count_forgiven_traps(traps) for traps in (6, 8, 10, 20)]
    [0, 0, 1, 4]
  """
  from scipy import stats  # its import takes a quarter of a second

  missed = 0
  while stats.binom.cdf(missed + 1, traps, 0.5) < _GUESSER_PASSES:
    missed += 1
  return missed


def count_forgiven_plates(plates: int) -> int:
  """Returns how many colour plates may be misread: one, where there are four or more."""
  return int(plates >= 4)

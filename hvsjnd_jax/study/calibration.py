"""The file that carries a study's thresholds to `eval --calibration`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.study.design import Design, Lmbda, Model, Record, Text, identify

if TYPE_CHECKING:  # SciPy's statistics would delay every start of `eval`
  from hvsjnd_jax.study.analysis import Analysis


class CalibrationError(HVSJNDError):
  """A calibration that cannot be read, or does not know the model."""


class Calibrated(Record, frozen=True):
  """One JND of a model.

  Attributes:
    model: The model.
    lmbda: The lmbda at which three of four answers were right.
    low: The lower end of its 95 % interval.
    high: The upper end.
  """

  model: Model
  lmbda: Lmbda
  low: Annotated[float, Meta(gt=0)]
  high: Annotated[float, Meta(gt=0)]


class CalibrationFile(Record, frozen=True):
  """What the file holds."""

  format: Literal["hvsjnd_jax calibration"]
  version: Literal[1]
  study: Text
  title: Text
  participants: Annotated[int, Meta(ge=1)]
  models: Annotated[list[Calibrated], Meta(max_length=100)]


def make_calibration(design: Design, analysis: "Analysis", *, participants: int) -> CalibrationFile:
  """Collects the models' thresholds, but for those outside the lmbdas that were shown."""
  models = [
    Calibrated(model, found.lmbda, found.low, found.high)
    for model in design.models
    if not (found := analysis.pooled[model.name]).beyond
  ]
  return CalibrationFile(
    "hvsjnd_jax calibration", 1, identify(design), design.title, participants, models
  )


def encode(calibration: CalibrationFile) -> str:
  """Returns the file's text."""
  return msgspec.json.format(msgspec.json.encode(calibration)).decode() + "\n"


def find_jnd(file: Path, *, sha256: str) -> float:
  """Returns the lmbda of one JND, for weights of this hash.

  Raises:
    CalibrationError: If the file cannot be read, is no calibration, or is of other weights.
  """
  try:
    calibration = msgspec.json.decode(file.read_bytes(), type=CalibrationFile)
  except OSError as error:
    raise CalibrationError(f"{file}: {error.strerror or error}") from None
  except (msgspec.MsgspecError, UnicodeDecodeError) as error:
    raise CalibrationError(
      f"{file}: expected the calibration.json of `hvsjnd_jax.study analyze`: {error}"
    ) from None
  for calibrated in calibration.models:
    if calibrated.model.sha256 == sha256:
      return calibrated.lmbda
  known = ", ".join(calibrated.model.name for calibrated in calibration.models)
  raise CalibrationError(
    f"{file}: its study has no threshold of these weights; it has those of: {known or 'none'}"
  )

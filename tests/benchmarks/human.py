"""Compare the level of JND maps with what people saw in the same images.

  python -m tests.benchmarks.human --data ../shared/data
  python -m tests.benchmarks.human --data ../shared/data --model W

Does a model give a higher JND to the images in which people see less? Spearman's rank correlation
compares each image's mean JND in gray levels, over all pixels and channels, with one judgement of
the image. Beside the arithmetic mean stands the geometric one, which peaks affect less (values
below 0.01 gray levels count as 0.01). There are two studies:

noise  TID2013: the mean opinion score of the same white Gaussian noise on every image, averaged
       over levels 2 to 4 of 5. The higher the score, the better the noise was hidden. The
       references are crops of 512x384 from Kodak's images, in Kodak's order as far as is known.
       Where they were cropped is not known, so maps are of the whole image. I25, which is no
       photograph, is left out.
JPEG   KonJND-1k's quiz: the middle of the range of distortion levels that its authors accept
       as an image's JND. The level is 101 minus the JPEG quality: the higher it is, the more is
       hidden. Five images say next to nothing.

So a positive correlation is right in both: at +1 the model ranks all images as people do. The 95 %
interval in brackets is from percentiles over 10,000 resamples of the images, the same for every
model. "-" marks a model that gives all images one level, which ranks nothing.

People judged whole images, and noise well above the threshold. So this says neither whether a map
is right within an image nor what its level should be.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float
from tqdm import tqdm

from hvsjnd_jax.baselines import BASELINES
from hvsjnd_jax.cli.command import UsageError, make_parser, report_error, run_command
from hvsjnd_jax.cli.photographs import Photographs, plan_window
from hvsjnd_jax.data.images import ImageError, read_image
from hvsjnd_jax.evaluation.estimators import load_estimator
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.runtime.compilation_cache import keep_compilations
from hvsjnd_jax.runtime.jobs import run_job
from tests.benchmarks.tables import align

_NOISE_LEVELS = ("t01_l2", "t01_l3", "t01_l4")
_JPEG_RANGE = ("level_lo", "level_hi")
_RESAMPLES = 10_000
_INTERVAL = (2.5, 97.5)  # percentiles
_LEAST_LEVEL = 0.01  # below it, levels count as this in the geometric mean


class Study(NamedTuple):
  """People's judgements of images: the higher, the better the same distortion was hidden."""

  name: str
  files: list[Path]
  judged: list[float]


class Levels(NamedTuple):
  """The means of a map in gray levels."""

  arithmetic: float
  geometric: float


class Correlation(NamedTuple):
  """Spearman's rank correlation, and the ends of its 95 % interval."""

  rho: float
  low: float
  high: float


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  args = _parse(argv)
  return run_command("human", lambda: _run(args))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("human", __doc__, module="tests.benchmarks.human")
  parser.add_argument(
    "--data", type=Path, required=True, metavar="DIR", help="holds the folders human and kodak"
  )
  parser.add_argument(
    "--model",
    metavar="M",
    default="default",
    help="shipped weights, or a folder of weights (default: default)",
  )
  return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> int:
  keep_compilations(partial(report_error, "human"))
  studies = [read_noise_study(args.data), read_jpeg_study(args.data)]
  window = plan_window(Photographs([file for study in studies for file in study.files]))
  models = {name: load_estimator(name, window) for name in (args.model, *BASELINES)}
  print("Spearman's rank correlation of a map's mean with people's judgement, + being right")
  heads = [
    f"{study.name}, n={len(study.files)}, {kind}" for study in studies for kind in Levels._fields
  ]
  rows = [["model", *heads]]
  for name, model in tqdm(models.items(), unit="model", disable=None):
    cells = []
    for study in studies:
      levels = [measure_levels(run_job(model(_read(file))).jnd) for file in study.files]
      cells += [_format(correlate(level, study.judged)) for level in zip(*levels, strict=True)]
    rows.append([name, *cells])
  print(align(rows))
  return 0


def read_noise_study(data: Path) -> Study:
  """Reads TID2013's opinions of additive noise, and lists the Kodak images they are about."""
  scores = _read_table(data / "human/tid2013_mos_noise_types_kodak24.csv", _NOISE_LEVELS)
  scores.pop("I25", None)
  files = [data / f"kodak/kodim{name.removeprefix('I')}.png" for name in scores]
  return Study("noise", files, [float(np.mean(levels)) for levels in scores.values()])


def read_jpeg_study(data: Path) -> Study:
  """Reads the JND of KonJND-1k's quiz images, in levels of JPEG distortion."""
  ranges = _read_table(data / "human/konjnd_quiz_jpeg.csv", _JPEG_RANGE)
  files = [data / "human" / name for name in ranges]
  return Study("JPEG", files, [float(np.mean(ends)) for ends in ranges.values()])


def _read_table(file: Path, columns: Sequence[str]) -> dict[str, list[float]]:
  """Reads the numbers in some columns, by the column "ref"."""
  try:
    with file.open(newline="") as lines:
      rows = list(csv.DictReader(lines))
    return {row["ref"]: [float(row[column]) for column in columns] for row in rows}
  except OSError as error:
    raise UsageError(f"{file}: {error.strerror}; give the folder that holds it as --data") from None
  except (KeyError, TypeError, ValueError):
    wanted = ", ".join(columns)
    raise UsageError(f"{file}: expected the column ref, and numbers in {wanted}") from None


def _read(file: Path) -> Pixels:
  try:
    return read_image(file)
  except ImageError as error:
    raise UsageError(f"{file}: {error}") from None


def measure_levels(jnd: Float[np.ndarray, "h w 3"]) -> Levels:
  """Averages an image's map, to a millionth, so that rounding errors do not affect the ranks."""
  levels = 255 * jnd.astype(np.float64)
  geometric = np.exp(np.log(np.maximum(levels, _LEAST_LEVEL)).mean())
  return Levels(round(float(levels.mean()), 6), round(float(geometric), 6))


def correlate(predicted: Sequence[float], judged: Sequence[float]) -> Correlation | None:
  """Computes Spearman's rank correlation; None if all values of one side are equal."""
  pair = np.asarray([predicted, judged])
  places = np.random.default_rng(0).integers(pair.shape[1], size=(_RESAMPLES, pair.shape[1]))
  rho = float(_spearman(*pair))
  if np.isnan(rho):
    return None
  # Resamples in which all values of one side are equal have no correlation, and are left out.
  low, high = np.nanpercentile(_spearman(*pair[:, places]), _INTERVAL)
  return Correlation(rho, float(low), float(high))


def _spearman(
  first: Float[np.ndarray, "*b n"], second: Float[np.ndarray, "*b n"]
) -> Float[np.ndarray, "*b"]:
  """Computes `scipy.stats.spearmanr` of many pairs at once; NaN if one side has equal values."""
  ranks = (scipy.stats.rankdata(values, axis=-1) for values in (first, second))
  a, b = (values - values.mean(axis=-1, keepdims=True) for values in ranks)
  with np.errstate(invalid="ignore"):
    return (a * b).sum(axis=-1) / np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))


def _format(correlation: Correlation | None) -> str:
  if correlation is None:
    return "-"
  return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*correlation)


if __name__ == "__main__":
  sys.exit(main())

"""Set the level of the maps against what people saw in the same images.

  python -m tests.benchmarks.human --data ../shared/data
  python -m tests.benchmarks.human --data ../shared/data --weights W

Does a model give a higher JND to the images in which people see less? Of each image the map's
mean in gray levels, over all pixels and channels, is set against one judgement by Spearman's
rank correlation; beside the arithmetic mean also the geometric one, which peaks move less
(values below 0.01 gray levels count as that). Two studies:

noise  TID2013: the mean opinion score of white Gaussian noise, the same for every image, mean
       over levels 2 to 4 of 5. The higher the score, the better the noise was hidden. Its
       references are crops of 512x384 from Kodak's images, in Kodak's order as far as is known;
       from where is not, so maps are of the whole image. I25, which is no photograph, is left
       out.
JPEG   KonJND-1k's quiz: the middle of the range of distortion levels that its authors accept
       as an image's JND. The level is 101 less the JPEG quality: the higher, the more is
       hidden. Five images say next to nothing.

So + is as it should be in both: the model ranks the images as people do, +1 being all of
them. In brackets the 95 % interval over 10,000 resamples of the images, percentiles; the
resamples are the same for every model. "-" stands where a model gives all images one level,
which ranks nothing.

People judged noise well above the threshold, and whole images: nothing here tells whether a
map is right within an image, or what its level should be.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float
from tqdm import tqdm

from hvsjnd_jax.baselines import BASELINES
from hvsjnd_jax.runtime.compilation_cache import keep_compilations
from hvsjnd_jax.cli.command import UsageError, run_command
from hvsjnd_jax.cli.photographs import plan_window
from hvsjnd_jax.data.images import ImageError, read_image
from hvsjnd_jax.evaluation.estimators import Model, load_model
from hvsjnd_jax.ops.types import Pixels
from tests.benchmarks.tables import align

_NOISE_LEVELS = ("t01_l2", "t01_l3", "t01_l4")
_JPEG_RANGE = ("level_lo", "level_hi")
_RESAMPLES = 10_000
_INTERVAL = (2.5, 97.5)  # percentiles
_LEAST_LEVEL = 0.01  # for the geometric mean


class Study(NamedTuple):
  """What people said of images: the higher, the better the same distortion was hidden."""

  name: str
  files: list[Path]
  judged: list[float]


class Levels(NamedTuple):
  """A map's mean in gray levels."""

  arithmetic: float
  geometric: float


class Correlation(NamedTuple):
  """Spearman's, and the ends of its 95 % interval."""

  rho: float
  low: float
  high: float


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit status."""
  args = _parse(argv)
  return run_command("human", lambda: _run(args))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  description, _, notes = (__doc__ or "").partition("\n\n")
  parser = argparse.ArgumentParser(
    prog="python -m tests.benchmarks.human",
    description=description,
    epilog=notes,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--data", type=Path, required=True, metavar="DIR", help="holds the folders human and kodak"
  )
  parser.add_argument(
    "--weights",
    metavar="DIR",
    default="default",
    help="a folder of weights (default: the shipped ones)",
  )
  return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> int:
  keep_compilations()
  studies = [read_noise_study(args.data), read_jpeg_study(args.data)]
  window = plan_window([file for study in studies for file in study.files])
  models = {name: load_model(name, window) for name in (args.weights, *BASELINES)}
  print("Spearman's rank correlation of a map's mean with people's judgement, + being right")
  heads = [
    f"{study.name}, n={len(study.files)}, {kind}" for study in studies for kind in Levels._fields
  ]
  rows = [["model", *heads]]
  for name, model in tqdm(models.items(), unit="model", disable=None):
    cells = []
    for study in studies:
      levels = [measure_levels(model, _read(file)) for file in study.files]
      cells += [_format(correlate(level, study.judged)) for level in zip(*levels, strict=True)]
    rows.append([name, *cells])
  print(align(rows))
  return 0


def read_noise_study(data: Path) -> Study:
  """TID2013's opinion of additive noise, and the Kodak images that it was added to."""
  scores = _read_table(data / "human/tid2013_mos_noise_types_kodak24.csv", _NOISE_LEVELS)
  scores.pop("I25", None)
  files = [data / f"kodak/kodim{name.removeprefix('I')}.png" for name in scores]
  return Study("noise", files, [float(np.mean(levels)) for levels in scores.values()])


def read_jpeg_study(data: Path) -> Study:
  """The JND of KonJND-1k's quiz images, in levels of JPEG distortion."""
  ranges = _read_table(data / "human/konjnd_quiz_jpeg.csv", _JPEG_RANGE)
  files = [data / "human" / name for name in ranges]
  return Study("JPEG", files, [float(np.mean(ends)) for ends in ranges.values()])


def _read_table(file: Path, columns: Sequence[str]) -> dict[str, list[float]]:
  """The numbers in some columns, by the column "ref"."""
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


def measure_levels(model: Model, pixels: Pixels) -> Levels:
  """The mean of an image's map; to a millionth, so that no rounding is ranked."""
  levels = 255 * model(pixels).astype(np.float64)
  geometric = np.exp(np.log(np.maximum(levels, _LEAST_LEVEL)).mean())
  return Levels(round(float(levels.mean()), 6), round(float(geometric), 6))


def correlate(predicted: Sequence[float], judged: Sequence[float]) -> Correlation | None:
  """Spearman's rank correlation; None where one side is all equal."""
  pair = np.asarray([predicted, judged])
  places = np.random.default_rng(0).integers(pair.shape[1], size=(_RESAMPLES, pair.shape[1]))
  rho = float(_spearman(*pair))
  if np.isnan(rho):
    return None
  # Resamples in which one side is all equal say nothing, and are left out.
  low, high = np.nanpercentile(_spearman(*pair[:, places]), _INTERVAL)
  return Correlation(rho, float(low), float(high))


def _spearman(
  first: Float[np.ndarray, "*b n"], second: Float[np.ndarray, "*b n"]
) -> Float[np.ndarray, "*b"]:
  """As `scipy.stats.spearmanr`, of many pairs at once; NaN where one side is all equal."""
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

"""Compares JND models by how visible their noise is at one PSNR.

All models' noise has the same signs and the same PSNR, so that what differs is where a model
puts it. There are three cases: in "channels" each of R, G and B has the PSNR, and the three share
one sign a pixel; in "channels_own" each has the PSNR and signs of its own; in "total" the three
together have the PSNR, split among them as in the model's map, and share signs.

Shared signs have a loophole. A map that gives red and blue noise to other pixels than green
noise lowers the noise of the luminance, and scores well without a model of the image. Where each
channel has its own signs, this gains nothing. So a map is better only where both cases say so.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

from hvsjnd_jax.data.images import Picture
from hvsjnd_jax.evaluation import scores, vision_maps
from hvsjnd_jax.evaluation.estimators import Estimator, Maps
from hvsjnd_jax.evaluation.scores import ImageScores, ScoreTable
from hvsjnd_jax.evaluation.tables import BETTER
from hvsjnd_jax.evaluation.vision_maps import VISION_MODELS
from hvsjnd_jax.noise import SignProtocol, draw_signs
from hvsjnd_jax.noise_scale import UnreachableError, scale_to_psnr
from hvsjnd_jax.ops.samples import to_unit
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.runtime.jobs import Job
from hvsjnd_jax.viz import sheets

Case = Literal["channels", "channels_own", "total"]


class Rule(NamedTuple):
  """How the noise of a case is made.

  Attributes:
    by_channel: Whether R, G and B each have the PSNR, or the three together.
    signs: Whether the channels share signs.
  """

  by_channel: bool
  signs: SignProtocol


CASES: dict[Case, Rule] = {
  "channels": Rule(by_channel=True, signs="shared"),
  "channels_own": Rule(by_channel=True, signs="own"),
  "total": Rule(by_channel=False, signs="shared"),
}

# What `score` measures.
SCORED = ("psnr", *BETTER)


class Comparison(NamedTuple):
  """What the models' noise does to one image.

  Attributes:
    scores: By case and model; a model that failed is left out.
    noisy: The pictures by case and model, of those cases that were to be kept.
    errors: The model and the reason of each failure.
    maps: Pictures of the maps that were to be drawn, by the same cases and models and by name.
  """

  scores: dict[Case, ScoreTable]
  noisy: dict[Case, dict[str, Pixels]]
  errors: list[tuple[str, str]]
  maps: Mapping[Case, dict[str, dict[str, Pixels]]] = MappingProxyType({})


def compare(
  picture: Picture,
  estimators: Mapping[str, Estimator],
  *,
  psnr_db: float,
  seed: int,
  kept: Sequence[Case] = ("channels",),
  drawn: Sequence[str] = (),
) -> Job[Comparison]:
  """Adds every model's noise to an image of 8 bits, and scores it.

  Args:
    picture: The image. Its maps are drawn from 16 bits where it has them.
    estimators: What draws each model's maps, by the model's name.
    psnr_db: The PSNR of the noise, in all cases.
    seed: The seed of the noise's signs.
    kept: The cases whose pictures are returned.
    drawn: The maps whose pictures are returned, in these cases: "jnd", "attention" of models that
      have it, and of the noise, those of the `VISION_MODELS` that the image is large enough for.
  """
  pixels = picture.pixels
  signs = {
    protocol: draw_signs(pixels, seed=seed, protocol=protocol)
    for protocol in get_args(SignProtocol)
  }
  compared = Comparison(
    {case: {} for case in CASES}, {case: {} for case in kept}, [], {case: {} for case in kept}
  )
  for name, estimator in estimators.items():
    maps = yield from estimator(picture.finest)
    own = _draw_maps(maps, drawn)
    for case, rule in CASES.items():
      try:
        noisy, scale = scale_to_psnr(
          pixels, maps.jnd, signs[rule.signs], psnr_db=psnr_db, by_channel=rule.by_channel
        )
      except UnreachableError as error:
        if (name, str(error)) not in compared.errors:
          compared.errors.append((name, str(error)))
        continue
      scales = dict(zip(("scale_r", "scale_g", "scale_b"), scale, strict=True))
      compared.scores[case][name] = score(noisy, pixels) | scales
      if case in kept:
        compared.noisy[case][name] = noisy
        compared.maps[case][name] = own | _draw_differences(noisy, pixels, drawn)
  return compared


def _draw_maps(maps: Maps, drawn: Sequence[str]) -> dict[str, Pixels]:
  """Draws the maps that do not depend on the noise."""
  pictures: dict[str, Pixels] = {}
  if "jnd" in drawn:
    pictures["jnd"] = sheets.visible_jnd(maps.jnd)[0]
  if "attention" in drawn and maps.attention is not None:
    pictures["attention"] = sheets.jet(maps.attention)
  return pictures


def _draw_differences(noisy: Pixels, reference: Pixels, drawn: Sequence[str]) -> dict[str, Pixels]:
  """Draws where models of vision see the noise."""
  pair = to_unit(noisy), to_unit(reference)
  return {
    model.name: vision_maps.draw_map(model, vision_maps.compute_map(model, *pair))
    for model in dict.fromkeys(VISION_MODELS.values())
    if model.name in drawn and model.smallest_px <= min(reference.shape[:2])
  }


def score(noisy: Pixels, reference: Pixels, *, metrics: Sequence[str] = SCORED) -> ImageScores:
  """Scores a noisy picture: all four of PSNR, and the metrics asked for.

  Args:
    noisy: The picture.
    reference: The image, of the same shape.
    metrics: Names in `METRICS`.

  Returns:
    The scores; None for a metric that the image is too small for.
  """
  return scores.measure(to_unit(noisy), to_unit(reference), metrics, backbones={})


class Summary(NamedTuple):
  """What the scores of many images say in one case.

  Attributes:
    mean: Each model's mean scores, over the images that every model has.
    first_better: As `count_wins`.
  """

  mean: ScoreTable
  first_better: ScoreTable


def summarize(images: Sequence[ScoreTable], first: str) -> Summary:
  """Summarizes the scores of many images in one case, the first model against the others."""
  return Summary(average(images), count_wins(images, first))


def select_common(images: Sequence[ScoreTable]) -> list[ScoreTable]:
  """Selects the images whose scores can be averaged: those that every model has.

  A model that has none of the images does not count.
  """
  names = set().union(*images)
  return [table for table in images if table.keys() == names]


def average(images: Sequence[ScoreTable]) -> ScoreTable:
  """Averages each model's scores over the images that every model has."""
  common = select_common(images)
  names = common[0] if common else ()
  return {name: scores.average([table[name] for table in common]) for name in names}


def count_wins(images: Sequence[ScoreTable], first: str) -> ScoreTable:
  """Counts on which share of the images the first model is better than each other one.

  Args:
    images: The scores of each image.
    first: The name of the model.

  Returns:
    By the other's name and the metric, the share of the images that both have. A model that
    shares none with the first is left out.
  """
  others = dict.fromkeys(name for table in images for name in table if name != first)
  shares: ScoreTable = {}
  for other in others:
    both = [table for table in images if table.keys() >= {first, other}]
    if not both:
      continue
    gains = [_subtract(table[first], table[other]) for table in both]
    wins: list[ImageScores] = [
      {name: None if gain is None else float(gain > 0) for name, gain in scores.items()}
      for scores in gains
    ]
    shares[other] = scores.average(wins)
  return shares


def gain_by_split(channels: Sequence[ScoreTable], total: Sequence[ScoreTable]) -> ScoreTable:
  """Averages what a model's own split gains: "total" less "channels", + being better."""
  return average(
    [
      {name: _subtract(own[name], equal[name]) for name in own if name in equal}
      for equal, own in zip(channels, total, strict=True)
    ]
  )


def _subtract(ours: ImageScores, theirs: ImageScores) -> ImageScores:
  """Returns by how much each of our scores is the better one."""
  gains: ImageScores = {}
  for name, better in BETTER.items():
    if name in ours:
      a, b = ours[name], theirs[name]
      gains[name] = None if a is None or b is None else (a - b if better == "higher" else b - a)
  return gains

"""Evaluates one image: its maps, the noise scaled by them, and the scores of the result."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from hvsjnd_jax.data.images import Picture
from hvsjnd_jax.evaluation import scores, vision_maps
from hvsjnd_jax.evaluation.scores import Backbones, ImageScores
from hvsjnd_jax.evaluation.vision_maps import Map, VisionModel
from hvsjnd_jax.model.windows import Analyzer
from hvsjnd_jax.noise import draw_signs, inject
from hvsjnd_jax.noise_scale import find_scale
from hvsjnd_jax.ops.samples import to_unit
from hvsjnd_jax.runtime.jobs import Job

LARGEST_LMBDA = float(np.finfo(np.float32).max)

# Noise is added to so many rows at a time, so that no further array of the image's size is made.
_ROWS_AT_ONCE = 64


class Copy(NamedTuple):
  """An image with noise of one scale.

  Attributes:
    distorted: The image with its noise, in [0, 1], not rounded.
    lmbda: The scale of the noise.
    scores: Those of the distorted image.
    maps: Where models of vision see the noise, by the model's name.
  """

  distorted: Float[np.ndarray, "h w 3"]
  lmbda: float
  scores: ImageScores
  maps: Mapping[str, Map]


class Evaluation(NamedTuple):
  """What the method makes of one image, on the host.

  Attributes:
    jnd: The JND map.
    attention: The attention map; None where the weights have no HVS-SD.
    copies: The image with noise of each scale.
  """

  jnd: Float[np.ndarray, "h w 3"]
  attention: Float[np.ndarray, "h w"] | None
  copies: list[Copy]


def evaluate(
  analyzer: Analyzer,
  picture: Picture,
  *,
  lmbda: float | None,
  psnr_db: float | None,
  seed: int,
  metrics: Sequence[str],
  backbones: Backbones,
  other_lmbdas: Sequence[float] = (),
  mapped: Sequence[VisionModel] = (),
) -> Job[Evaluation]:
  """Estimates an image's JND map, adds noise scaled by it, and scores the result.

  Args:
    analyzer: What estimates the map.
    picture: The image. Where it has 16 bits, its map is drawn from them, and noise added to them.
    lmbda: The scale of the noise; None where `psnr_db` is given.
    psnr_db: The PSNR for which a scale is searched, to 0.005 dB; None where `lmbda` is given.
    seed: The seed of the noise's signs.
    metrics: Names in `METRICS`.
    backbones: What `scores.load_backbones` returned.
    other_lmbdas: Further scales, each for a copy of its own.
    mapped: The models of vision that map the noise; one that the image is too small for does not.

  Raises:
    UnreachableError: If no scale gives the PSNR.
  """
  maps = yield from analyzer.start(picture.finest[None])
  jnd, attention = maps.jnd[0], maps.priors and maps.priors.attention[0, ..., 0]
  del maps  # the other two take as much memory as the image, twice over
  noise = _Noise(picture, jnd, seed=seed)
  if lmbda is None:
    assert psnr_db is not None
    lmbda = find_scale(noise.measure_error, jnd, psnr_db=psnr_db, largest=LARGEST_LMBDA)
  fitting = [model for model in mapped if model.smallest_px <= min(picture.pixels.shape[:2])]

  def judge(distorted: Float[np.ndarray, "h w 3"], lmbda: float) -> Copy:
    measured = scores.measure(distorted, noise.image, metrics, backbones=backbones)
    maps = {model.name: vision_maps.compute_map(model, distorted, noise.image) for model in fitting}
    return Copy(distorted, lmbda, measured, maps)

  others = [judge(noise.inject(other).copy(), other) for other in other_lmbdas]
  first = judge(noise.inject(lmbda), lmbda)
  return Evaluation(jnd, attention, [first, *others])


class _Noise:
  """An image and the one distorted copy of it that every lmbda is tried in."""

  def __init__(self, picture: Picture, jnd: Float[np.ndarray, "h w 3"], *, seed: int):
    self._jnd, self._signs = jnd, draw_signs(picture.pixels, seed=seed)
    self.image, self._distorted = (np.empty(jnd.shape, np.float32) for _ in range(2))
    for rows in self._split_rows():
      self.image[rows] = to_unit(picture.finest[rows])

  def inject(self, lmbda: float) -> Float[np.ndarray, "h w 3"]:
    """Overwrites the copy with the noise of this scale, and returns it."""
    for rows in self._split_rows():
      images, jnd = self.image[None, rows], self._jnd[None, rows]
      self._distorted[rows] = inject(images, jnd, self._signs[rows], lmbda=lmbda)[0]
    return self._distorted

  def measure_error(self, lmbda: float) -> float:
    """Computes the mean squared error of the noise of this scale."""
    return float(scores.measure_errors(self.inject(lmbda), self.image).mean())

  def _split_rows(self) -> Iterator[slice]:
    for start in range(0, len(self.image), _ROWS_AT_ONCE):
      yield slice(start, start + _ROWS_AT_ONCE)

"""Measure what each part of the method contributes, by training generators without it.

What limits them is measured as well: with more or fewer steps, channels and photographs.

  python -m tests.benchmarks.ablations --data ../shared/data
  python -m tests.benchmarks.ablations --data ../shared/data --only "all of it" "no priors"

Each variant trains generators, two of different seeds, behind the HVS-SD of the default weights,
on nine in ten of the photographs in DATA/train. They estimate maps of the middles, 384x384, of
the others (which HVS-SD was trained on, too). Noise of one PSNR in each of R, G and B, with
signs shared by the channels and with signs of their own, is scored by three models of vision.

Figures are means over images and seeds of the change of a loss, in per cent of what the masking
threshold alone has on the same image: Butteraugli's 3-norm and maximum, 100 - SSIMULACRA 2 and
10 - JOD. Negative is less visible. After each stands half the difference between the two seeds:
what is smaller than that is chance.

Priors that are left out are zeros to the generator.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from tqdm import tqdm

import hvsjnd_jax
from hvsjnd_jax.cli.command import make_parser, report_error, run_command
from hvsjnd_jax.data.crops import Crops, crop_stream
from hvsjnd_jax.data.photo_source import PhotoSource
from hvsjnd_jax.data.sources import PhotoFolder
from hvsjnd_jax.evaluation.comparison import CASES, Case
from hvsjnd_jax.model.correction import CorrectionNetwork
from hvsjnd_jax.model.jnd_map import PRIOR_CHANNELS
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.model.masking import threshold
from hvsjnd_jax.model.resizing import resize
from hvsjnd_jax.noise import draw_signs
from hvsjnd_jax.noise_scale import scale_to_psnr
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.runtime.compilation_cache import keep_compilations
from hvsjnd_jax.runtime.sharding import local_copy, make_mesh, replicate, shard_batch
from hvsjnd_jax.training.config import JNDConfig, TrainConfig
from hvsjnd_jax.training.train_state import build_model, init_state, split_model
from hvsjnd_jax.training.train_step import make_step
from tests.benchmarks.losses import LOSSES, VISION, measure_vision
from tests.benchmarks.pictures import cut_middle
from tests.benchmarks.tables import align

_EVERY = 10  # one in so many photographs is held out
_VIEW_PX = 384
_CHANNELS = 32
_COARSE_PX = 4
_FREE_BOUND = 3.0  # of a map without the masking threshold, in powers of e
_CASES: tuple[Case, ...] = ("channels", "channels_own")
_ALL_PRIORS = ("attention", "gradient", "lost")

MapDraw = Callable[[np.ndarray], Array]  # images [1, H, W, 3] -> maps


class Variant(NamedTuple):
  """How the training of a generator differs from the default run."""

  settings: Mapping[str, Any] = {}
  priors: Sequence[str] = _ALL_PRIORS
  masking: bool = True
  full_resolution: bool = True
  one_photo_in: int = 1  # of those that are not held out


_QUALITY = {"quality_weight": 1.0, "quality_form": "ms_ssim_gmsd"}

VARIANTS = {
  "all of it": Variant(),
  "no attention prior": Variant(priors=("gradient", "lost")),
  "no gradient prior": Variant(priors=("attention", "lost")),
  "nothing of what is lost": Variant(priors=("attention", "gradient")),
  "no priors": Variant(priors=()),
  "and the perceptual distance": Variant({"quality_weight": 0.5, "quality_form": "distance"}),
  "and quality in the domain": Variant(_QUALITY),
  "and quality in pixels": Variant(_QUALITY | {"quality_domain": "pixels"}),
  "and the attention loss": Variant({"attention_weight": 1.0}),
  "no Butteraugli": Variant({"butteraugli_weight": 0.0, "peaks_weight": 0.0}),
  "no peaks": Variant({"peaks_weight": 0.0}),
  "no SSIMULACRA 2": Variant({"ssimulacra2_weight": 0.0}),
  "no JOD": Variant({"jod_weight": 0.0}),
  "shared signs alone": Variant({"own_signs": 0.0}),
  "own signs alone": Variant({"own_signs": 1.0}),
  "no masking": Variant(masking=False),
  "no full resolution": Variant(full_resolution=False),
  "a third of the steps": Variant({"num_steps": 500}),
  "three times the steps": Variant({"num_steps": 4500}),
  "half as wide": Variant({"generator_channels": 16}),
  "twice as wide": Variant({"generator_channels": 64}),
  "a quarter of the photographs": Variant(one_photo_in=4),
}


class PartialNetwork(CorrectionNetwork):
  """A correction network without some of its parts."""

  def __init__(self, variant: Variant, *, channels: int = _CHANNELS, rngs: nnx.Rngs):
    super().__init__(channels, prior_channels=PRIOR_CHANNELS, rngs=rngs)
    self._variant = variant

  def __call__(
    self, images: Array, log_thresholds: Array, priors: Sequence[Array], **options: Any
  ) -> Array:
    """Draws the correction without what the variant leaves out."""
    given = zip(_ALL_PRIORS, priors, strict=True)
    priors = [maps if name in self._variant.priors else 0 * maps for name, maps in given]
    if not self._variant.masking:
      flat = jnp.full_like(log_thresholds, jnp.log(4 / 255))
      drawn = super().__call__(images, flat, priors, **options)
      # The bound of a correction is too narrow for a whole map.
      return _FREE_BOUND / 0.8 * drawn + flat - log_thresholds
    drawn = super().__call__(images, log_thresholds, priors, **options)
    return drawn if self._variant.full_resolution else _coarsen(drawn)


def _coarsen(maps: Array) -> Array:
  """Leaves what a map of a quarter of the size can hold."""
  b, h, w, c = maps.shape
  cells = maps.reshape(b, h // _COARSE_PX, _COARSE_PX, w // _COARSE_PX, _COARSE_PX, c)
  return resize(cells.mean(axis=(2, 4)), (h, w))


class _HeldIn(PhotoFolder):
  """The photographs that are not held out, or one in so many of them."""

  def __init__(self, folder: Path, one_in: int):
    super().__init__(folder)
    self.paths = [path for i, path in enumerate(self.paths) if i % _EVERY][::one_in]


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  args = _parse(argv)
  return run_command("ablations", lambda: _run(args))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("ablations", __doc__, module="tests.benchmarks.ablations")
  parser.add_argument(
    "--data", type=Path, required=True, metavar="DIR", help="holds the folder train"
  )
  parser.add_argument("--psnr", type=float, default=32.57, metavar="DB", help="(default: 32.57)")
  parser.add_argument("--steps", type=int, default=1500, metavar="N", help="(default: 1500)")
  parser.add_argument("--seeds", type=int, default=2, metavar="N", help="(default: 2)")
  parser.add_argument(
    "--only", nargs="+", choices=VARIANTS, metavar="NAME", help=f"of: {', '.join(VARIANTS)}"
  )
  return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> int:
  keep_compilations(partial(report_error, "ablations"))
  photos = PhotoFolder(args.data / "train")
  views = [cut_middle(photos[i], _VIEW_PX) for i in range(0, len(photos), _EVERY)]
  views = [view for view in views if view.shape[:2] == (_VIEW_PX, _VIEW_PX)]
  base = _score(jax.jit(threshold), views, args.psnr)
  titles = [LOSSES[name].title for name in VISION]
  heads = [f"{signs}: {title}" for signs in ("shared", "own") for title in titles]
  rows = [["", *heads]]
  for name in tqdm(args.only or list(VARIANTS), unit="variant", disable=None):
    variant, changes = VARIANTS[name], []
    held_in = _HeldIn(args.data / "train", variant.one_photo_in)
    for seed in range(args.seeds):
      model = train_generator(variant, held_in, num_steps=args.steps, seed=seed)
      scores = _score(partial(jax.jit(hvsjnd_jax.estimate), model), views, args.psnr)
      changes.append(100 * (scores / base - 1).mean(axis=0))
    means = np.mean(changes, axis=0).ravel()
    spreads = np.ptp(changes, axis=0).ravel() / 2
    cells = [f"{mean:+.1f} ±{half:.1f}" for mean, half in zip(means, spreads, strict=True)]
    rows.append([name, *cells])
    tqdm.write("  ".join(rows[-1]), file=sys.stderr)
  print(f"{len(views)} photographs, {args.psnr:g} dB in each of R, G and B, against masking alone")
  print(align(rows), flush=True)
  return 0


def train_generator(
  variant: Variant, photos: PhotoSource, *, num_steps: int, seed: int = 0
) -> JNDModel:
  """Trains a generator as the variant says, with the default weights' HVS-SD."""
  config = _configure(num_steps, variant.settings)
  config.seed = seed
  model = build_model(config)
  model.hvs_sd = hvsjnd_jax.load().hvs_sd
  model.generator = PartialNetwork(
    variant, channels=config.jnd.generator_channels, rngs=nnx.Rngs(seed)
  )
  stream = crop_stream(
    photos,
    config.data,
    crop_px=config.jnd.crop_px,
    batch_size=config.jnd.batch_size,
    seed=seed,
  )
  return _descend(model, config, stream)


def _configure(num_steps: int, settings: Mapping[str, Any]) -> TrainConfig:
  # The run is shorter than the default one, and so are its warm-up, average and crops.
  shorter = {
    "warmup_steps": min(JNDConfig().warmup_steps, num_steps // 4),
    "ema_decay": 0.99,
    "crop_px": 192,
    "batch_size": 1,
    "generator_channels": _CHANNELS,
  }
  return TrainConfig(stage="jnd", jnd=JNDConfig(**{"num_steps": num_steps, **shorter, **settings}))


def _descend(model: JNDModel, config: TrainConfig, stream: Iterator[Crops]) -> JNDModel:
  """Trains as `training.loop.train` does, without a folder."""
  mesh = make_mesh(jax.devices()[:1])
  graph, params, frozen = split_model(model, "jnd")
  frozen = replicate(frozen, mesh)
  state = replicate(init_state(params, config.jnd), mesh)
  run_step = make_step(config, "jnd", graph, mesh)
  for step in range(config.jnd.num_steps):
    state, _ = run_step(state, step, frozen, shard_batch(next(stream), mesh), None)
  return nnx.merge(graph, local_copy(state.ema), local_copy(frozen))


def _score(
  draw: MapDraw, views: Sequence[Pixels], psnr_db: float
) -> Float[np.ndarray, "view case loss"]:
  scores = []
  for pixels in views:
    image = pixels.astype(np.float32) / 255
    jnd = np.asarray(draw(image[None]))[0]
    for case in _CASES:
      signs = draw_signs(pixels, seed=0, protocol=CASES[case].signs)
      noisy = scale_to_psnr(pixels, jnd, signs, psnr_db=psnr_db, by_channel=True).pixels
      scores.append(measure_vision(noisy.astype(np.float32) / 255, image))
  return np.reshape(scores, (len(views), len(_CASES), -1))


if __name__ == "__main__":
  sys.exit(main())

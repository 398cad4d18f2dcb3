"""Measure what each part of the method contributes, by training generators without it.

  python -m tests.benchmarks.ablations --data ../shared/data
  python -m tests.benchmarks.ablations --data ../shared/data --only "all of it" "no quality term"

Each variant trains a generator, with the HVS-SD of the default weights, on nine in ten of the
photographs in DATA/train. It then estimates maps of the middles, 512x512, of the others. (HVS-SD
was trained on these too, and the masking's constants were chosen on crops of 24 photographs of
the whole set.) The noise has one PSNR in each of R, G and B and is scored as by
`hvsjnd_jax.compare`. Two seeds of the same variant show how much of a difference is chance.

In place of priors that are left out, the generator sees ones.

"free map" tests whether the objective or the generator is the limit: a map without a network,
with a free value for every 4x4 pixels and channel, starts as the masking and is optimised for
the same objective on one image alone.

Each of the two gives a table, whose last column counts the images on which a row's noise is less
visible, by Butteraugli's 3-norm, than that of "all of it".
"""

import argparse
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from tqdm import tqdm

import hvsjnd_jax
from hvsjnd_jax.cli.command import run_command
from hvsjnd_jax.data.crops import Crops, crop_stream
from hvsjnd_jax.data.sources import PhotoFolder, PhotoSource
from hvsjnd_jax.evaluation import comparison, tables
from hvsjnd_jax.evaluation.estimators import Estimator, load_estimator
from hvsjnd_jax.evaluation.scores import ImageScores
from hvsjnd_jax.model import windows
from hvsjnd_jax.model.generator import JNDGenerator
from hvsjnd_jax.model.jnd_map import draw_jnd
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.noise import draw_signs
from hvsjnd_jax.noise_scale import scale_to_psnr
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.runtime.compilation_cache import keep_compilations
from hvsjnd_jax.runtime.sharding import local_copy, make_mesh, replicate, shard_batch
from hvsjnd_jax.training.config import JNDConfig, TrainConfig
from hvsjnd_jax.training.objectives import jnd_objective
from hvsjnd_jax.training.train_state import build_model, init_state, split_model
from hvsjnd_jax.training.train_step import make_step
from tests.benchmarks.tables import align

_EVERY = 10  # one in so many photographs is held out
_VIEW_PX = 512
_FREE_PX = 256
_BASE = "all of it"
_MASKING = "masking alone"
_HEURISTIC = "contrast heuristic"
_FREE = "free map"
_OBJECTIVE_NOISES = 8


class Variant(NamedTuple):
  """How the training of a generator differs from the default run."""

  settings: Mapping[str, Any] = {}
  seed: int = 0
  attention_prior: bool = True
  gradient_prior: bool = True


_RMS = {"magnitude_form": "rms", "visibility_power": 6.0, "visibility_weight": 1.28}

VARIANTS = {
  _BASE: Variant(),
  "all of it, seed 1": Variant(seed=1),
  "no quality term": Variant({"quality_weight": 0.0}),
  "quality x10": Variant({"quality_weight": 30.0}),
  "quality x10, of pixels": Variant({"quality_weight": 30.0, "quality_domain": "pixels"}),
  "no attention loss": Variant({"attention_weight": 0.0}),
  "no attention prior": Variant(attention_prior=False),
  "no gradient prior": Variant(gradient_prior=False),
  "neither prior": Variant(attention_prior=False, gradient_prior=False),
  "no masking": Variant({"resolution": "native"}),
  # Another objective, in which noise of equal PSNR counts equally, and peaks count more.
  "RMS, no quality": Variant(_RMS | {"quality_weight": 0.0, "attention_weight": 0.0}),
  "RMS": Variant(_RMS | {"quality_weight": 30.0}),
  "RMS, of pixels": Variant(_RMS | {"quality_weight": 30.0, "quality_domain": "pixels"}),
  "RMS, neither prior": Variant(
    _RMS | {"quality_weight": 30.0}, attention_prior=False, gradient_prior=False
  ),
}


class PartlyBlind(JNDGenerator):
  """A generator that sees ones in place of some priors."""

  def __init__(self, *, attention: bool, gradient: bool, rngs: nnx.Rngs):
    super().__init__(rngs=rngs)
    self._attention, self._gradient = attention, gradient

  def __call__(self, images: Array, attention: Array, gradient: Array, **options: Any) -> Array:
    """Estimates the map with ones in place of the priors that are left out."""
    attention = attention if self._attention else jnp.ones_like(attention)
    gradient = gradient if self._gradient else jnp.ones_like(gradient)
    return super().__call__(images, attention, gradient, **options)


class FreeMap(nnx.Module):
  """The quarter-size map of one image as parameters, and no network."""

  def __init__(self, side_px: int, *, typical: float):
    shape = (1, side_px // 4, side_px // 4, 3)
    self.log_map = nnx.Param(jnp.full(shape, np.log(typical), jnp.float32))

  def __call__(self, images: Array, *priors: Array, **options: Any) -> Array:
    """The map, whatever image and priors are."""
    return jnp.exp(self.log_map[...])


class _HeldIn(PhotoFolder):
  """The photographs that are not held out."""

  def __init__(self, folder: Path):
    super().__init__(folder)
    self.paths = [path for i, path in enumerate(self.paths) if i % _EVERY]


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  args = _parse(argv)
  return run_command("ablations", lambda: _run(args))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  description, _, notes = (__doc__ or "").partition("\n\n")
  parser = argparse.ArgumentParser(
    prog="python -m tests.benchmarks.ablations",
    description=description,
    epilog=notes,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--data", type=Path, required=True, metavar="DIR", help="holds the folder train"
  )
  parser.add_argument("--psnr", type=float, default=32.57, metavar="DB", help="(default: 32.57)")
  parser.add_argument(
    "--steps",
    type=int,
    default=200,
    metavar="N",
    help="steps of each generator's training (default: 200)",
  )
  parser.add_argument(
    "--free-maps",
    type=int,
    default=6,
    metavar="N",
    help="how many images the second table has (default: 6)",
  )
  parser.add_argument(
    "--only", nargs="+", choices=VARIANTS, metavar="NAME", help=f"of: {', '.join(VARIANTS)}"
  )
  return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> int:
  keep_compilations()
  photos = PhotoFolder(args.data / "train")
  views = [_cut_middle(photos[i], _VIEW_PX) for i in range(0, len(photos), _EVERY)]
  held_in = _HeldIn(args.data / "train")
  names = args.only or list(VARIANTS)
  models = {
    name: load_estimator(model, windows.check_window((_VIEW_PX, _VIEW_PX)))
    for name, model in ((_MASKING, "masking"), (_HEURISTIC, "contrast_heuristic"))
  }
  base = None
  for name in tqdm(names, unit="generator", disable=None):
    model = train_generator(VARIANTS[name], held_in, num_steps=args.steps)
    models[name] = _draw_with(model)
    base = model if name == _BASE else base
  print(f"{len(views)} photographs, {args.psnr:g} dB in each of R, G and B")
  print(_tabulate(models, views, args.psnr), flush=True)
  if base is None or not args.free_maps:
    return 0
  views = [_cut_middle(view, _FREE_PX) for view in views[: args.free_maps]]
  free = [_free_map(base, view, num_steps=args.steps) for view in tqdm(views, disable=None)]
  maps = iter([_draw_free(*pair) for pair in zip(free, views, strict=True)])
  models = {name: models[name] for name in (_MASKING, _HEURISTIC, _BASE)}
  models[_FREE] = lambda pixels: next(maps)
  print(f"\nThe middles of {len(views)} of them, {_FREE_PX}x{_FREE_PX}")
  print(_tabulate(models, views, args.psnr))
  unchanged = [_free_map(base, view, num_steps=0) for view in views]
  descended = {_MASKING: unchanged, _BASE: [base] * len(views), _FREE: free}
  for name, each in descended.items():
    total = np.mean([_measure_objective(*pair) for pair in zip(each, views, strict=True)])
    print(f"{name}: objective {total:.4f}")
  return 0


def _cut_middle(pixels: Pixels, side_px: int) -> Pixels:
  top, left = ((side - side_px) // 2 for side in pixels.shape[:2])
  return np.ascontiguousarray(pixels[max(top, 0) :][:side_px, max(left, 0) :][:, :side_px])


def _draw_with(model: JNDModel) -> Estimator:
  estimate = jax.jit(hvsjnd_jax.estimate)
  return lambda pixels: np.asarray(estimate(model, _to_image(pixels)))[0]


def _to_image(pixels: Pixels) -> Float[np.ndarray, "1 h w 3"]:
  return pixels[None].astype(np.float32) / 255


def train_generator(variant: Variant, photos: PhotoSource, *, num_steps: int) -> JNDModel:
  """Trains a generator as the variant says, with the default weights' HVS-SD."""
  config = _configure(num_steps, variant.settings)
  config.seed = variant.seed
  model = build_model(config)
  model.hvs_sd = hvsjnd_jax.load().hvs_sd
  model.generator = PartlyBlind(
    attention=variant.attention_prior,
    gradient=variant.gradient_prior,
    rngs=nnx.Rngs(variant.seed),
  )
  stream = crop_stream(
    photos,
    config.data,
    crop_px=config.jnd.crop_px,
    batch_size=config.jnd.batch_size,
    seed=variant.seed,
  )
  return _descend(model, config, stream)


def _free_map(base: JNDModel, pixels: Pixels, *, num_steps: int) -> JNDModel:
  """Optimises a free map of this image with the base's HVS-SD; without steps, it is the masking."""
  config = _configure(max(num_steps, 1), {"batch_size": 1, "learning_rate": 0.02})
  model = build_model(config)
  model.hvs_sd = base.hvs_sd
  typical = config.jnd.magnitude_target / config.jnd.lmbda
  model.generator = FreeMap(len(pixels), typical=typical)  # pyright: ignore[reportAttributeAccessIssue]
  if not num_steps:
    return model

  def repeat() -> Iterator[Crops]:
    for seed in range(num_steps):
      yield Crops(pixels[None], np.asarray([seed], np.uint32), np.zeros(1, np.int32))

  return _descend(model, config, repeat())


def _draw_free(model: JNDModel, pixels: Pixels) -> Float[np.ndarray, "h w 3"]:
  generator: Any = model.generator
  image = jnp.asarray(_to_image(pixels))
  return np.asarray(draw_jnd(generator, image, image, image, resolution="fine"))[0]


def _measure_objective(model: JNDModel, pixels: Pixels) -> float:
  """Measures the objective on one image, as the mean over noise that no map was optimised on."""
  keys = jax.random.split(jax.random.key(0), _OBJECTIVE_NOISES)
  totals = [_objective(model, _to_image(pixels), key[None])[0] for key in keys]
  return float(np.mean(totals))


_objective = jax.jit(functools.partial(jnd_objective, config=JNDConfig()))


def _configure(num_steps: int, settings: Mapping[str, Any]) -> TrainConfig:
  # The run is shorter than the default one, so warm-up and averaging are too.
  shorter = {"warmup_steps": min(JNDConfig().warmup_steps, num_steps // 4), "ema_decay": 0.99}
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


def _tabulate(models: Mapping[str, Estimator], views: Sequence[Pixels], psnr_db: float) -> str:
  scores: dict[str, list[ImageScores]] = {}
  for name, draw in tqdm(models.items(), unit="model", disable=None):
    scores[name] = _score(draw, views, psnr_db)
  by_view = zip(*scores.values(), strict=True)
  means = comparison.average([dict(zip(scores, row, strict=True)) for row in by_view])
  columns = tables.list_columns(means, kind="score")
  rows = [["", *(" ".join(column.title[:-1]) for column in columns), "less visible"]]
  for name, figures in means.items():
    cells = [column.form.format(figures[column.score]) for column in columns]
    wins = "" if name == _BASE or _BASE not in scores else _count_wins(scores[name], scores[_BASE])
    rows.append([name, *cells, wins])
  return align(rows)


def _score(draw: Estimator, views: Sequence[Pixels], psnr_db: float) -> list[ImageScores]:
  def score(pixels: Pixels) -> ImageScores:
    signs = draw_signs(pixels, seed=0)
    noisy = scale_to_psnr(pixels, draw(pixels), signs, psnr_db=psnr_db, by_channel=True).pixels
    return comparison.score(noisy, pixels)

  return [score(pixels) for pixels in views]


def _count_wins(ours: Sequence[ImageScores], theirs: Sequence[ImageScores]) -> str:
  images = [{"ours": a, "theirs": b} for a, b in zip(ours, theirs, strict=True)]
  share = comparison.count_wins(images, "ours")["theirs"]["butteraugli_3norm"]
  return "" if share is None else f"{round(share * len(ours))} of {len(ours)}"


if __name__ == "__main__":
  sys.exit(main())

"""Estimate the JND of photographs, inject noise scaled by it, and report the PSNR.

  python -m hvsjnd_jax.eval --lmbda 10
  python -m hvsjnd_jax.eval --path photos --lmbda 10 --save out --json out.json

The exit status is 0 when every image was evaluated, 1 when some could not be read, and
2 when there was nothing to evaluate.
"""

import argparse
import json
import math
import os
import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from hvsjnd_jax import pictures, weights
from hvsjnd_jax.estimator import JNDModel, analyze, inject, random_signs
from hvsjnd_jax.generator import Resolution
from hvsjnd_jax.images import ImageError, Pixels, find_images, read_image, to_uint8, write_png
from hvsjnd_jax.metrics import psnr
from hvsjnd_jax.priors import AttentionLayer

# CC0 and public-domain photographs that come with scikit-image.
_SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit status."""
  args = _parse(argv)
  try:
    return _run(args)
  except (weights.WeightsError, _UsageError) as error:
    print(f"eval: {error}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("eval: interrupted", file=sys.stderr)
    return 130


class _UsageError(Exception):
  """Something that the user asked for cannot be done."""


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m hvsjnd_jax.eval",
    description="Estimate the JND of photographs, inject noise scaled by it, report the PSNR.",
  )
  parser.add_argument(
    "--path",
    type=Path,
    nargs="+",
    action="extend",
    metavar="FILE|DIR",
    help="images, and folders to walk; without it, four photographs from scikit-image",
  )
  parser.add_argument(
    "--lmbda",
    type=_lmbda,
    default=1.0,
    metavar="L",
    help="noise scale: y = clip(x + L * sign * JND, 0, 1); 10 is the paper's (default: 1)",
  )
  parser.add_argument(
    "--weights", type=Path, metavar="DIR", help="a folder of weights (default: the shipped ones)"
  )
  parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the signs (default: 0)")
  parser.add_argument(
    "--resolution", choices=get_args(Resolution), help="default: the weights' own"
  )
  parser.add_argument(
    "--attention", choices=get_args(AttentionLayer), help="default: the weights' own"
  )
  parser.add_argument(
    "--save",
    type=Path,
    metavar="DIR",
    help="write the distorted image, JND map, attention map and a sheet of each image",
  )
  parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
  return parser.parse_args(argv)


def _lmbda(text: str) -> float:
  value = float(text)
  if not (math.isfinite(value) and value >= 0):
    raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text}")
  return value


def _run(args: argparse.Namespace) -> int:
  files = _find(args.path)
  model = weights.load(args.weights)
  folder = None if args.save is None else _make_folder(args.save)
  names = _output_names(files)
  records: list[dict[str, Any]] = []
  errors: list[dict[str, str]] = []
  for file in tqdm(files, unit="image", disable=None):  # None: no bar in a pipe
    try:
      pixels = read_image(file)
    except ImageError as error:
      errors.append({"path": str(file), "error": str(error)})
      tqdm.write(f"eval: {file}: {error}", file=sys.stderr)
      continue
    evaluated = _evaluate(model, pixels, args)
    tqdm.write(_describe(file, evaluated.psnr))
    records.append({"path": str(file), **evaluated.psnr})
    if folder is not None:
      _save_pictures(folder / names[file], pixels, evaluated, lmbda=args.lmbda)

  mean = _mean([{k: v for k, v in record.items() if k != "path"} for record in records])
  if records:
    print(f"Mean over {len(records)} images:")
    print(_describe_psnr(mean))
  if errors:
    print(f"eval: {len(errors)} of {len(files)} files could not be used", file=sys.stderr)
  if args.json is not None:
    report = {
      "lmbda": args.lmbda,
      "seed": args.seed,
      "weights": _describe_weights(args, model),
      "images": records,
      "mean": mean,
      "errors": errors,
    }
    _write_text(args.json, json.dumps(report, indent=2) + "\n")
  return 1 if errors else 0


def _find(paths: list[Path] | None) -> list[Path]:
  if paths is None:
    folder = Path(str(resources.files("skimage") / "data"))
    paths = [folder / name for name in _SAMPLES]
  try:
    files, skipped = find_images(paths)
  except FileNotFoundError as error:
    raise _UsageError(str(error)) from None
  if skipped:
    print(f"Skipped {skipped} files without an image's extension.")
  if not files:
    where = ", ".join(map(str, paths))
    raise _UsageError(f"no image under {where}: looked for files such as .png, .jpg, .webp, .tif")
  return files


def _output_names(files: list[Path]) -> dict[Path, Path]:
  """Where each image's pictures go, relative to --save: the inputs' own tree and names.

  Names depend on the set of files, not on their order.
  """
  root = Path(os.path.commonpath([file.absolute().parent for file in files]))
  relative = {file: file.absolute().relative_to(root) for file in files}
  stems = Counter(path.with_suffix("") for path in relative.values())
  return {
    file: path if stems[path.with_suffix("")] > 1 else path.with_suffix("")
    for file, path in relative.items()
  }


class _Evaluated(NamedTuple):
  """What the method says of one image, on the host."""

  distorted: np.ndarray
  jnd: np.ndarray
  attention: np.ndarray
  psnr: dict[str, float]


def _evaluate(model: JNDModel, pixels: Pixels, args: argparse.Namespace) -> _Evaluated:
  image = jnp.asarray(pixels[None], jnp.float32) / 255
  # The signs follow from seed and content: not from the file's name or its place.
  key = jax.random.fold_in(jax.random.key(args.seed), zlib.crc32(pixels.tobytes()))
  analysis = analyze(model, image, resolution=args.resolution, attention=args.attention)
  signs = random_signs(key, pixels.shape[:2])
  distorted = inject(image, analysis.jnd, signs, lmbda=args.lmbda)
  figures = {
    f"psnr_{name}": float(psnr(distorted[..., i : i + 1], image[..., i : i + 1])[0])
    for i, name in enumerate("rgb")
  }
  figures["psnr"] = float(psnr(distorted, image)[0])
  return _Evaluated(
    np.asarray(distorted[0]),
    np.asarray(analysis.jnd[0]),
    np.asarray(analysis.priors.attention[0, ..., 0]),
    figures,
  )


def _describe(file: Path, figures: dict[str, float]) -> str:
  return f"Images Path is: {file}\n{_describe_psnr(figures)}"


def _describe_psnr(figures: dict[str, float]) -> str:
  lines = [f"Result-{name.upper()} PSNR: {figures[f'psnr_{name}']:.4f}" for name in "rgb"]
  return "\n".join([*lines, f"Total PSNR: {figures['psnr']:.4f}"])


def _mean(figures: list[dict[str, float]]) -> dict[str, float]:
  if not figures:
    return {}
  return {name: float(np.mean([row[name] for row in figures])) for name in figures[0]}


def _describe_weights(args: argparse.Namespace, model: JNDModel) -> dict[str, str]:
  manifest = weights.read_manifest(args.weights)
  return {
    "name": "default" if args.weights is None else str(args.weights),
    "sha256": manifest["sha256"],
    "resolution": args.resolution or model.resolution,
    "attention": args.attention or model.attention,
  }


def _save_pictures(stem: Path, pixels: Pixels, evaluated: _Evaluated, *, lmbda: float) -> None:
  distorted = to_uint8(evaluated.distorted)
  jnd, white = pictures.visible_jnd(evaluated.jnd)
  attention = pictures.jet(evaluated.attention)
  panels = [
    ("image", pixels),
    ("attention: where HVS-SD looks", attention),
    (f"JND map, brightened: white is {255 * white:.2f} gray levels", jnd),
    (f"distorted, lmbda {lmbda:g}: {evaluated.psnr['psnr']:.2f} dB", distorted),
  ]
  try:
    stem.parent.mkdir(parents=True, exist_ok=True)
    for suffix, picture in (
      ("distorted", distorted),
      ("jnd", jnd),
      ("attention", attention),
      ("sheet", pictures.sheet(panels)),
    ):
      write_png(stem.with_name(f"{stem.name}_{suffix}.png"), picture)
    np.save(stem.with_name(f"{stem.name}_jnd.npy"), evaluated.jnd)
  except OSError as error:
    raise _UsageError(f"{stem.parent}: cannot be written: {error.strerror}") from None


def _make_folder(folder: Path) -> Path:
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise _UsageError(f"{folder}: cannot be made: {error.strerror}") from None
  return folder


def _write_text(file: Path, text: str) -> None:
  """The whole file or none of it."""
  partial = file.with_name(file.name + ".partial")
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(text)
    partial.replace(file)
  except OSError as error:
    raise _UsageError(f"{file}: cannot be written: {error.strerror}") from None


if __name__ == "__main__":
  sys.exit(main())

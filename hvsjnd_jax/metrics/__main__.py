"""Score distorted images against their references, and map where a difference is seen.

  python -m hvsjnd_jax.metrics --distorted a.jpg --reference a.png
  python -m hvsjnd_jax.metrics --distorted coded --reference photos --json scores.json
  python -m hvsjnd_jax.metrics --distorted coded --reference photos --metrics cvvdp --maps maps

Give two files, or two folders. In folders, which are searched with their subfolders, images are
paired whose paths agree but for the extension; images without a partner are named and left out.
The table has a row for each pair and the means last; PSNR is that of all channels, and --json has
those of each, too.

butteraugli_3norm and butteraugli_max are those of libjxl 0.7; the scores of 0.8 and later differ by
up to 5 %. cvvdp is ColorVideoVDP on a 30-inch 4k display seen from 75 cm, cvvdp_fhd on a 24-inch
full-HD one from 60 cm.

--maps writes two files for each pair and each of these models among --metrics, NAME_MODEL.npy
with the map's values in float32, [H, W], and a picture of it, NAME_MODEL_0-MAX.png, from dark blue
at 0 to dark red at MAX and above:

  butteraugli   0-4   the model's distance; 1 is about just noticeable
  cvvdp         0-2   JOD lost at this place
  cvvdp_fhd     0-2   the same

A difference is measured between pictures in sRGB, of 16 bits if either has them, to which images
with another colour profile are converted. Metrics compile for each size of image anew, which takes
longer than to compute them; compiled code is kept in ~/.cache/hvsjnd_jax.

Exit status: 0 when every pair was scored; 1 when an image had no partner or could not be used, or
was too small for a metric, whose mean leaves it out; 2 when the command could not start or write
its results; 130 when interrupted; 141 when the reader of the output left; 143 after SIGTERM.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hvsjnd_jax.cli.command import UsageError, make_parser, report_error, run_command
from hvsjnd_jax.cli.image_loop import Memory, computing
from hvsjnd_jax.cli.image_pairs import Pairs, find_pairs
from hvsjnd_jax.cli.options import (
  add_json,
  add_max_megapixels,
  add_vgg16,
  apply_max_megapixels,
  parse_metrics,
  parse_path,
)
from hvsjnd_jax.cli.outputs import check_output, make_folder, write_json, writing
from hvsjnd_jax.cli.photographs import Photographs
from hvsjnd_jax.data import paths
from hvsjnd_jax.data.images import Picture, write_npy, write_png
from hvsjnd_jax.evaluation import scores
from hvsjnd_jax.evaluation.scores import Backbones, ImageScores
from hvsjnd_jax.evaluation.tables import Column, name_too_small, tabulate
from hvsjnd_jax.evaluation.vision_maps import (
  MAP_BYTES_PER_PIXEL,
  VISION_MODELS,
  Map,
  VisionModel,
  compute_map,
  draw_map,
  find_models,
)
from hvsjnd_jax.metrics import METRICS
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.ops.samples import to_unit
from hvsjnd_jax.runtime.compilation_cache import keep_compilations
from hvsjnd_jax.runtime.jobs import as_job

_DEFAULT = "psnr,ssim,ssimulacra2,butteraugli_3norm,cvvdp"

# The host's memory for each of the image's pixels: of this pair, the next one and the maps.
_PAIR_BYTES_PER_PIXEL = 75


_Maps = list[tuple[VisionModel, Map]]


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  args = _parse(argv)
  return run_command("metrics", lambda: _run(args), json=args.json)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("metrics", __doc__)
  for side, what in (("distorted", "the image to score"), ("reference", "what it should be")):
    parser.add_argument(
      f"--{side}",
      type=parse_path,
      required=True,
      metavar="FILE|DIR",
      help=f"{what}, or a folder of such images",
    )
  parser.add_argument(
    "--metrics",
    default=_DEFAULT,
    metavar="M,M",
    help=f"what to report: {', '.join(METRICS)} (default: {_DEFAULT})",
  )
  add_json(parser)
  parser.add_argument(
    "--maps",
    type=parse_path,
    metavar="DIR",
    help="write maps of the visible difference to this folder",
  )
  add_vgg16(parser)
  add_max_megapixels(parser)
  return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> int:
  keep_compilations(partial(report_error, "metrics"))
  apply_max_megapixels(args)
  metrics = parse_metrics(args.metrics)
  mapped = _find_mapped(args, metrics)
  pairs = find_pairs(args.distorted, args.reference, leave_out=args.maps)
  backbones = scores.load_backbones(metrics, vgg16=args.vgg16)
  check_output("--json", args.json, inputs=[*pairs.references, *pairs.references.values()])
  for file, reason in pairs.unmatched.items():
    report_error("metrics", str(file), reason)
  errors = [{"path": str(file), "error": reason} for file, reason in pairs.unmatched.items()]
  images: list[dict[str, Any]] = []
  for record in _score_all(args, pairs, metrics, mapped, backbones):
    (errors if "error" in record else images).append(record)
  return _report(args, metrics, images, errors, pairs.skipped)


def _find_mapped(args: argparse.Namespace, metrics: Sequence[str]) -> list[VisionModel]:
  """Lists the models whose maps are wanted, and makes the maps' folder."""
  if args.maps is None:
    return []
  mapped = find_models(metrics)
  if not mapped:
    known = ", ".join(VISION_MODELS)
    raise UsageError(f"--maps: none of the --metrics has a map; these have: {known}")
  make_folder(args.maps)
  return mapped


def _score_all(
  args: argparse.Namespace,
  pairs: Pairs,
  metrics: tuple[str, ...],
  mapped: Sequence[VisionModel],
  backbones: Backbones,
) -> Iterator[dict[str, Any]]:
  """Scores each pair and writes its maps; yields a record of each."""

  @as_job
  def compute(pair: Picture) -> tuple[ImageScores, _Maps]:
    distorted, reference = map(to_unit, pair.finest)
    measured = scores.measure(distorted, reference, metrics, backbones=backbones)
    fitting = [model for model in mapped if model.smallest_px <= min(reference.shape[:2])]
    maps = [(model, compute_map(model, distorted, reference)) for model in fitting]
    return scores.select(measured, metrics), maps

  photographs = Photographs(list(pairs.references), pairs.read)
  whole = max(scores.bytes_per_pixel(metrics), MAP_BYTES_PER_PIXEL if mapped else 0)
  memory = Memory(_PAIR_BYTES_PER_PIXEL, whole)
  with computing("metrics", photographs, compute, memory=memory, smallest_px=1) as outcomes:
    for path, outcome in outcomes:
      if isinstance(outcome, HVSJNDError):
        yield {"path": str(path), "error": str(outcome)}
        continue
      picture, (measured, maps) = outcome
      if maps:
        _write_maps(args.maps / pairs.names[path], maps)
      _, height, width, _ = picture.pixels.shape
      yield {
        "name": str(pairs.names[path]),
        "distorted": str(path),
        "reference": str(pairs.references[path]),
        "height": height,
        "width": width,
        **measured,
      }


def _write_maps(stem: Path, maps: _Maps) -> None:
  with writing(stem):
    paths.make_folder(stem.parent)
    for model, values in maps:
      named = stem.with_name(f"{stem.name}_{model.name}")
      write_npy(named.with_name(f"{named.name}.npy"), values)
      picture = named.with_name(f"{named.name}_0-{model.full_scale}.png")
      write_png(picture, draw_map(model, values))


def _report(
  args: argparse.Namespace,
  metrics: Sequence[str],
  images: Sequence[dict[str, Any]],
  errors: Sequence[dict[str, str]],
  skipped: Sequence[Path],
) -> int:
  """Prints the table, writes --json, and returns the exit status."""
  measured = [scores.select(image, metrics) for image in images]
  mean = scores.average(measured)
  too_small = name_too_small(measured)
  if images:
    rows = {image["name"]: scored for image, scored in zip(images, measured, strict=True)}
    mean_row = {f"mean over {len(images)}": mean} if len(images) > 1 else {}
    print(tabulate(rows | mean_row, list(map(_make_column, metrics)), head="image"))
  for line in too_small:
    print(line)
  if errors:
    files = f"file{'s' * (len(errors) > 1)}"
    print(f"metrics: {len(errors)} {files} could not be used", file=sys.stderr)
  if args.json is not None:
    report = {
      "distorted": str(args.distorted),
      "reference": str(args.reference),
      "metrics": metrics,
      "images": images,
      "mean": mean,
      "errors": errors,
      "skipped": list(map(str, skipped)),
    }
    write_json(args.json, report)
  return int(bool(errors or too_small))


def _make_column(name: str) -> Column:
  metric = METRICS[name]
  better = ", ".join(filter(None, (metric.unit, metric.better)))
  return Column(name, (name, better), "{:.2f}" if metric.unit == "dB" else "{:.4f}")


if __name__ == "__main__":
  sys.exit(main())

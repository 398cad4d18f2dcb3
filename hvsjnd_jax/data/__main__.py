"""Turn a folder of photographs into a TensorFlow dataset, or into tiles (both array_record).

  python -m hvsjnd_jax.data build --images PHOTOS --out DIR
  python -m hvsjnd_jax.data build --images PHOTOS --out TILES --tiles

The dataset trains as --config.data.tfds=DIR. Neither writing nor reading it needs TensorFlow.

Tiles train as --config.data.images=TILES. They are pieces of the photographs at random scales and
places, decoded and resized, and somewhat larger than the crops that training cuts from them, which
takes a twentieth of the time. A tile has 3 x (1.25 x crop_px)^2 bytes.

The exit status is 0 when all photographs were written, 1 when some could not be read, 2 when
nothing was written, 130 when the command was interrupted, and 143 after SIGTERM.
"""

import argparse
import math
import sys
from collections.abc import Sequence

from hvsjnd_jax.cli.command import advise_packages, make_parser, report_error, run_command
from hvsjnd_jax.cli.options import add_max_megapixels, apply_max_megapixels, parse_path
from hvsjnd_jax.cli.photographs import tell_skipped
from hvsjnd_jax.data.config import DataConfig
from hvsjnd_jax.data.photo_source import DataError
from hvsjnd_jax.data.sources import PhotoFolder
from hvsjnd_jax.data.tfds_writer import build_dataset
from hvsjnd_jax.data.tile_writer import TileShape, build_tiles


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  args = _parse(argv)
  return run_command("data", lambda: _build(args))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("data", __doc__)
  parser.add_argument("action", choices=("build",))
  parser.add_argument(
    "--images", type=parse_path, required=True, metavar="DIR", help="folder of photographs; walked"
  )
  parser.add_argument(
    "--out",
    type=parse_path,
    required=True,
    metavar="DIR",
    help="folder to write, on a disk or in an object store (gs://); must not exist",
  )
  parser.add_argument(
    "--tiles",
    type=_parse_count,
    nargs="?",
    const=8,
    metavar="N",
    help="write tiles, N of each photograph (default: 8)",
  )
  parser.add_argument(
    "--crop-px",
    type=_parse_count,
    metavar="PX",
    help="with --tiles: side of the largest crop that training will cut (default: 320)",
  )
  defaults = DataConfig()
  for name in ("min_scale", "max_scale"):
    parser.add_argument(
      f"--{name.replace('_', '-')}",
      type=float,
      metavar="S",
      help=f"with --tiles: as config.data.{name} (default: {getattr(defaults, name)})",
    )
  add_max_megapixels(parser)
  args = parser.parse_args(argv)
  _settle_tiles(parser, args, defaults)
  return args


def _parse_count(text: str) -> int:
  if not (text.isdecimal() and 1 <= int(text) <= 2**14):
    raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {2**14}, got {text}")
  return int(text)


def _settle_tiles(
  parser: argparse.ArgumentParser, args: argparse.Namespace, defaults: DataConfig
) -> None:
  """Fills in how tiles are cut, or ends the command where that is of no use or impossible."""
  for name, default in (
    ("crop_px", 320),
    ("min_scale", defaults.min_scale),
    ("max_scale", defaults.max_scale),
  ):
    if getattr(args, name) is None:
      setattr(args, name, default)
    elif args.tiles is None:
      parser.error(f"--{name.replace('_', '-')} is of use with --tiles alone")
  if not 0 < args.min_scale <= args.max_scale < math.inf:
    parser.error(
      f"expected 0 < --min-scale <= --max-scale, got {args.min_scale:g} and {args.max_scale:g}"
    )


def _build(args: argparse.Namespace) -> int:
  apply_max_megapixels(args)
  images, out = args.images, args.out
  if out.exists():
    raise DataError(f"{out}: exists already; choose another")
  folder = PhotoFolder(images)
  tell_skipped(folder.skipped)
  paths = folder.paths
  if args.tiles is None:
    errors, remarks = build_dataset(paths, root=images, out=out)
  else:
    shape = TileShape(args.tiles, args.crop_px, args.min_scale, args.max_scale)
    errors, remarks = build_tiles(paths, shape, root=images, out=out)
  for path, reason in [*errors, *remarks]:
    report_error("data", path, reason)
  advise_packages("data", {error.package for _, error in errors})
  if len(errors) == len(paths):
    raise DataError(f"no image under {images} can be read")
  tiles = "" if args.tiles is None else f" as {args.tiles} tiles each"
  print(f"{out}: {len(paths) - len(errors)} photographs written{tiles}")
  return 1 if errors else 0


if __name__ == "__main__":
  sys.exit(main())

"""Turn a folder of photographs into a TensorFlow dataset (array_record).

  python -m hvsjnd_jax.data build --images PHOTOS --out DIR

The dataset trains as --config.data.tfds=DIR. Neither writing nor reading it needs TensorFlow.

The exit status is 0 when all photographs were written, 1 when some could not be read, 2 when no
dataset was written, 130 when the command was interrupted, and 143 after SIGTERM.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hvsjnd_jax.cli.command import advise_packages, make_parser, report_error, run_command
from hvsjnd_jax.cli.options import add_max_megapixels, apply_max_megapixels
from hvsjnd_jax.cli.photographs import tell_skipped
from hvsjnd_jax.data.sources import DataError, PhotoFolder
from hvsjnd_jax.data.tfds_writer import build_dataset


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  args = _parse(argv)
  return run_command("data", lambda: _build(args))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("data", __doc__)
  parser.add_argument("action", choices=("build",))
  parser.add_argument(
    "--images", type=Path, required=True, metavar="DIR", help="folder of photographs; walked"
  )
  parser.add_argument(
    "--out", type=Path, required=True, metavar="DIR", help="folder to write; must not exist"
  )
  add_max_megapixels(parser)
  return parser.parse_args(argv)


def _build(args: argparse.Namespace) -> int:
  apply_max_megapixels(args)
  images, out = args.images, args.out
  if out.exists():
    raise DataError(f"{out}: exists already; choose another")
  folder = PhotoFolder(images)
  tell_skipped(folder.skipped)
  paths = folder.paths
  errors, remarks = build_dataset(paths, root=images, out=out)
  for path, reason in [*errors, *remarks]:
    report_error("data", path, reason)
  advise_packages("data", (error for _, error in errors))
  if len(errors) == len(paths):
    raise DataError(f"no image under {images} can be read")
  print(f"{out}: {len(paths) - len(errors)} photographs written")
  return 1 if errors else 0


if __name__ == "__main__":
  sys.exit(main())

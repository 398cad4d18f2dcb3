"""Training data: photographs, cut into an endless stream of random crops.

Photographs come from a folder of images, or from a dataset of TensorFlow Datasets, read
through array_record: TensorFlow itself is not needed. Crops are uint8 [crop, crop, 3], RGB:
a quarter of the bytes of float32.

  python -m hvsjnd_jax.data build --images PHOTOS --out DIR

turns a folder into such a dataset, which trains as --config.data.tfds=DIR.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hvsjnd_jax.data.sources import DataError, PhotoFolder
from hvsjnd_jax.data.tfds_writer import build_dataset


def main(argv: Sequence[str] | None = None) -> int:
  """The command: 0 when all files were taken, 1 when some, 2 when none, 130 when interrupted."""
  parser = argparse.ArgumentParser(
    prog="python -m hvsjnd_jax.data",
    description="Turn a folder of photographs into a TensorFlow dataset (array_record).",
  )
  parser.add_argument("action", choices=("build",))
  parser.add_argument(
    "--images", type=Path, required=True, metavar="DIR", help="the photographs; walked"
  )
  parser.add_argument(
    "--out", type=Path, required=True, metavar="DIR", help="what --config.data.tfds takes"
  )
  args = parser.parse_args(argv)
  try:
    if args.out.exists():
      raise DataError(f"{args.out}: exists already; choose another")
    paths = PhotoFolder(args.images).paths
    errors = build_dataset(paths, root=args.images, out=args.out)
    for path, reason in errors:
      print(f"data: {path}: {reason}", file=sys.stderr)
    if len(errors) == len(paths):
      raise DataError(f"no image under {args.images} can be read")
  except (DataError, OSError) as error:
    print(f"data: {error}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("data: interrupted", file=sys.stderr)
    return 130
  print(f"{args.out}: {len(paths) - len(errors)} photographs written")
  return 1 if errors else 0


if __name__ == "__main__":
  sys.exit(main())

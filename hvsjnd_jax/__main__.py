"""Lists the commands of this package."""

import sys
from collections.abc import Sequence

from hvsjnd_jax.cli.command import make_parser

COMMANDS = {
  "eval": "JND maps of photographs, noise scaled by them, and its PSNR",
  "compare": "how visible the noise of several JND models is at the same PSNR",
  "metrics": "image-quality scores of pairs of images, and maps of what differs visibly",
  "calibrate": "how strong and how visible the noise of each lmbda is",
  "study": "what people see: a flicker study as a page, and the analysis of the answers",
  "export": "the estimator in one file, which runs without this package",
  "train": "training of both networks, and their weights for eval",
  "data": "a dataset of photographs for training",
}

_INTRODUCTION = "Estimate the just-noticeable difference (JND) of images. The commands:"

_ADVICE = "Each describes itself: python -m hvsjnd_jax.eval --help. In Python: help(hvsjnd_jax)."


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the list; returns the exit status."""
  width = max(map(len, COMMANDS))
  lines = [f"  python -m hvsjnd_jax.{name:{width}}  {what}" for name, what in COMMANDS.items()]
  listed = "\n".join([_INTRODUCTION, "", *lines, "", _ADVICE])
  parser = make_parser("", listed, module="hvsjnd_jax")
  _, rest = parser.parse_known_args(argv)
  if rest:
    parser.error(f"{rest[0]}: expected no argument; run python -m hvsjnd_jax.NAME")
  print(listed)
  return 0


if __name__ == "__main__":
  sys.exit(main())

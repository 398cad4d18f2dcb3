"""Export the estimator to one file, which runs without this package on CPUs, GPUs and TPUs.

  python -m hvsjnd_jax.export --height 512 --width 768 --out jnd.bin

The file holds a program in StableHLO with its weights. It takes float32 images in [0, 1], RGB,
[B, H, W, 3], and returns their JND maps, of the same shape; H and W are fixed, B is any number
of images. To run it takes jax and flatbuffers, nothing else:

  import pathlib, jax.export
  estimate = jax.export.deserialize(pathlib.Path("jnd.bin").read_bytes()).call
  jnd = estimate(images)

JAX promises to run the file for six months of releases; with newer ones, export again. GPUs and
TPUs multiply in fewer bits than float32 has, unless JAX_DEFAULT_MATMUL_PRECISION=highest was set
when the file was written. The weights of a training run, for eval and load, are written by
python -m hvsjnd_jax.train export.

Exit status: 0 when the file is written; 2 when something is wrong; 130 when interrupted; 141
when the reader of the output left; 143 after SIGTERM.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.export import Exported, symbolic_shape
from jax.export import export as export_function
from jaxtyping import Array

from hvsjnd_jax.cli.command import UsageError, make_parser, report_error, run_command
from hvsjnd_jax.cli.options import add_model, load_model, parse_path
from hvsjnd_jax.cli.outputs import check_output, writing
from hvsjnd_jax.data.atomic import whole_file
from hvsjnd_jax.estimator import estimate
from hvsjnd_jax.model.jnd_map import Resolution
from hvsjnd_jax.model.jnd_model import MIN_SIDE_PX, JNDModel
from hvsjnd_jax.model.priors import AttentionLayer
from hvsjnd_jax.runtime.compilation_cache import keep_compilations

PLATFORMS = ("cpu", "cuda", "tpu")

_KNOWN_PLATFORMS = (*PLATFORMS, "rocm")

# The program counts the values of an image in 32 bits.
_LARGEST_SIDE_PX = 16384


def export_estimate(
  model: JNDModel,
  size: tuple[int, int],
  *,
  resolution: Resolution | None = None,
  attention_layer: AttentionLayer | None = None,
  platforms: Sequence[str] = PLATFORMS,
) -> Exported:
  """Exports `estimate` as a program of its own, for any number of images of one size.

  Args:
    model: What `hvsjnd_jax.load` returned; its weights become part of the program.
    size: Height and width of the images in pixels, from 8 to 16384.
    resolution: As `estimate`.
    attention_layer: As `estimate`.
    platforms: Those that it runs on, of "cpu", "cuda", "rocm" and "tpu". None of them need be
      at hand.

  Returns:
    The program: `call` runs it, `serialize` gives its bytes.

  Raises:
    ValueError: If a side, a platform or an option is not among those.

  Source: https://docs.jax.dev/en/latest/export/export.html.

  Examples:
    >>> program = export_estimate(hvsjnd_jax.load(), (16, 24), platforms=["cpu"])
    >>> program.in_avals
    (ShapedArray(float32[b,16,24,3]),)
  """

  _check(size, platforms)

  def run(images: Array) -> Array:
    return estimate(model, images, resolution=resolution, attention_layer=attention_layer)

  (batch,) = symbolic_shape("b")
  images = jax.ShapeDtypeStruct((batch, *size, 3), jnp.float32)
  return export_function(jax.jit(run), platforms=platforms)(images)


def _check(size: tuple[int, int], platforms: Sequence[str]) -> None:
  height, width = size
  if not MIN_SIDE_PX <= min(size) <= max(size) <= _LARGEST_SIDE_PX:
    raise ValueError(
      f"expected sides of {MIN_SIDE_PX} to {_LARGEST_SIDE_PX} pixels, got {height}x{width}"
    )
  if not platforms or not set(platforms) <= set(_KNOWN_PLATFORMS):
    raise ValueError(
      f"expected platforms of {', '.join(_KNOWN_PLATFORMS)}; got {', '.join(platforms) or 'none'}"
    )


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  args = _parse(argv)
  return run_command("export", lambda: _run(args))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = make_parser("export", __doc__)
  for side in ("height", "width"):
    parser.add_argument(
      f"--{side}",
      type=int,
      required=True,
      metavar="PX",
      help=f"{side} of the images; another one needs another file",
    )
  parser.add_argument(
    "--out", type=parse_path, metavar="FILE", help="file to write (default: jnd_HEIGHTxWIDTH.bin)"
  )
  parser.add_argument(
    "--platforms",
    default=",".join(PLATFORMS),
    metavar="P,P",
    help=f"where it runs: {', '.join(_KNOWN_PLATFORMS)} (default: {','.join(PLATFORMS)})",
  )
  add_model(parser)
  return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> int:
  keep_compilations(partial(report_error, "export"))
  size = args.height, args.width
  platforms = tuple(dict.fromkeys(name.strip() for name in args.platforms.split(",")))
  try:
    _check(size, platforms)
  except ValueError as error:
    raise UsageError(str(error)) from None
  out = args.out or Path(f"jnd_{args.height}x{args.width}.bin")
  check_output("--out", out)
  program = export_estimate(
    load_model(args),
    size,
    resolution=args.resolution,
    attention_layer=args.attention_layer,
    platforms=platforms,
  )
  data = program.serialize()
  with writing(out), whole_file(out) as unfinished:
    unfinished.write_bytes(data)
  print(
    f"{out}: {len(data) / 1e6:.1f} MB, the JND maps of {args.height}x{args.width} images, "
    f"for {', '.join(platforms)}. To run it, with jax and flatbuffers:\n\n"
    "import pathlib, jax.export\n"
    f"estimate = jax.export.deserialize(pathlib.Path({str(out)!r}).read_bytes()).call\n"
    f"jnd = estimate(images)  # both float32 [B, {args.height}, {args.width}, 3], RGB in [0, 1]"
  )
  return 0


if __name__ == "__main__":
  sys.exit(main())

"""Evaluate a folder of photographs with the twin, as the published script works.

  python -m tests.benchmarks.torch_folder DIR --weights FILE --lmbda 10

For every image, both networks are built and read from a file, HVS-SD runs a second time without
need, and four PSNRs are printed, as in the published script. (That script does more: it reads the
files twice for every image, and draws the signs in a Python loop.) The last line is the mean PSNR.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tests.benchmarks.torch_twin import Twin, estimate


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.torch_folder")
  parser.add_argument("folder", type=Path)
  parser.add_argument("--weights", type=Path, required=True, help="the twin's state dict")
  parser.add_argument("--lmbda", type=float, required=True)
  parser.add_argument("--device", default="cpu", help="PyTorch's name of it (default: cpu)")
  args = parser.parse_args(argv)
  totals = []
  for file in sorted(args.folder.rglob("*.png")):
    pixels = torch.from_numpy(np.array(Image.open(file).convert("RGB")))
    image = pixels.to(args.device).permute(2, 0, 1)[None].contiguous() / 255
    model = Twin().to(args.device)
    model.load_state_dict(torch.load(args.weights, map_location=args.device))
    jnd = estimate(model, image)
    model.hvs_sd(image)
    signs = torch.where(torch.rand(image.shape[2:], device=args.device) >= 0.5, 1.0, -1.0)
    distorted = (image + args.lmbda * signs * jnd).clamp(0, 1)
    red, green, blue = (_psnr(distorted[:, c], image[:, c]) for c in range(3))
    totals.append(_psnr(distorted, image))
    print(f"{file}: R {red} G {green} B {blue} total {totals[-1]}")
  print(statistics.fmean(totals))
  return 0


def _psnr(distorted: Tensor, image: Tensor) -> float:
  return -10 * (distorted - image).square().mean().log10().item()


if __name__ == "__main__":
  sys.exit(main())

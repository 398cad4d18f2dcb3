"""Options that cannot be: each is refused in one line."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvsjnd_jax.cli.options import parse_scales
from hvsjnd_jax.eval import main
from tests.support.evaluating import photos, report, run

__all__ = ["photos", "report", "run"]  # fixtures


WRONG = {
  "no such path": (("--path", "nowhere"), "no such file or folder: nowhere"),
  "one of two paths": (("--path", "photos", "nowhere"), "no such file or folder: nowhere"),
  "long path": (("--path", "n" * 300), "no such file or folder: nnn"),
  "no image": (("--path", "empty"), "no image under empty: looked for .*[.]jpg .*[.]png "),
  "no weights": (("--path", "photos", "--model", "empty"), "manifest.json: No such file"),
  "model without networks": (
    ("--path", "photos", "--model", "masking"),
    "--model masking: expected a model with networks: .*; compare and calibrate take masking",
  ),
  "save to a file": (("--path", "photos", "--save", "file"), "file: no folder, and cannot be"),
  "save below a file": (("--path", "photos", "--save", "file/x"), "file/x: no folder, and"),
  "json to a folder": (("--path", "photos", "--json", "empty"), "--json empty: a folder"),
  "json below a file": (("--path", "photos", "--json", "file/x"), "file: no folder, and"),
  "unknown metric": (
    ("--path", "photos", "--metrics", "ssim,x"),
    "--metrics: unknown metric 'x'; known: psnr, ssim, .*gmsd, fsim, dists",
  ),
  "no metric": (("--path", "photos", "--metrics", ""), "--metrics: unknown metric ''; known: psnr"),
  "metric without its network": (
    ("--path", "photos", "--metrics", "psnr,dists"),
    "--metrics dists: .*vgg16-397923af.pth .*https://download.pytorch.org.*"
    "in a clone of the repository: python -m convert.from_torch --vgg16 vgg16-397923af.pth "
    "--out DIR; then add --vgg16 DIR",
  ),
  "no such network": (
    ("--path", "photos", "--metrics", "dists", "--vgg16", "nowhere"),
    ".*nowhere: no such folder.*--vgg16 vgg16-397923af.pth",
  ),
  "json to a full disk": (("--path", "photos", "--json", "/dev/full"), "/dev/full: cannot be"),
}


@pytest.mark.parametrize(("arguments", "reason"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_done_is_said(
  photos: Path,
  run: Callable[..., int],
  weights_folder: Path,
  capsys: pytest.CaptureFixture[str],
  arguments: tuple[str, ...],
  reason: str,
):
  Path("empty").mkdir()
  Path("file").touch()
  assert main(["--model", str(weights_folder), *arguments]) == 2
  stderr = capsys.readouterr().err
  assert re.match(f"eval: .*{reason}", stderr)
  assert stderr.count("\n") == 1


@pytest.mark.parametrize(
  ("option", "value", "reason"),
  [
    ("lmbda", "nan", "expected numbers from 0 to 3.4e[+]38, such as .*, got nan"),
    ("lmbda", "-1", "expected numbers from 0 .*, got -1"),
    ("lmbda", "abc", "expected numbers from 0 .*, got abc"),
    ("lmbda", "5,abc", "expected numbers from 0 .*, got 5,abc"),
    ("lmbda", "5,", "expected numbers from 0 .*, got 5,"),
    ("lmbda", "inf", "expected numbers from 0 .*, got inf"),
    ("lmbda", "1e39", "expected numbers from 0 .*, got 1e39"),
    ("psnr", "0", "expected a number of dB between 0 and 100, got 0"),
    ("psnr", "nan", "expected a number of dB between 0 and 100, got nan"),
    ("seed", "-1", "expected a whole number from 0 to 4294967295, got -1"),
    ("seed", "1.5", "expected a whole number from 0 .*, got 1.5"),
    ("seed", "4294967296", "expected a whole number from 0 .*, got 4294967296"),
    ("resolution", "8k", "invalid choice: '8k'"),
    ("attention-layer", "none", "invalid choice: 'none'"),
    ("window", "512", "expected HEIGHTxWIDTH, such as 512x768, got 512"),
    (
      "window",
      "100x128",
      "expected a window .* of multiples of 8 above 112, got .100, 128.",
    ),
    ("dtype", "float8", "invalid choice: 'float8'"),
  ],
)
def test_bad_option(capsys: pytest.CaptureFixture[str], option: str, value: str, reason: str):
  with pytest.raises(SystemExit, match="2"):
    main([f"--{option}", value])
  assert re.search(f"argument --{option}: {reason}", capsys.readouterr().err)


def test_largest_options(report: Callable[..., dict[str, Any]], photos: Path):
  result = report("--path", photos / "b.png", "--lmbda", 3.4e38, "--seed", 2**32 - 1)
  assert 0 < result["mean"]["psnr"] < 10


@pytest.mark.parametrize(
  ("text", "values"),
  [
    ("5", [5]),
    ("1,2.5", [1, 2.5]),
    ("2,4,...,10", [2, 4, 6, 8, 10]),
    ("2,4,…,10", [2, 4, 6, 8, 10]),
    ("1,2,4,...,8", [1, 2, 4, 6, 8]),
    ("0.1,0.2,...,0.5", [0.1, 0.2, 0.3, 0.4, 0.5]),
  ],
)
def test_scales(text: str, values: list[float]):
  assert list(parse_scales(text)) == values


@pytest.mark.parametrize(
  "text",
  [
    *("", "a", "0", "-1", "nan", "inf", "1,,2", "...", "2,...,10", "2,4,...", "2,4,...,9"),
    *("2,2,...,10", "4,2,...,10", "2,4,...,4", "1,1.0001,...,9", "2,4,...,10,12", "2,4,...,inf"),
  ],
)
def test_scales_that_are_none(text: str):
  with pytest.raises(argparse.ArgumentTypeError, match="expected numbers above 0, such as 1,2,5"):
    parse_scales(text)


def test_lmbda_and_psnr_exclude_each_other(capsys: pytest.CaptureFixture[str]):
  with pytest.raises(SystemExit, match="2"):
    main(["--lmbda", "1", "--psnr", "30"])
  stderr = capsys.readouterr().err
  assert "argument --psnr: not allowed with argument --lmbda" in stderr


COMBINATIONS = {
  "--multihost": "--multihost needs --jsonl FILE, in a folder that all processes see",
  "--outputs jnd.npy": "--outputs needs --save DIR",
  "--json x --jsonl x": "--json and --jsonl need a file each",
  "--save out --outputs jnd.npy,x": "argument --outputs: unknown output 'x'; known: ",
  "--path photos --tfds dataset": "argument --tfds: not allowed with argument --path",
}


@pytest.mark.parametrize("line", COMBINATIONS)
def test_options_that_do_not_fit_together(capsys: pytest.CaptureFixture[str], line: str):
  with pytest.raises(SystemExit, match="2"):
    main(line.split())
  assert COMBINATIONS[line] in capsys.readouterr().err

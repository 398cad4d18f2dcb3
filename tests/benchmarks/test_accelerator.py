"""Tests that `accelerator` measures all parts in small, keeps to its budget, and needs no torch."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import accelerator, accelerator_ours
from tests.benchmarks.accelerator_ours import (
  PHASES,
  PLAIN,
  list_estimates,
  list_steps,
  list_upsampling,
)
from tests.benchmarks.tables import OURS
from tests.benchmarks.work import Program, Sizes, Subject

ROOT = Path(__file__).parents[2]
SIZES = Sizes((16, 24), (1,), 1, {"hvs_sd": 64}, 64, 2, 0.0)
TORCH = "torch nchw"
# Of maps, relatively, in float32; 2e-6 was measured.
SAME = 1e-5
# Of maps and gradients in bfloat16, whose rounding is 2^-9; up to 0.12 was measured.
BFLOAT16 = (1e-4, 0.2)
# Of PyTorch's gradients on a CPU without AVX-512, where 0.33 was measured.
TORCH_NARROW = 0.5


def run(
  file: Path, subjects: Sequence[Subject], monkeypatch: pytest.MonkeyPatch, *options: str
) -> dict[str, Any]:
  """Runs the command in small for these subjects, and returns its report."""
  monkeypatch.setattr(accelerator, "_QUICK", SIZES)
  monkeypatch.setattr(accelerator, "list_subjects", lambda _: list(subjects))
  assert accelerator.main(["--quick", "--json", str(file), *options]) == 0
  return json.loads(file.read_text())


def find(report: dict[str, Any], part: str, contender: str, precision: str) -> dict[str, Any]:
  (record,) = (
    record
    for record in report["measured"]
    if (record["part"], record["contender"], record["precision"]) == (part, contender, precision)
  )
  return record


def test_both_libraries_are_measured_and_compared(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
  torch = pytest.importorskip("torch")
  from tests.benchmarks import accelerator_torch

  for module in (accelerator_ours, accelerator_torch):
    monkeypatch.setattr(module, "STAGES", ("hvs_sd",))
  theirs = accelerator_torch.list_theirs(SIZES, compiled=False)
  subjects = [
    *list_upsampling(SIZES)[:2],
    *list_estimates("fast", SIZES),
    *list_steps("paper", SIZES),
    *(subject for subject in theirs if subject.contender == TORCH),
  ]
  report = run(tmp_path / "r.json", subjects, monkeypatch, "--budget", "inf")
  assert (report["failed"], report["left_out"]) == ([], [])
  assert len(report["measured"]) == 2 * len(subjects)
  assert all(record["images_per_second"] > 0 for record in report["measured"])
  assert find(report, "upsampling", PHASES, "float32")["error"] < SAME
  assert find(report, "upsampling", PHASES, "float32")["error_against"] == PLAIN
  low, high = BFLOAT16
  capability = torch.backends.cpu.get_cpu_capability()
  for part, contender in (
    ("upsampling", PHASES),
    *((part, library) for part in ("estimate", "train") for library in (OURS, TORCH)),
  ):
    record = find(report, part, contender, "bfloat16")
    rounds_more = (part, contender) == ("train", TORCH) and "AVX512" not in capability
    assert low < record["error"] < (TORCH_NARROW if rounds_more else high)
    assert record["error_against"] == contender
  # Every entry of the kernel meets all 2x3 pixels, less what lies past the border.
  plain = find(report, "upsampling", PLAIN, "float32")
  assert plain["flop"]["traced"] == 2 * 128 * 128 * 7 * 12
  rate = 1e-9 * plain["flop"]["traced"] * plain["images_per_second"]
  assert plain["share"] == pytest.approx(rate / max(report["matmul_gflops"]["float32"].values()))
  assert "128 to 128, float32: " in capsys.readouterr().out


@pytest.mark.slow
def test_all_of_it_runs_in_small(tmp_path: Path):
  file = tmp_path / "r.json"
  assert accelerator.main(["--quick", "--budget", "inf", "--json", str(file)]) == 0
  report = json.loads(file.read_text())
  assert (report["failed"], report["left_out"]) == ([], [])
  assert {record["part"] for record in report["measured"]} == set(accelerator.PARTS)
  same = (r for r in report["measured"] if r["error_against"] not in (None, r["contender"]))
  assert all(record["error"] < SAME for record in same)
  # A CPU multiplies float32 arrays in float32.
  lower = (r for r in report["measured"] if (r["part"], r["precision"]) == ("vision", "bfloat16"))
  assert {record["error"] for record in lower} == {0}


def test_one_that_fails_costs_no_other(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
  def fail(_: object) -> Program:
    raise RuntimeError("no memory\nfor that")

  subjects = [Subject("train", "t", OURS, 1, fail), *list_upsampling(SIZES)[:1]]
  report = run(tmp_path / "r.json", subjects, monkeypatch)
  failed = [f"t, {OURS}, {precision}" for precision in ("float32", "bfloat16")]
  assert report["failed"] == [{"what": what, "reason": "no memory"} for what in failed]
  assert len(report["measured"]) == 2
  assert f"failed: {failed[0]}: no memory\n" in capsys.readouterr().out


def test_nothing_is_begun_beyond_the_budget(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
  subjects = list_estimates("fast", SIZES)
  report = run(tmp_path / "r.json", subjects, monkeypatch, "--budget", "0")
  assert report["measured"] == []
  left_out = [f"estimate fast, 1 of 16x24, ours, {p}" for p in ("float32", "bfloat16")]
  assert report["left_out"] == left_out
  assert all(rate > 0 for rates in report["matmul_gflops"].values() for rate in rates.values())
  assert f"left out: {left_out[0]}\n" in capsys.readouterr().out


def test_torch_is_not_needed(tmp_path: Path):
  script = (
    "import sys; sys.modules['torch'] = None\n"
    "from tests.benchmarks import accelerator\n"
    "sys.exit(accelerator.main(['--quick', '--budget=0', '--json', sys.argv[1]]))"
  )
  file = tmp_path / "r.json"
  done = subprocess.run(
    [sys.executable, "-c", script, str(file)], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  assert "left out: PyTorch, which is not installed\n" in done.stdout
  report = json.loads(file.read_text())
  assert report["machine"]["versions"]["jax"]
  assert not any("torch" in name for name in report["left_out"])


def test_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]):
  with pytest.raises(SystemExit, match="2"):
    accelerator.main(["flying", "--json", "f"])
  assert "unknown part flying: choose from upsampling, " in capsys.readouterr().err

"""Both training steps compile for TPUs that are not there, and say what they cost."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from hvsjnd_jax.training.config import RateDistortionConfig, TrainConfig
from hvsjnd_jax.training.step_cost import TopologyError, compile_ahead, open_topology
from hvsjnd_jax.training.workdir import TrainError
from tests.training.runs import paper_config

ROOT = Path(__file__).parents[2]
CHIPS = 4
LIBTPU = importlib.util.find_spec("libtpu") is not None
# The state of stage 1: its weights, their average, and two moments of Adam, float32.
STATE_BYTES = 4 * 4 * 1_725_571


def small_config(**settings: int) -> TrainConfig:
  size: dict[str, int] = {"channels": 128, "crop_px": 64, "batch_size": 4}
  stage_one = RateDistortionConfig(ordering_weight=0.0, **size | settings)
  return TrainConfig(hvs_sd=stage_one)


def test_cost_on_the_devices_at_hand():
  cost = compile_ahead(small_config(), "hvs_sd", jax.devices()[:1])
  assert (cost.chips, cost.batch_size) == (1, 4)
  pixels = 4 * 3 * 64 * 64
  assert cost.resident_bytes == pytest.approx(STATE_BYTES + pixels, abs=100)
  # Forward and backward passes: three times the forward pass, whose convolutions alone
  # multiply 25·(3·128/4 + 128²/16 + 128²/64) times for a pixel in each half of HVS-SD.
  forward = 2 * 2 * 25 * (3 * 128 / 4 + 128**2 / 16 + 128**2 / 64) * 4 * 64 * 64
  assert 1 < cost.flops / (3 * forward) < 1.4


@pytest.mark.slow
def test_networks_of_aic_are_inputs_of_the_step():
  """And no constants of its program."""
  config = TrainConfig(jnd=paper_config(batch_size=1, crop_px=168))
  plain = compile_ahead(config, "jnd", jax.devices()[:1])
  config.jnd.quality_form = "aic"
  cost = compile_ahead(config, "jnd", jax.devices()[:1])
  backbones = 14_714_688 + 64 * 7 * 7 * 3
  assert cost.resident_bytes - plain.resident_bytes > 4 * backbones
  assert cost.program_bytes < backbones


def test_batch_that_the_chips_cannot_share_is_an_error():
  with pytest.raises(TrainError, match=r"batch_size is 6, which 1 devices times 4 accumulation"):
    compile_ahead(small_config(batch_size=6, accumulation_steps=4), "hvs_sd", jax.devices()[:1])


@pytest.mark.skipif(LIBTPU, reason="libtpu is installed")
def test_without_libtpu_the_error_says_what_to_install():
  with pytest.raises(TopologyError, match=r"no topology 'v5e:2x2': .* pip install 'jax\[tpu\]'"):
    open_topology("v5e:2x2")


@pytest.mark.skipif(not LIBTPU, reason="libtpu is not installed: pip install 'jax[tpu]'")
def test_slices_are_as_many_as_asked_for():
  # In a process of its own: libtpu, once there, cannot be got rid of.
  script = (
    "from hvsjnd_jax.training.step_cost import open_topology\n"
    "print(sorted(chip.slice_index for chip in open_topology('v5e:2x2', slices=2)))"
  )
  environment = os.environ | {"JAX_PLATFORMS": "cpu"}
  printed = subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, env=environment)
  assert printed.split() == b"[0, 0, 0, 0, 1, 1, 1, 1]".split()


@pytest.mark.skipif(not LIBTPU, reason="libtpu is not installed: pip install 'jax[tpu]'")
@pytest.mark.parametrize(
  ("stage", "parameters"),
  [("hvs_sd", 1_725_571), pytest.param("jnd", 86_051, marks=pytest.mark.slow)],
)
def test_pod_config_compiles_for_tpus(stage: str, parameters: int):
  # In a process of its own, as above.
  command = [sys.executable, "-m", "hvsjnd_jax.train", "aot", "--config=configs/tpu_pod.py"]
  options = [f"--config.stage={stage}", f"--config.{stage}.batch_size={2 * CHIPS}"]
  environment = os.environ | {"JAX_PLATFORMS": "cpu"}
  command += ["--topology=v5e:2x2", *options]
  run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
  assert run.returncode == 0, run.stderr
  assert f"{stage}: compiling for 4 chips" in run.stdout
  # One all-reduce, of every trained parameter and a few terms.
  assert "collectives:      1 all-reduce\n" in run.stdout
  megabytes = float(re.findall(r"([\d.]+) MB all-reduced", run.stdout)[0])
  assert megabytes == pytest.approx(4 * parameters / 1e6, abs=0.01)
  used = float(re.findall(r"memory of a chip: ([\d.]+) of 16 GiB", run.stdout)[0])
  assert 0 < used < 1

"""From torchvision's and the classifier's checkpoints to a weights folder."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from convert.from_torch import main
from convert.keymap import BACKBONES
from hvsjnd_jax import weights
from tests.support.golden_backbones import draw

torch = pytest.importorskip("torch")


def draw_backbone(network: str) -> dict[str, Any]:
  """A checkpoint as torchvision's or the authors': with what is not needed."""
  state = draw(network, 0)
  if network == "vgg16":
    for i, shape in ((0, (4096, 25088)), (3, (4096, 4096)), (6, (1000, 4096))):
      # One row of each: they are large.
      state[f"classifier.{i}.weight"] = np.zeros((1, shape[1]), np.float32)
      state[f"classifier.{i}.bias"] = np.zeros(1, np.float32)
  return {key: torch.from_numpy(array) for key, array in state.items()}


def convert_backbone(network: str, state: Any, folder: Path) -> int:
  torch.save(state, folder / "w.pth")
  option = f"--{network}"
  return main([option, str(folder / "w.pth"), "--out", str(folder / "out")])


COUNTS = {"vgg16": 14_714_688, "classifier": 21_304_261}


@pytest.mark.parametrize("network", BACKBONES)
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
def test_backbone_loads_as_it_was_drawn(
  network: str,
  nested: bool,
  tmp_path: Path,
  request: pytest.FixtureRequest,
  capsys: pytest.CaptureFixture[str],
):
  state = draw_backbone(network)
  if nested:
    state = {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}
  assert convert_backbone(network, state, tmp_path) == 0
  folder = tmp_path / "out"
  assert capsys.readouterr() == (f"{folder}: {COUNTS[network]:,} parameters written\n", "")
  loaded = weights.load_vgg16(folder) if network == "vgg16" else weights.load_classifier(folder)
  want = nnx.state(request.getfixturevalue(network))
  jax.tree.map(np.testing.assert_array_equal, nnx.state(loaded), want)
  manifest = weights.read_backbone_manifest(network, folder)
  assert manifest["parameters"] == {network: COUNTS[network]}
  assert manifest["sources"][0]["network"] == network
  assert "defaults" not in manifest


def test_every_fault_of_a_backbone_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
  state = draw_backbone("classifier") | {
    "fc.weight": torch.zeros(1000, 512),
    "fc.scale": torch.zeros(5),
    "layer2.0.downsample.0.bias": torch.zeros(128),
    "layer2.1.downsample.1.num_batches_tracked": torch.tensor(1),
    "layer4.2.bn2.running_var": torch.full((512,), torch.nan),
  }
  del state["layer3.5.conv2.weight"]
  assert convert_backbone("classifier", state, tmp_path) == 2
  file = tmp_path / "w.pth"
  assert capsys.readouterr().err.splitlines() == [
    "convert: nothing written:",
    f"  {file}: unknown key: fc.scale",
    f"  {file}: unknown key: layer2.0.downsample.0.bias",
    f"  {file}: unknown key: layer2.1.downsample.1.num_batches_tracked",
    f"  {file}: missing key: layer3.5.conv2.weight",
    f"  {file}: layer4.2.bn2.running_var: holds values that are not finite",
    f"  {file}: fc.weight: expected shape (5, 512), got (1000, 512)",
  ]
  assert not (tmp_path / "out").exists()

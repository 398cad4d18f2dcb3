"""From PyTorch checkpoints to a weights folder, or to every reason why not."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

import hvsjnd_jax
from convert.from_torch import main
from convert.keymap import PARAMETERS
from hvsjnd_jax import weights
from hvsjnd_jax.metrics import psnr
from hvsjnd_jax.model.jnd_model import JNDModel
from tests.support.golden_weights import draw_state

torch = pytest.importorskip("torch")

NETWORKS = ("hvs_sd", "generator")
# PSNR is read to two or three decimals.
PSNR_DB = 1e-3


def draw_torch(network: str) -> dict[str, Any]:
  """The golden recipe's weights of seed 0, as the published files hold them."""
  shapes = {key: shape for key, (_, shape) in PARAMETERS[network].items()}
  state = draw_state(0, shapes)
  return {key: torch.from_numpy(array) for key, array in state.items()}


class Job:
  """One conversion: its two inputs, and the folder to write."""

  def __init__(self, folder: Path):
    self.files = {network: folder / f"{network}.pth.tar" for network in NETWORKS}
    self.out = folder / "out"
    for network, file in self.files.items():
      torch.save(draw_torch(network), file)

  def edit(self, network: str, **entries: Any) -> None:
    """Saves a network with entries added, replaced, or, where None, removed."""
    state = draw_torch(network) | {k.replace("__", "."): v for k, v in entries.items()}
    torch.save({k: v for k, v in state.items() if v is not None}, self.files[network])

  def run(self) -> int:
    hvs_sd, generator = map(str, self.files.values())
    return main(["--hvs-sd", hvs_sd, "--generator", generator, "--out", str(self.out)])


@pytest.fixture
def job(tmp_path: Path) -> Job:
  return Job(tmp_path)


def _assert_equals(folder: Path, model: JNDModel) -> None:
  jax.tree.map(np.testing.assert_array_equal, nnx.state(weights.load(folder)), nnx.state(model))


def test_converted_weights_are_the_recipe_s(
  job: Job, model: JNDModel, capsys: pytest.CaptureFixture[str]
):
  assert job.run() == 0
  assert capsys.readouterr() == (f"{job.out}: 1,811,622 parameters written\n", "")
  _assert_equals(job.out, model)
  manifest = weights.read_manifest(job.out)
  assert manifest["parameters"] == {"hvs_sd": 1_725_571, "generator": 86_051}
  assert manifest["defaults"] == {"resolution": "reference", "attention": "reconstruction"}
  assert manifest["sources"] == [
    {
      "network": network,
      "file": file.name,
      "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    for network, file in job.files.items()
  ]


def _save_legacy(state: dict[str, Any], file: Path) -> None:
  torch.save(state, file, _use_new_zipfile_serialization=False)


def _save_prefixed(state: dict[str, Any], file: Path) -> None:
  torch.save({f"module.{key}": value for key, value in state.items()}, file)


def _save_parameters(state: dict[str, Any], file: Path) -> None:
  torch.save({key: torch.nn.Parameter(value) for key, value in state.items()}, file)


def _save_strided(state: dict[str, Any], file: Path) -> None:
  torch.save(
    {key: value.mT.contiguous().mT if value.ndim > 1 else value for key, value in state.items()},
    file,
  )


def _save_nested(state: dict[str, Any], file: Path) -> None:
  torch.save({"state_dict": state, "epoch": 7, "optimizer": {"state": {}}}, file)


@pytest.mark.parametrize(
  "save", [_save_legacy, _save_prefixed, _save_parameters, _save_strided, _save_nested]
)
def test_every_way_to_save_a_state_dict(
  job: Job, model: JNDModel, save: Callable[[dict[str, Any], Path], None]
):
  for network, file in job.files.items():
    save(draw_torch(network), file)
  assert job.run() == 0
  _assert_equals(job.out, model)


def test_command_runs_from_any_folder(job: Job, tmp_path: Path):
  root = Path(__file__).parents[2]
  hvs_sd, generator = map(str, job.files.values())
  inputs = ["--hvs-sd", hvs_sd, "--generator", generator]
  done = subprocess.run(
    [sys.executable, "-m", "convert.from_torch", *inputs, "--out", "w"],
    cwd=tmp_path,
    env=os.environ | {"PYTHONPATH": str(root)},
    capture_output=True,
    text=True,
  )
  assert (done.returncode, done.stderr) == (0, "")
  assert weights.load(tmp_path / "w").resolution == "reference"


def test_every_fault_of_both_files_is_named(job: Job, capsys: pytest.CaptureFixture[str]):
  job.edit(
    "hvs_sd",
    Encoder__conv3__bias=torch.zeros(128),
    Encoder__gdn1__beta=None,
    Encoder__gdn2__beta=torch.ones(127),
    bitEstimator__f4__a=torch.zeros(1, 128, 1, 1),
  )
  job.edit(
    "generator",
    conv1__bias=None,
    conv2__bias=torch.zeros(32, dtype=torch.float64),
    conv3__bias=torch.full((64,), torch.nan),
    conv4__bias=64,
    conv5__weight=torch.zeros(64, 32, 3, 3),
    conv6__weight=torch.zeros(3, 32, 3, 3).bfloat16(),
    module__conv6__bias=torch.zeros(3),
    epoch=7,
  )
  assert job.run() == 2
  stdout, stderr = capsys.readouterr()
  hvs_sd, generator = job.files.values()
  assert sorted(stderr.splitlines()) == sorted(
    [
      "convert: nothing written:",
      f"  {hvs_sd}: unknown key: Encoder.conv3.bias",
      f"  {hvs_sd}: unknown key: bitEstimator.f4.a",
      f"  {hvs_sd}: missing key: Encoder.gdn1.beta",
      f"  {hvs_sd}: Encoder.gdn2.beta: expected shape (128,), got (127,)",
      f"  {generator}: given twice, with and without 'module.': conv6.bias",
      f"  {generator}: unknown key: epoch",
      f"  {generator}: missing key: conv1.bias",
      f"  {generator}: conv2.bias: expected float32, got torch.float64",
      f"  {generator}: conv3.bias: holds values that are not finite",
      f"  {generator}: conv4.bias: expected float32, got int",
      f"  {generator}: conv5.weight: expected shape (32, 64, 3, 3), got (64, 32, 3, 3)",
      f"  {generator}: conv6.weight: expected float32, got torch.bfloat16",
    ]
  )
  assert stdout == ""
  assert not job.out.exists()


def test_files_in_the_wrong_places(job: Job, capsys: pytest.CaptureFixture[str]):
  job.files = {"hvs_sd": job.files["generator"], "generator": job.files["hvs_sd"]}
  assert job.run() == 2
  assert len(capsys.readouterr().err.splitlines()) == 1 + 2 * (
    len(PARAMETERS["hvs_sd"]) + len(PARAMETERS["generator"])
  )


class Hostile:
  """Unpickled, it writes a file."""

  def __init__(self, target: Path):
    self.target = target

  def __reduce__(self) -> tuple:
    return Path.write_text, (self.target, "pwned")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_checkpoint_is_not_run(
  job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str], zipped: bool
):
  target = tmp_path / "target"
  state = draw_torch("generator") | {"hook": Hostile(target)}
  torch.save(state, job.files["generator"], _use_new_zipfile_serialization=zipped)
  assert job.run() == 2
  stderr = capsys.readouterr().err
  assert "generator.pth.tar: damaged, no PyTorch checkpoint, or one of more than" in stderr
  assert "weights_only" not in stderr, "torch advises to load such a file unsafely"
  assert not target.exists()
  assert not job.out.exists()
  # The trap is armed: without the guard it goes off.
  torch.load(job.files["generator"], weights_only=False)
  assert target.read_text() == "pwned"


_SPARSE = torch.sparse_coo_tensor(
  torch.tensor([[0], [0]]), torch.ones(1), (10**6, 10**7), check_invariants=True
)


@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype stage")
@pytest.mark.parametrize(
  "draw",
  [
    lambda: _SPARSE,
    lambda: torch.nested.nested_tensor([torch.ones(3), torch.ones(2)]),
    lambda: torch.ones(3, device="meta"),
    lambda: torch.ones(3, dtype=torch.complex64).conj().imag,
  ],
  ids=["sparse", "nested", "meta", "negated"],
)
def test_tensor_that_is_none_of_plain_values(
  job: Job, capsys: pytest.CaptureFixture[str], draw: Callable[[], Any]
):
  job.edit("generator", conv6__bias=draw())
  assert job.run() == 2
  file = job.files["generator"]
  assert capsys.readouterr().err == (
    f"convert: {file}: conv6.bias: expected a plain tensor, all its values stored as they are\n"
  )
  assert not job.out.exists()


def _truncate(file: Path) -> None:
  file.write_bytes(file.read_bytes()[:-100])


def _flip_a_value(file: Path) -> None:
  data = bytearray(file.read_bytes())
  data[data.index(draw_torch("generator")["conv3.weight"].numpy().tobytes())] ^= 1
  file.write_bytes(data)


def _replace_by_folder(file: Path) -> None:
  file.unlink()
  file.mkdir()


BAD = {
  "missing": (Path.unlink, "generator.pth.tar: No such file or directory"),
  "folder": (_replace_by_folder, "generator.pth.tar: Is a directory"),
  "empty": (lambda f: f.write_bytes(b""), "generator.pth.tar: damaged"),
  "truncated": (_truncate, "generator.pth.tar: damaged"),
  "one bit": (_flip_a_value, "generator.pth.tar: damaged"),
  "text": (lambda f: f.write_text("no checkpoint\n" * 99), "generator.pth.tar: damaged"),
  "noise": (lambda f: f.write_bytes(np.random.RandomState(0).bytes(9999)), "damaged"),
  "list": (lambda f: torch.save([1], f), "expected a dict of tensors by name, got list"),
  "numbers": (lambda f: torch.save({1: 2}, f), "expected a dict of tensors by name, got dict"),
  "nested in a list": (
    lambda f: torch.save({"state_dict": [draw_torch("generator")]}, f),
    "unknown key: state_dict",
  ),
}


@pytest.mark.parametrize(("spoil", "reason"), BAD.values(), ids=BAD)
def test_bad_file_gives_a_clear_line(
  job: Job, capfd: pytest.CaptureFixture[str], spoil: Callable[[Path], object], reason: str
):
  spoil(job.files["generator"])
  assert job.run() == 2
  stdout, stderr = capfd.readouterr()
  assert stdout == ""
  assert stderr.startswith("convert: ")
  assert reason in stderr
  assert not job.out.exists()


def test_full_output_folder_is_left_alone(job: Job, capsys: pytest.CaptureFixture[str]):
  job.out.mkdir()
  (job.out / "keep").touch()
  assert job.run() == 2
  assert f"{job.out}: exists and is not an empty folder" in capsys.readouterr().err
  assert [file.name for file in job.out.iterdir()] == ["keep"]


def test_interrupted_conversion_leaves_nothing(
  job: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
  def interrupt(*args: object) -> None:
    raise KeyboardInterrupt

  monkeypatch.setattr(Path, "write_text", interrupt)  # of the manifest, after the weights
  before = sorted(job.out.parent.iterdir())
  assert job.run() == 130
  assert capsys.readouterr() == ("", "convert: interrupted\n")
  assert sorted(job.out.parent.iterdir()) == before


def test_without_torch(
  job: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setitem(sys.modules, "torch", None)
  assert job.run() == 2
  assert "PyTorch is needed to read its checkpoints: pip install" in capsys.readouterr().err


def test_converted_checkpoint_does_what_the_published_code_did(job: Job):
  """The whole path: convert, load, estimate, inject, PSNR."""
  assert job.run() == 0
  model = hvsjnd_jax.load(job.out)
  with np.load(Path(__file__).parents[1] / "goldens/pipeline_chelsea_64x96.npz") as golden:
    image = golden["image"][None].astype(np.float32) / 255
    jnd = hvsjnd_jax.estimate(model, image)
    signs = golden["noise"].astype(np.float32)
    distorted = hvsjnd_jax.inject(image, jnd, signs, lmbda=float(golden["lmbda"]))
    channels = [psnr(distorted[..., c : c + 1], image[..., c : c + 1]) for c in range(3)]
    got = np.concatenate([*channels, psnr(distorted, image)])
    np.testing.assert_allclose(got, golden["psnr"], rtol=0, atol=PSNR_DB)


@pytest.mark.parametrize(
  "networks", [(), ("hvs-sd",), ("vgg16", "classifier"), ("hvs-sd", "generator", "vgg16")], ids=str
)
def test_one_folder_holds_one_kind_of_weights(
  networks: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  options = [word for network in networks for word in (f"--{network}", "w.pth")]
  with pytest.raises(SystemExit) as caught:
    main([*options, "--out", str(tmp_path / "out")])
  assert caught.value.code == 2
  message = "give --hvs-sd and --generator, or --vgg16, or --classifier"
  assert message in capsys.readouterr().err

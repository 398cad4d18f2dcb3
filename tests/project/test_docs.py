"""Runs every command and every block of Python in README, CONTRIBUTING, docs/ and the cards."""

import importlib
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import skimage.data
from PIL import Image

from convert.keymap import PARAMETERS
from hvsjnd_jax import weights
from hvsjnd_jax.cli import photographs as photographs_module
from hvsjnd_jax.study.design import Model
from hvsjnd_jax.training.vision_losses import VISION_TERMS
from tests.support.golden_backbones import draw
from tests.support.golden_weights import draw_state
from tests.support.observers import draw_observers, make_design, take_part

ROOT = Path(__file__).parents[2]
PAGES = (
  *("README.md", "CONTRIBUTING.md"),
  *sorted(f"docs/{file.name}" for file in ROOT.glob("docs/*.md")),
  *(f"hvsjnd_jax/assets/{name}/README.md" for name in ("default", "fast", "paper")),
)
# Those that compile all models of vision, or train: minutes together.
SLOW_PAGES = (
  *("docs/comparing.md", "docs/training.md", "docs/vision.md"),
  *(f"hvsjnd_jax/assets/{name}/README.md" for name in ("default", "fast")),
)
SIDE_PX = 176  # of the photographs: MS-SSIM needs at least 161

# What the commands find in the folder: photographs, and checkpoints of each network.
FOLDERS = ("photos", "PHOTOS", "KODAK", "OTHERS", "corpus", "coded")
CHECKPOINTS = {
  "iter_20000.pth.tar": "hvs_sd",
  "Satisfy.pth.tar": "generator",
  "vgg16-397923af.pth": "vgg16",
  "CL_resNet34.pth": "classifier",
}

# Added to a training run, so that it makes one step and ends in seconds instead of minutes; the
# models of vision, which take long to compile, are left out.
ONE_STEP = (
  *("--config.hvs_sd.num_steps=1", "--config.hvs_sd.warmup_steps=0", "--config.hvs_sd.crop_px=16"),
  *("--config.jnd.num_steps=1", "--config.jnd.warmup_steps=0", "--config.jnd.batch_size=1"),
  *("--config.jnd.crop_px=168", "--config.hvs_sd.ordering_weight=0"),
  *(f"--config.jnd.{term}_weight=0" for term in VISION_TERMS),
)
# Replaces the sizes of large images on which a page measures time or memory.
SMALLER = {"(1, 512, 768, 3)": "(1, 64, 96, 3)", "10000": "200"}

# The shapes that a page's Python states in its comments.
SHAPES = {
  "README.md": {"distorted": (1, 300, 451, 3)},
  "docs/exporting.md": {"jnd": (1, 300, 451, 3)},
  "docs/metrics.md": {"scores": (1,)},
  "docs/speed.md": {"jnd": (1, 300, 451, 3)},
  "docs/using.md": {"gradient": (1, 300, 451, 3), "curvature": (1, 300, 451, 3)},
  "docs/vision.md": {"quality": (1,), "distance": (1,), "jod": (1,), "where": (1, 176, 176)},
}


class Block(NamedTuple):
  """Code on a page, and the reason for which it is not run here, or ""."""

  reason: str
  language: str
  text: str


def read_blocks(page: str) -> list[Block]:
  """Reads the page's blocks of commands and Python, in order."""
  text = (ROOT / page).read_text()
  pattern = r"(?:<!-- not run: ([^\n]+) -->\n)?```(bash|python)\n(.*?)```"
  blocks = [Block(*found) for found in re.findall(pattern, text, re.DOTALL)]
  assert len(blocks) == text.count("```bash\n") + text.count("```python\n"), page
  return blocks


def read_commands(block: str) -> Iterator[list[str]]:
  """Splits a block into commands, which may continue over several lines, and these into words."""
  command = ""
  for line in block.replace("\\\n", " ").splitlines(keepends=True):
    command += line
    try:
      words = shlex.split(command)
    except ValueError:  # the command is not complete: a quotation is open
      continue
    command = ""
    yield words
  assert not command


def run(words: list[str]) -> None:
  """Runs a command in this process, as it stands on the page except for its size."""
  match words:
    case ["pip", "install", "."]:  # .ci/run runs README's own line
      pass
    case ["python", "-m", "hvsjnd_jax.train", "--config", *_]:
      assert importlib.import_module(words[2]).main([*words[3:], *ONE_STEP]) == 0
    case ["python", "-m", module, *options]:
      assert import_command(module).main(options) == 0
    case ["python", "-c", code]:
      for size, smaller in SMALLER.items():
        code = code.replace(size, smaller)
      exec(code, {})
    case _:
      pytest.fail(f"no way to run: {words}")


def import_command(module: str) -> Any:
  """Imports what `python -m module` runs: of a folder, its `__main__`."""
  command = importlib.import_module(module)
  return importlib.import_module(f"{module}.__main__") if hasattr(command, "__path__") else command


def write_checkpoint(file: Path) -> None:
  """Writes what PyTorch would have saved, with weights drawn as for the golden numbers."""
  torch = pytest.importorskip("torch")
  network = CHECKPOINTS[file.name]
  if network in PARAMETERS:
    state = draw_state(0, {key: shape for key, (_, shape) in PARAMETERS[network].items()})
  else:
    state = draw(network, 0)
  torch.save({key: torch.from_numpy(array) for key, array in state.items()}, file)


def write_results(folder: Path) -> None:
  """Writes the files of a study's participants."""
  folder.mkdir()
  design = make_design()
  design.models[0] = Model("default", weights.read_manifest("default")["sha256"])
  for i, observer in enumerate(draw_observers(4, threshold=6, spread=0.2, seed=0)):
    record = take_part(design, observer, code=f"P{i}", seed=i)
    (folder / f"P{i}.json").write_text(json.dumps(record))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  """Makes the reader's current folder: that of a clone, with photographs in it."""
  monkeypatch.chdir(tmp_path)
  photographs = [
    Image.fromarray(image[:SIDE_PX, :SIDE_PX])
    for image in (skimage.data.chelsea(), skimage.data.coffee())
  ]
  for name in FOLDERS:
    Path(name).mkdir()
    for i, photograph in enumerate(photographs):
      photograph.save(f"{name}/{i}.png")
  photographs[0].save("holiday.jpg")
  write_results(Path("results"))
  Path("configs").symlink_to(ROOT / "configs")
  # The samples that come with scikit-image are larger; .ci/run uses them.
  monkeypatch.setattr(photographs_module, "_locate_samples", lambda: [Path("holiday.jpg")])
  return tmp_path


@pytest.mark.parametrize(
  "page",
  [
    pytest.param(page, marks=[pytest.mark.slow] * (page in SLOW_PAGES))
    for page in PAGES
    if read_blocks(page)
  ],
)
def test_page_runs(page: str, folder: Path):
  blocks = [block for block in read_blocks(page) if not block.reason]
  words = {word for block in blocks for word in block.text.split()}
  for name in CHECKPOINTS.keys() & words:
    write_checkpoint(folder / name)
  if not any("--out W" in block.text for block in blocks):
    shutil.copytree(ROOT / "hvsjnd_jax/assets/paper", "W")
  names: dict[str, Any] = {}
  for block in blocks:
    if block.language == "python":
      exec(block.text, names)
      continue
    for command in read_commands(block.text):
      run(command)
  for name, shape in SHAPES.get(page, {}).items():
    assert names[name].shape == shape
  if page == "docs/speed.md":
    assert names["window"] == (320, 512)


def test_quick_start_begins_with_the_blocks_that_ci_runs():
  """`.ci/run` runs the first two blocks: the main job, and the tests."""
  quick_start = (ROOT / "README.md").read_text().partition("\n## Quick start\n")[2]
  first, second = re.findall(r"^```bash\n(.*?)^```$", quick_start, re.DOTALL | re.MULTILINE)[:2]
  assert first.splitlines() == ["pip install .", "python -m hvsjnd_jax.eval --lmbda 10"]
  assert [line.split()[0:3] for line in second.splitlines()] == [
    ["pip", "install", "torch==2.13.0"],
    ["python", "-m", "pytest"],
  ]


def test_readme_has_the_scores_of_the_default_card():
  card = (ROOT / "hvsjnd_jax/assets/default/README.md").read_text()
  rows = re.findall(
    r"^\| [^|]+ \|((?: [\d.]+ \|)+)$", (ROOT / "README.md").read_text(), re.MULTILINE
  )
  assert len(rows) == 5
  assert [row for row in rows if row not in card] == []

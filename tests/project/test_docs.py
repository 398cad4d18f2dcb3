"""README and docs/: every command on a page is run, and every block of Python."""

import importlib
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
from hvsjnd_jax.cli import photographs as photographs_module
from tests.support.golden_backbones import draw
from tests.support.golden_weights import draw_state

ROOT = Path(__file__).parents[2]
PAGES = (
  *("README.md", "CONTRIBUTING.md"),
  *sorted(f"docs/{file.name}" for file in ROOT.glob("docs/*.md")),
  *(f"hvsjnd_jax/assets/{name}/README.md" for name in ("default", "paper")),
)
SIDE_PX = 176  # of the photographs: MS-SSIM takes no less than 161

# What the commands may find: folders of photographs, weights of the reader's own, and checkpoints.
FOLDERS = ("photos", "PHOTOS", "KODAK", "OTHERS", "corpus")
CHECKPOINTS = {
  "iter_20000.pth.tar": "hvs_sd",
  "Satisfy.pth.tar": "generator",
  "vgg16-397923af.pth": "vgg16",
  "CL_resNet34.pth": "classifier",
}

# What is added to a training run, so that it takes a step instead of minutes.
ONE_STEP = (
  *("--config.hvs_sd.num_steps=1", "--config.hvs_sd.warmup_steps=0", "--config.hvs_sd.crop_px=16"),
  *("--config.jnd.num_steps=1", "--config.jnd.warmup_steps=0", "--config.jnd.batch_size=1"),
  "--config.jnd.crop_px=168",
)
# Where a page measures on large images: the sizes there, and those taken here.
SMALLER = {"(1, 512, 768, 3)": "(1, 64, 96, 3)", "10000": "200"}

# What a page's Python says that it makes.
SHAPES = {
  "README.md": {"distorted": (1, 300, 451, 3), "scores": (1,)},
  "docs/exporting.md": {"jnd": (1, 300, 451, 3)},
  "docs/metrics.md": {"scores": (1,)},
  "docs/speed.md": {"jnd": (1, 300, 451, 3)},
  "docs/using.md": {"gradient": (1, 300, 451, 3)},
}


class Block(NamedTuple):
  """What a page says to run, and the reason for which it is not run here, or ""."""

  reason: str
  language: str
  text: str


def read_blocks(page: str) -> list[Block]:
  """The page's commands and Python, in order."""
  text = (ROOT / page).read_text()
  pattern = r"(?:<!-- not run: ([^\n]+) -->\n)?```(bash|python)\n(.*?)```"
  blocks = [Block(*found) for found in re.findall(pattern, text, re.DOTALL)]
  assert len(blocks) == text.count("```bash\n") + text.count("```python\n"), page
  return blocks


def read_commands(block: str) -> Iterator[list[str]]:
  """The words of each command, which may go on over lines."""
  command = ""
  for line in block.replace("\\\n", " ").splitlines(keepends=True):
    command += line
    try:
      words = shlex.split(command)
    except ValueError:  # within quotes
      continue
    command = ""
    yield words
  assert not command


def run(words: list[str]) -> None:
  """Runs a command in this process, as it is on the page but for its size."""
  match words:
    case ["pip", "install", "."]:  # .ci/run does, by README's own line
      pass
    case ["python", "-m", "hvsjnd_jax.train", "--config", *_]:
      assert importlib.import_module(words[2]).main([*words[3:], *ONE_STEP]) == 0
    case ["python", "-m", module, *options]:
      assert importlib.import_module(module).main(options) == 0
    case ["python", "-c", code]:
      for size, smaller in SMALLER.items():
        code = code.replace(size, smaller)
      exec(code, {})
    case _:
      pytest.fail(f"no way to run: {words}")


def write_checkpoint(file: Path) -> None:
  """What PyTorch would have saved, with the golden files' weights."""
  torch = pytest.importorskip("torch")
  network = CHECKPOINTS[file.name]
  if network in PARAMETERS:
    state = draw_state(0, {key: shape for key, (_, shape) in PARAMETERS[network].items()})
  else:
    state = draw(network, 0)
  torch.save({key: torch.from_numpy(array) for key, array in state.items()}, file)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  """Where the reader is: a clone's folder, with photographs in it."""
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
  Path("configs").symlink_to(ROOT / "configs")
  # Those that come with scikit-image are larger; .ci/run takes them.
  monkeypatch.setattr(photographs_module, "_locate_samples", lambda: [Path("holiday.jpg")])
  return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if read_blocks(page)])
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

"""Checks the project as a whole: the rooms, what the library imports, and links of pages."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PAGES = [
  str(file.relative_to(ROOT))
  for pattern in (
    *("*.md", "docs/**/*.md", "notebooks/README.md"),
    *("hvsjnd_jax/assets/*/README.md", "tests/goldens/README.md"),
  )
  for file in sorted(ROOT.glob(pattern))
]

# From the top down: a room imports only rooms that stand below its own line.
FLOORS = (
  ("eval", "compare", "calibrate", "train", "export", "__main__"),
  ("cli",),
  ("study",),
  ("training", "evaluation"),
  ("weights",),
  ("estimator",),
  ("noise", "noise_scale", "model", "viz", "metrics", "baselines"),
  ("runtime", "data"),
  ("ops",),
)


def room_of(file: Path) -> str:
  """The folder of the package that a file stands in, or the file's own name.

  A `__main__` is a command, also that of a folder: `python -m hvsjnd_jax.data`.
  """
  if file.name == "__main__.py":
    return "__main__"
  return file.relative_to(ROOT / "hvsjnd_jax").parts[0].removesuffix(".py")


def imported_modules(file: Path) -> set[str]:
  """Lists the dotted names below `hvsjnd_jax` that a file imports."""
  names: set[str] = set()
  for node in ast.walk(ast.parse(file.read_text())):
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hvsjnd_jax"):
      module = str(node.module).removeprefix("hvsjnd_jax").lstrip(".")
      names |= {f"{module}.{alias.name}".lstrip(".") for alias in node.names}
  return names


SOURCES = sorted((ROOT / "hvsjnd_jax").rglob("*.py"))
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def test_every_room_has_a_floor():
  assert {room_of(file) for file in SOURCES} - {"__init__"} == FLOOR_OF.keys()


def test_imports_point_down():
  for file in SOURCES:
    room = room_of(file)
    if room == "__init__":
      continue
    imported = {name.partition(".")[0] for name in imported_modules(file)} - {room}
    above = {name for name in imported if FLOOR_OF[name] <= FLOOR_OF[room]}
    assert not above, f"{file.relative_to(ROOT)} imports {above}, which stand no lower"


def test_no_circles_within_a_room():
  folder = ROOT / "hvsjnd_jax"
  modules = {
    ".".join(file.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): file
    for file in SOURCES
  }
  arrows: dict[str, set[str]] = {}
  for module, file in modules.items():
    found = {
      name if name in modules else name.rpartition(".")[0] for name in imported_modules(file)
    }
    arrows[module] = (found & modules.keys()) - {module}
  while leaves := {module for module, targets in arrows.items() if not targets}:
    arrows = {
      module: targets - leaves for module, targets in arrows.items() if module not in leaves
    }
  assert not arrows, f"these import each other in a circle: {sorted(arrows)}"


def test_import_is_light():
  """Importing the library loads nothing that only training, converting or plotting needs."""
  modules = ("training.losses", "noise_scale", "viz.sheets", "weights", "model.windows")
  heavy = (
    *("torch", "tensorflow", "tensorflow_datasets", "grain", "orbax", "tensorboardX"),
    *("skimage", "matplotlib", "scipy"),
  )
  code = (
    f"import sys, {', '.join(f'hvsjnd_jax.{module}' for module in modules)}\n"
    f"print([name for name in {heavy} if name in sys.modules])"
  )
  printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
  assert printed.stdout.strip() == "[]", printed


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
  for link in re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text()):
    if not link.startswith("https://"):
      assert ((ROOT / page).parent / link.partition("#")[0]).exists(), link

"""What holds for the project as a whole."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PAGES = [
  str(file.relative_to(ROOT))
  for pattern in (
    *("*.md", "docs/**/*.md", "notebooks/README.md"),
    *("hvsjnd_jax/assets/*/README.md", "tests/data/README.md"),
  )
  for file in sorted(ROOT.glob(pattern))
]

# From the inside out: a module imports earlier ones only.
MODULES = (
  # networks, metrics and baselines
  *("layers", "masking", "hvs_sd", "generator", "backbones", "metrics", "edges", "baselines"),
  # the method
  *("priors", "sharding", "windows", "estimator", "config", "losses"),
  # running it
  *("files", "images", "pictures", "noise", "weights", "models", "figures"),
  *("butteraugli", "visibility", "dataset", "data", "steps"),
  *("checkpoint", "preemption", "logbook", "runs", "training", "aot", "compilation"),
  # commands
  *("console", "records", "outputs", "eval", "compare", "calibrate", "export", "train"),
)


# Modules that are packages, and what stands in them: again a file imports earlier ones only.
PACKAGES = {"metrics": ("pairs", "psnr", "ssim", "gmsd", "fsim", "dists", "__init__")}


def imported_modules(file: Path, package: str = "hvsjnd_jax") -> set[str]:
  """The modules of the package that a file imports."""
  names: set[str] = set()
  for node in ast.walk(ast.parse(file.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module == package:
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
      names.add(str(node.module).removeprefix(f"{package}.").split(".")[0])
  return names


def test_imports_point_one_way():
  folder = ROOT / "hvsjnd_jax"
  files = {file.stem: [file] for file in folder.glob("*.py")}
  for package in PACKAGES:
    files[package] = list((folder / package).glob("*.py"))
  assert files.keys() == {"__init__", *MODULES}
  for i, module in enumerate(MODULES):
    for file in files[module]:
      assert imported_modules(file) - {module} <= set(MODULES[:i]), file


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way_within(package: str):
  files = {file.stem: file for file in (ROOT / "hvsjnd_jax" / package).glob("*.py")}
  assert files.keys() == set(PACKAGES[package])
  for i, module in enumerate(PACKAGES[package]):
    imported = imported_modules(files[module], f"hvsjnd_jax.{package}")
    assert imported <= set(PACKAGES[package][:i]), module


def test_import_is_light():
  """The library needs neither what trains, nor what converts, nor what draws."""
  modules = ("losses", "noise", "pictures", "weights", "windows")
  heavy = (
    *("torch", "tensorflow", "tensorflow_datasets", "grain", "orbax", "tensorboardX"),
    *("skimage", "matplotlib", "scipy"),
  )
  code = (
    f"import sys, hvsjnd_jax; from hvsjnd_jax import {', '.join(modules)}\n"
    f"print([name for name in {heavy} if name in sys.modules])"
  )
  printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
  assert printed.stdout.strip() == "[]", printed


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
  for link in re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text()):
    if not link.startswith("https://"):
      assert ((ROOT / page).parent / link.partition("#")[0]).exists(), link

"""Checks the notebooks as stored, with their outputs; `pytest --nbmake notebooks` runs them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# A larger page is slow to show, and every version of it stays in the history for good.
LARGEST_BYTES = 1_500_000


def read_cells(file: Path, kind: str) -> list[dict[str, Any]]:
  cells = json.loads(file.read_text())["cells"]
  return [cell for cell in cells if cell["cell_type"] == kind]


def test_notebooks_are_listed():
  listed = re.findall(r"\((\S+\.ipynb)\)", (FOLDER / "README.md").read_text())
  assert listed == [file.name for file in NOTEBOOKS]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_outputs_are_those_of_one_run(file: Path):
  """All cells were run in order, without errors or warnings, and some made pictures."""
  cells = read_cells(file, "code")
  assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
  outputs = [output for cell in cells for output in cell["outputs"]]
  assert all(output["output_type"] != "error" for output in outputs)
  assert all(output.get("name") != "stderr" for output in outputs)
  assert any("image/jpeg" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_file_is_small_and_anonymous(file: Path):
  """Nothing tells the times, folders and addresses of the run that wrote it."""
  assert file.stat().st_size < LARGEST_BYTES
  for cell in read_cells(file, "code"):
    assert not cell["metadata"]
    words = [
      json.dumps(o.get("text", o.get("data", {}).get("text/plain"))) for o in cell["outputs"]
    ]
    assert not re.search(r"/home/|/tmp/|/root/| at 0x", "".join(words))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_links_lead_somewhere(file: Path):
  words = "\n".join("".join(cell["source"]) for cell in read_cells(file, "markdown"))
  for link in re.findall(r"\]\(([^)]+)\)", words):
    if not link.startswith("https://"):
      assert (FOLDER / link).exists(), link

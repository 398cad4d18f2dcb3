"""The compilation cache: folders that cannot be written to, and entries that are damaged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Compiles two programs under the name of one command, and tells how many were compiled.
COMPILE = """
import sys
from functools import partial
import jax
import jax.numpy as jnp
from hvsjnd_jax.cli.command import report_error, run_command
from hvsjnd_jax.runtime.compilation_cache import keep_compilations

hits = []
jax.monitoring.register_event_listener(
  lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None
)

def run():
  keep_compilations(partial(report_error, "eval"))
  if sys.argv[1:]:
    exec(sys.argv[1])
  for power in (2, 3):
    jax.jit(lambda x: x**power)(jnp.ones(8))
  print(len(hits))
  return 0

sys.exit(run_command("eval", run))
"""


def start(folder: Path, *arguments: str, **environment: str) -> tuple[str, str]:
  """Returns the number of programs found in the cache, and stderr."""
  environment = {"JAX_ENABLE_COMPILATION_CACHE": "true", "JAX_PLATFORMS": "cpu"} | environment
  done = subprocess.run(
    [sys.executable, "-c", COMPILE, *arguments],
    env=os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder)} | environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.strip(), done.stderr


def list_entries(folder: Path) -> list[Path]:
  return sorted((folder / "hvsjnd_jax").glob("jit__lambda*-cache"))


ADVICE = "JAX_COMPILATION_CACHE_DIR names another folder"


def test_damaged_entries_are_mended(tmp_path: Path):
  assert start(tmp_path) == ("0", "")
  entries = list_entries(tmp_path)
  assert len(entries) >= 2
  sound = [entry.read_bytes() for entry in entries]
  entries[0].write_bytes(sound[0][: len(sound[0]) // 2])
  entries[1].write_bytes(b"")
  found, stderr = start(tmp_path)
  said = f"eval: {tmp_path}/hvsjnd_jax: damaged entries are removed, and compiled anew\n"
  assert stderr == said
  assert all(len(e.read_bytes()) > len(s) / 2 for e, s in zip(entries, sound, strict=True))
  again, stderr = start(tmp_path)
  assert stderr == ""
  assert int(again) >= int(found) + 2


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"])
def test_folder_that_cannot_be_made(tmp_path: Path, variable: str):
  (tmp_path / "file").touch()
  folder = tmp_path / "file" / ("hvsjnd_jax" if variable == "XDG_CACHE_HOME" else "")
  assert start(tmp_path, **{variable: str(tmp_path / "file")}) == (
    "0",
    f"eval: {folder}: cannot keep compiled code: {'Not a directory'}; {ADVICE}\n"
    if variable == "XDG_CACHE_HOME"
    else f"eval: {folder}: cannot keep compiled code: File exists; {ADVICE}\n",
  )


def test_disk_that_fills_up_is_one_line(tmp_path: Path):
  limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
  found, stderr = start(tmp_path, limit)
  assert found == "0"
  assert stderr == (
    f"eval: {tmp_path}/hvsjnd_jax: cannot keep compiled code: OSError: [Errno 27] File too large; "
    f"{ADVICE}\n"
  )
  # What was written in part is found to be damaged, and written whole.
  _, stderr = start(tmp_path)
  assert stderr.count("\n") <= 1
  assert start(tmp_path)[1] == ""


def test_user_without_a_home(tmp_path: Path):
  code = "pass"
  _, stderr = start(tmp_path, code, XDG_CACHE_HOME="", HOME="~")
  assert stderr == (
    f"eval: ~/.cache/hvsjnd_jax: cannot keep compiled code: there is no home folder; {ADVICE}\n"
  )


def test_cache_that_is_turned_off(tmp_path: Path):
  assert start(tmp_path, JAX_ENABLE_COMPILATION_CACHE="false") == ("0", "")
  assert not list(tmp_path.iterdir())

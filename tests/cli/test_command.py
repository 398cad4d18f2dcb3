"""What all commands share: how they end, and what they say of themselves."""

import gc
import importlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import flax
import jax
import pytest

import hvsjnd_jax
from hvsjnd_jax import __main__
from hvsjnd_jax.cli import command
from hvsjnd_jax.cli.command import UsageError, run_command
from hvsjnd_jax.ops.errors import HVSJNDError

# A signal that is lost would let the work go on for so long.
TIMEOUT_SECONDS = 20


class PreemptedError(HVSJNDError):
  status = 143


def fail(error: BaseException) -> Callable[[], int]:
  def run() -> int:
    raise error

  return run


ENDS: dict[str, tuple[BaseException, int, str]] = {
  "usage": (UsageError("--path x: no such file"), 2, "eval: --path x: no such file\n"),
  "another of ours": (HVSJNDError("damaged"), 2, "eval: damaged\n"),
  "with a status": (PreemptedError("saved at step 7"), 143, "eval: saved at step 7\n"),
  "interrupted": (KeyboardInterrupt(), 130, "eval: interrupted; go on\n"),
  "reader left": (BrokenPipeError(32, "Broken pipe"), 141, ""),
  "full disk": (OSError(28, "No space left"), 2, "eval: [Errno 28] No space left\n"),
}


@pytest.mark.parametrize(("error", "status", "line"), ENDS.values(), ids=ENDS)
def test_error_is_one_line_and_a_status(
  capsys: pytest.CaptureFixture[str], error: BaseException, status: int, line: str
):
  assert run_command("eval", fail(error), interrupted="interrupted; go on") == status
  assert capsys.readouterr() == ("", line)
  print("stdout still works")
  assert capsys.readouterr().out == "stdout still works\n"


def test_status_is_what_the_command_says():
  assert run_command("eval", lambda: 1) == 1


def test_windows_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
  monkeypatch.setattr(sys, "platform", "win32")
  assert run_command("eval", lambda: 0) == 2
  assert capsys.readouterr().err == "eval: runs on Linux and macOS; on Windows, run it in WSL\n"


def test_sigterm_ends_in_order(capsys: pytest.CaptureFixture[str]):
  tidied = []

  def run() -> int:
    try:
      os.kill(os.getpid(), signal.SIGTERM)
      signal.pause()
      return 0
    finally:
      tidied.append(True)

  assert run_command("eval", run) == 143
  assert capsys.readouterr().err == "eval: ended by SIGTERM\n"
  assert tidied
  assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_hijax_variables_are_not_used():
  with flax.config.temp_flip_flag("hijax_variable", True):
    assert run_command("export", lambda: int(flax.config.flax_hijax_variable)) == 0
    assert flax.config.flax_hijax_variable, "outside the command it stays the user's choice"


def test_mistake_of_ours_is_a_traceback():
  with pytest.raises(ZeroDivisionError):
    run_command("eval", fail(ZeroDivisionError()))


@pytest.mark.parametrize(("error", "status", "_"), ENDS.values(), ids=ENDS)
def test_process_of_many_leaves_at_once_but_for_preemption(
  monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, _: str
):
  """All processes are preempted together, and so end in order."""
  left: list[int] = []
  monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(command.os, "_exit", left.append)
  assert run_command("eval", fail(error)) == status
  assert left == ([] if status == 143 else [status])


def test_no_device_is_asked_for_where_a_process_is_alone(monkeypatch: pytest.MonkeyPatch):
  monkeypatch.setattr(jax, "process_count", lambda: pytest.fail("starts the devices"))
  assert run_command("data", fail(UsageError("no images"))) == 2


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_in_a_collection_of_garbage_is_not_lost(
  number: int, status: int, capsys: pytest.CaptureFixture[str]
):
  """JAX has a callback there, whose exceptions Python drops."""

  def signal_once(phase: str, info: dict[str, int]) -> None:
    gc.callbacks.remove(signal_once)
    signal.raise_signal(number)

  def run() -> int:
    gc.callbacks.append(signal_once)
    gc.collect()
    time.sleep(TIMEOUT_SECONDS)
    return 0

  # A process that was started in the background ignores SIGINT.
  former = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    assert run_command("eval", run) == status
  finally:
    signal.signal(signal.SIGINT, former)
  said = {143: "ended by SIGTERM", 130: "interrupted"}
  assert capsys.readouterr().err == f"eval: {said[status]}\n"


@pytest.mark.parametrize(
  "name",
  ["eval", "compare", "calibrate", "export", "train", "metrics.__main__", "data.__main__"],
)
def test_help_tells_what_sigterm_gives(name: str, capsys: pytest.CaptureFixture[str]):
  with pytest.raises(SystemExit, match="0"):
    importlib.import_module(f"hvsjnd_jax.{name}").main(["--help"])
  printed = " ".join(capsys.readouterr().out.split())
  wanted = "exit status is that of compare." if name == "calibrate" else "143 after SIGTERM."
  assert wanted in printed


@pytest.mark.parametrize("name", ["eval", "compare", "calibrate", "export"])
def test_version_and_whole_names_of_options(name: str, capsys: pytest.CaptureFixture[str]):
  main = importlib.import_module(f"hvsjnd_jax.{name}").main
  with pytest.raises(SystemExit, match="0"):
    main(["--version"])
  assert capsys.readouterr().out == f"hvsjnd_jax {hvsjnd_jax.__version__}\n"
  with pytest.raises(SystemExit, match="2"):
    main(["--mod", "default"])


def test_commands_are_listed(capsys: pytest.CaptureFixture[str]):
  assert __main__.main([]) == 0
  listed = re.findall(r"^  python -m (hvsjnd_jax\.\w+)  +\S", capsys.readouterr().out, re.MULTILINE)
  package = Path(__main__.__file__).parent
  commands = {file.stem for file in package.glob("*.py") if "def main(" in file.read_text()}
  commands |= {file.parent.name for file in package.glob("*/__main__.py")}
  assert {name.removeprefix("hvsjnd_jax.") for name in listed} == commands - {"__main__"}
  for name in listed:
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):
      module = importlib.import_module(f"{name}.__main__")
    assert callable(module.main)
  with pytest.raises(SystemExit, match="2"):
    __main__.main(["eval"])
  assert "run python -m hvsjnd_jax.NAME" in capsys.readouterr().err


def test_ending_is_light():
  """What every command imports takes neither Grain nor Orbax nor TFDS."""
  code = (
    "import sys, hvsjnd_jax.__main__, hvsjnd_jax.cli.command\n"
    "print([n for n in ('grain', 'orbax', 'tensorflow_datasets', 'tqdm') if n in sys.modules])"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ
  )
  assert done.stdout == "[]\n", done.stderr

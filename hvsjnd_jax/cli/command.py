"""What all commands share: their parser, and how they end.

Results go to stdout; errors, one line each, and the progress bar go to stderr.
"""

import argparse
import contextlib
import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import TextIO

import flax
import jax

import hvsjnd_jax
from hvsjnd_jax.data.paths import explain_storage_error
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.runtime.devices import explain_missing_device

FAILED = 2

INTERRUPTED = 128 + 2  # SIGINT, as a shell reports it

READER_LEFT = 128 + 13  # SIGPIPE, as `cat` would end

TERMINATED = 128 + 15  # SIGTERM

# After which a signal is sent again that was lost: the garbage is collected by then.
_PAUSE_SECONDS = 0.05

STDOUT = Path("-")  # as the value of --json

# Where the report goes that is printed on stdout; None where no command runs.
_report_stream: ContextVar[TextIO | None] = ContextVar("report_stream", default=None)


class UsageError(HVSJNDError):
  """The user asked for something that cannot be done."""


class _Terminated(KeyboardInterrupt):
  """SIGTERM came: the work ends as after Ctrl-C, and leaves nothing half done."""


def make_parser(
  name: str, doc: str | None, *, module: str | None = None
) -> argparse.ArgumentParser:
  """Makes a command's parser, with --help and --version alone.

  Args:
    name: The command's name.
    doc: Its module's docstring. Help shows the first paragraph above the options, and all
      others below them.
    module: What `python -m` runs; by default hvsjnd_jax.NAME.
  """
  description, _, notes = (doc or "").partition("\n\n")
  parser = argparse.ArgumentParser(
    prog=f"python -m {module or f'hvsjnd_jax.{name}'}",
    description=description,
    epilog=notes,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,  # an abbreviation would change its meaning with every new option
  )
  parser.add_argument("--version", action="version", version=f"hvsjnd_jax {hvsjnd_jax.__version__}")
  return parser


def run_command(
  name: str,
  run: Callable[[], int],
  *,
  interrupted: str = "interrupted",
  json: Path | None = None,
) -> int:
  """Runs a command's work; whatever ends it early becomes one line on stderr.

  Where several processes share the work, one that ends early leaves at once: an orderly exit
  would wait for the others, who wait for this one.

  Args:
    name: The command's name, which opens the line.
    run: The work; returns the exit status.
    interrupted: What the line says after Ctrl-C.
    json: Where the report goes. If that is stdout, all that the work prints goes to stderr.

  Returns:
    The exit status: what `run` returned, or that of the error (2 unless its class has another
    one), 2 when stdout cannot be written, 130 after Ctrl-C, 141 when the reader of stdout left,
    143 after SIGTERM.
  """
  _open_closed_streams()
  _accept_any_file_name()
  together = False  # whether all processes end with this status
  try:
    _check_system()
    with _silent_pillow(), _ending_by_sigterm(), _text_beside(json), _plain_variables():
      status = run()
    sys.stdout.flush()
    return status
  except HVSJNDError as error:
    _say(name, error)
    status, together = error.status, error.status != FAILED
  except _Terminated:
    _say(name, "ended by SIGTERM")
    status = TERMINATED
  except KeyboardInterrupt:
    _say(name, interrupted)
    status = INTERRUPTED
  except BrokenPipeError:
    _abandon_stdout()
    status = READER_LEFT
  except OSError as error:
    _abandon_stdout()
    _say(name, error)
    status = FAILED
  except Exception as error:
    reason = _explain(error)
    if reason is None:
      raise
    _say(name, reason)
    status = FAILED
  if not together:
    _leave_other_processes(status)
  return status


def _explain(error: Exception) -> HVSJNDError | str | None:
  """Says what a user can mend in an error of JAX or of the object store; None for all others."""
  if isinstance(error, AssertionError | RuntimeError):
    return explain_missing_device(error)
  return explain_storage_error(error)


def report_error(command: str, subject: object, error: object) -> None:
  """Prints an error on stderr, above the progress bar."""
  from tqdm import tqdm  # commands that draw no bar start faster without it

  tqdm.write(f"{command}: {subject}: {error}", file=sys.stderr)


def advise_packages(command: str, packages: set[str | None]) -> None:
  """Says once what to install, if images could not be read for want of it; None is nothing."""
  wanted = sorted(package for package in packages if package)
  if wanted:
    report_error(command, "some formats need packages", f"pip install {' '.join(wanted)}")


def _say(name: str, reason: object) -> None:
  print(f"{name}: {reason}", file=sys.stderr)


def print_report(text: str) -> None:
  """Prints a report on stdout, also where all else that is printed goes to stderr."""
  print(text, file=_report_stream.get() or sys.stdout)


def _check_system() -> None:
  if sys.platform == "win32":
    raise UsageError("runs on Linux and macOS; on Windows, run it in WSL")


def _open_closed_streams() -> None:
  """Discards what goes to a stream that the caller has closed, as by `2>&-`.

  Python prints to stdout what is meant for a closed stderr, and the next file that is opened
  would take the closed stream's place.
  """
  for number, name in ((1, "stdout"), (2, "stderr")):
    if getattr(sys, name) is None:
      nowhere = os.open(os.devnull, os.O_WRONLY)
      with contextlib.suppress(OSError):
        os.fstat(number)
        number = nowhere  # a file that was opened meanwhile has that place
      if number != nowhere:
        os.dup2(nowhere, number)
        os.close(nowhere)
      setattr(sys, name, os.fdopen(number, "w"))


def _accept_any_file_name() -> None:
  """Lets stdout print names that are not valid in its encoding, with escapes."""
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _silent_pillow() -> Iterator[None]:
  """Hides Pillow's remarks on odd metadata, which change no pixel."""
  logging.getLogger("PIL").setLevel(logging.CRITICAL)
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", module="PIL")
    yield


def _plain_variables() -> contextlib.AbstractContextManager[None]:
  """Ignores FLAX_HIJAX_VARIABLE, by which JAX can neither export weights nor place them."""
  return flax.config.temp_flip_flag("hijax_variable", False)


@contextlib.contextmanager
def _ending_by_sigterm() -> Iterator[None]:
  """Lets SIGTERM end the work in order: otherwise nothing could be tidied up."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  former, former_hook = signal.signal(signal.SIGTERM, _terminate), sys.unraisablehook

  def repeat(dropped: "sys.UnraisableHookArgs") -> None:
    """Sends the signal again where Python dropped what it raised: in a collection of garbage."""
    if not isinstance(dropped.exc_value, KeyboardInterrupt):
      former_hook(dropped)
      return
    terminated = isinstance(dropped.exc_value, _Terminated)
    number = signal.SIGTERM if terminated else signal.SIGINT
    threading.Timer(_PAUSE_SECONDS, os.kill, (os.getpid(), number)).start()

  sys.unraisablehook = repeat
  try:
    yield
  finally:
    sys.unraisablehook = former_hook
    signal.signal(signal.SIGTERM, former)


def _terminate(number: int, frame: FrameType | None) -> None:
  raise _Terminated


@contextlib.contextmanager
def _text_beside(json: Path | None) -> Iterator[None]:
  """Sends what is printed to stderr if the report goes to stdout, so that it stands there alone."""
  if json != STDOUT:
    yield
    return
  token = _report_stream.set(sys.stdout)
  try:
    with contextlib.redirect_stdout(sys.stderr):
      yield
  finally:
    _report_stream.reset(token)


def _abandon_stdout() -> None:
  """Discards what stdout cannot take: Python flushes it at exit, and would complain again."""
  try:
    sys.stdout.flush()
  except OSError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave_other_processes(status: int) -> None:
  """Ends a process that shares its work with others; one that is alone goes on."""
  if jax.distributed.is_initialized() and jax.process_count() > 1:
    sys.stderr.flush()
    os._exit(status)

"""What all commands share: their parser, and how they end.

Results go to stdout; errors, one line each, and the progress bar go to stderr.
"""

import argparse
import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator

import jax

import hvsjnd_jax
from hvsjnd_jax.ops.errors import HVSJNDError

FAILED = 2

INTERRUPTED = 128 + 2  # SIGINT, as a shell reports it

READER_LEFT = 128 + 13  # SIGPIPE, as `cat` would end


class UsageError(HVSJNDError):
  """The user asked for something that cannot be done."""


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
  parser.add_argument(
    "--version", action="version", version=f"hvsjnd_jax {hvsjnd_jax.__version__}"
  )
  return parser


def run_command(name: str, run: Callable[[], int], *, interrupted: str = "interrupted") -> int:
  """Runs a command's work; whatever ends it early becomes one line on stderr.

  Where several processes share the work, one that ends early leaves at once: an orderly exit
  would wait for the others, who wait for this one.

  Args:
    name: The command's name, which opens the line.
    run: The work; returns the exit status.
    interrupted: What the line says after Ctrl-C.

  Returns:
    The exit status: what `run` returned, or that of the error (2 unless its class has another
    one), 2 when stdout cannot be written, 130 after Ctrl-C, 141 when the reader of stdout left.
  """
  _accept_any_file_name()
  try:
    with _silent_pillow():
      status = run()
    sys.stdout.flush()
    return status
  except HVSJNDError as error:
    _say(name, error)
    status = error.status
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
  # Any other status, such as preemption's, is one with which all processes end together.
  if status in (FAILED, INTERRUPTED, READER_LEFT):
    _leave_other_processes(status)
  return status


def _say(name: str, reason: object) -> None:
  print(f"{name}: {reason}", file=sys.stderr)


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

"""What the commands share: options, files, words, and how they end.

Results go to stdout; errors, each a line, and the progress bar to stderr.
"""

import argparse
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable

import jax

from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.runtime.compilation_cache import keep_compilations


class UsageError(HVSJNDError):
  """Something that the user asked for cannot be done."""


def run_command(name: str, run: Callable[[], int], *, interrupted: str = "interrupted") -> int:
  """Runs what a command does; whatever ends it early is one line.

  Args:
    name: Of the command, before its errors.
    run: What it does; returns the exit status.
    interrupted: The line that Ctrl-C ends with.

  Returns:
    The exit status: what `run` gave, 2 when it could not go on, 130 when it was interrupted,
    141 when the reader of its output left.
  """
  keep_compilations()
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")  # file names may be any bytes
  # What Pillow has to say of odd metadata changes no pixel.
  logging.getLogger("PIL").setLevel(logging.CRITICAL)
  try:
    with warnings.catch_warnings():
      warnings.filterwarnings("ignore", module="PIL")
      status = run()
    print(end="", flush=True)
    return status
  except HVSJNDError as error:
    print(f"{name}: {error}", file=sys.stderr)
    status = getattr(error, "status", 2)
    if status == 2 and jax.distributed.is_initialized():
      # An orderly exit would wait for the other processes, which wait for this one.
      sys.stderr.flush()
      os._exit(status)
    return status
  except KeyboardInterrupt:
    print(f"{name}: {interrupted}", file=sys.stderr)
    return 130
  except OSError as error:  # of standard output: a reader that left, a full disk
    # Python flushes it once more at exit, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
      return 141  # 128 + SIGPIPE, as `cat` would end
    print(f"{name}: {error}", file=sys.stderr)
    return 2


def make_parser(name: str, doc: str | None) -> argparse.ArgumentParser:
  """A command's parser, without options yet.

  Args:
    name: Of the command.
    doc: Its module's docstring: the first paragraph describes it, the second holds examples,
      which `--help` leaves out, and the others follow the options.
  """
  description, _, notes = (doc or "").partition("\n\n")
  return argparse.ArgumentParser(
    prog=f"python -m hvsjnd_jax.{name}",
    description=description,
    epilog=notes.partition("\n\n")[2],
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )

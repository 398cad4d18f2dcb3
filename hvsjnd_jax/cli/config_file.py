"""Loads a training config from its file and the overrides of the command line."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from absl import flags
from ml_collections import config_flags

from hvsjnd_jax.cli.command import UsageError
from hvsjnd_jax.training.config import TrainConfig


def load_config(file: str, overrides: list[str], *, photographs: bool) -> TrainConfig:
  """Runs a config file, applies the overrides, and checks the result.

  Args:
    file: The Python file, whose `get_config` returns a `TrainConfig`.
    overrides: Words of the form --config.name=value.
    photographs: Whether the config must name a source of photographs.

  Raises:
    UsageError: If the file is missing or fails, or a setting is unknown or impossible.
  """
  if not Path(file).is_file():
    raise UsageError(f"--config {file}: no such file")
  for choices in set(_list_choices(TrainConfig)):
    config_flags.register_flag_parser_for_type(choices, flags.EnumParser(get_args(choices)))
  words = ["train", f"--config={file}", *overrides]
  values = flags.FlagValues()
  flag = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=words)
  try:
    values(words)
    # Where the file cannot be loaded, this first use of the config raises.
    config: TrainConfig = flag.value
    config.validate(photographs=photographs)
  except Exception as error:  # a config file is a program, which may raise anything
    reason = str(error.args[0] if error.args else error)
    raise UsageError(reason.partition("failure to load: ")[2] or reason) from None
  return config


def _list_choices(settings: type) -> Iterator[Any]:
  """Yields the type of every setting that is a choice between words."""
  for field in dataclasses.fields(settings):
    if get_origin(field.type) is Literal:
      yield field.type
    elif dataclasses.is_dataclass(field.type) and isinstance(field.type, type):
      yield from _list_choices(field.type)

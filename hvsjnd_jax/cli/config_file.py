"""Loads a config file and the overrides of the command line."""

from pathlib import Path
from typing import get_args

from absl import flags
from ml_collections import config_flags

from hvsjnd_jax.cli.command import UsageError
from hvsjnd_jax.model.jnd_map import Resolution
from hvsjnd_jax.model.priors import AttentionLayer
from hvsjnd_jax.training.config import (
  AttentionForm,
  ComputeDtype,
  MagnitudeForm,
  QualityForm,
  StageChoice,
  TrainConfig,
)


def load_config(file: str, overrides: list[str], *, photographs: bool) -> TrainConfig:
  if not Path(file).is_file():
    raise UsageError(f"--config {file}: no such file")
  forms = (MagnitudeForm, QualityForm, AttentionForm)
  for option in (StageChoice, ComputeDtype, Resolution, AttentionLayer, *forms):
    parser = flags.EnumParser(get_args(option))
    config_flags.register_flag_parser_for_type(option, parser)
  words = ["train", f"--config={file}", *overrides]
  values = flags.FlagValues()
  flag = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=words)
  try:
    values(words)
    config: TrainConfig = flag.value
    config.validate(photographs=photographs)
  except Exception as error:  # a config file is a program, and may do anything
    # Where the file could not be read, the first use of the config says so.
    reason = str(error.args[0] if error.args else error)
    raise UsageError(reason.partition("failure to load: ")[2] or reason) from None
  return config

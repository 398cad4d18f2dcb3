"""The base of every error that a user can mend."""


class HVSJNDError(Exception):
  """What a user can mend: the message says what was wanted, what came, and what to do.

  Commands print it in one line and end with status 2; see `cli.command.run_command`.
  """

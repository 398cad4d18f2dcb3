"""The base of every error that a user can mend."""


class HVSJNDError(Exception):
  """What a user can mend: the message says what was wanted, what came, and what to do.

  Commands print it in one line; see `cli.command.run_command`.

  Attributes:
    status: The exit status of a command that the error ends.
  """

  status = 2

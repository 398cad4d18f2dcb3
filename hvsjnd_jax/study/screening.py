"""Tells whose answers count: those of participants who saw the traps and read the plates."""

from hvsjnd_jax.study.design import count_forgiven_plates, count_forgiven_traps
from hvsjnd_jax.study.results import Result


def find_fault(result: Result) -> str | None:
  """Says why a participant's answers are not used; None where they are.

  Traps are pairs whose flicker nobody overlooks. Whoever misses more of them than
  `count_forgiven_traps` was not looking. Whoever misreads more colour plates than
  `count_forgiven_plates` may see the colours of noise in another way than most people.
  """
  traps = [trial for trial in result.trials if trial.kind == "trap"]
  missed = sum(trial.answer != trial.side for trial in traps)
  if missed > (forgiven := count_forgiven_traps(len(traps))):
    return f"missed {missed} of {len(traps)} traps; at most {forgiven} are forgiven"
  misread = sum(plate.answer != plate.shown for plate in result.plates)
  if misread > (forgiven := count_forgiven_plates(len(result.plates))):
    return f"misread {misread} of {len(result.plates)} colour plates; {forgiven} is forgiven"
  return None

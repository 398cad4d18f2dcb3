"""Tables of scores, as text."""

from hvsjnd_jax.evaluation import tables
from hvsjnd_jax.evaluation.scores import ScoreTable


def test_table():
  rows: ScoreTable = {"first": {"ssim": 0.5, "gmsd": 0.1}, "b": {"ssim": None, "gmsd": 0.05}}
  columns = tables.list_columns(rows, kind="score")
  assert tables.tabulate(rows, columns).splitlines() == [
    "        ssim    gmsd",
    "model higher   lower",
    "first 0.5000* 0.1000",
    "b          -  0.0500*",
  ]

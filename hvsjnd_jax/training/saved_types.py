"""Compares what a checkpoint holds with what it is restored into, before any array is read."""

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from hvsjnd_jax.runtime.sharding import PyTree


class OtherTypesError(Exception):
  """A saved array differs in name, shape or type. The message says which, and how."""


def check_types(folder: Path, like: PyTree) -> None:
  """Refuses a saved pytree whose arrays differ from those wanted in name, shape or type.

  Args:
    folder: The saved pytree.
    like: What is wanted of it.

  Raises:
    OtherTypesError: If they differ.
    Exception: Whatever Orbax raises where the folder is damaged.
  """
  tree: Any = ocp.StandardCheckpointHandler().metadata(epath.Path(folder))
  flat = ocp.tree.to_flat_dict(tree.tree)
  saved = {path: _describe(leaf) for path, leaf in flat.items() if leaf is not None}
  wanted = {path: _describe(leaf) for path, leaf in ocp.tree.to_flat_dict(like).items()}
  for path in sorted(saved.keys() | wanted.keys()):
    expected, found = (held.get(path, "nothing") for held in (wanted, saved))
    if found != expected:
      raise OtherTypesError(f"{'.'.join(path)}: expected {expected}, found {found}")


def _describe(leaf: Any) -> str:
  return f"{leaf.dtype}{list(leaf.shape)}"

"""Compares what a checkpoint holds with what it is restored into, before any array is read."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from hvsjnd_jax.runtime.sharding import PyTree


class OtherTypesError(Exception):
  """A saved array differs in name, shape or type. The message says which, and how."""


def make_wide_target(folder: Path, like: PyTree) -> PyTree | None:
  """Makes what a pytree of wider types is restored into, which earlier versions saved.

  Under JAX_ENABLE_X64 they trained in float64. NumPy holds such arrays whatever that says now.

  Args:
    folder: A saved pytree.
    like: What is wanted of it.

  Returns:
    NumPy arrays of the saved types, in the structure wanted; None where all types are as wanted.

  Raises:
    OtherTypesError: If names, shapes or types differ in another way.
    Exception: Whatever Orbax raises where the folder is damaged.
  """
  tree: Any = ocp.StandardCheckpointHandler().metadata(epath.Path(folder))
  flat = ocp.tree.to_flat_dict(tree.tree)
  saved = {path: leaf for path, leaf in flat.items() if leaf is not None}
  wanted = ocp.tree.to_flat_dict(like)
  for path in sorted(saved.keys() | wanted.keys()):
    _check(".".join(path), saved.get(path), wanted.get(path))
  if all(saved[path].dtype == leaf.dtype for path, leaf in wanted.items()):
    return None
  # One number for all of an array: only shape and type count.
  targets = {
    path: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape) for path, leaf in saved.items()
  }
  return ocp.tree.from_flat_dict(targets, like)


def _check(name: str, saved: Any, wanted: Any) -> None:
  found, expected = (
    "nothing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}" for leaf in (saved, wanted)
  )
  is_wider = (
    saved is not None
    and wanted is not None
    and saved.shape == wanted.shape
    and saved.dtype.kind == wanted.dtype.kind
    and saved.dtype.itemsize == 8
  )
  if found != expected and not is_wider:
    raise OtherTypesError(f"{name}: expected {expected}, found {found}")


def round_to(like: PyTree, restored: PyTree) -> PyTree:
  """Rounds NumPy arrays to the types of a pytree, and places them as it is placed."""
  return jax.tree.map(
    lambda leaf, array: jax.device_put(array.astype(leaf.dtype), leaf.sharding), like, restored
  )

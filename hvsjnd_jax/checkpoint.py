"""Checkpoints of a training run: Orbax behind four calls."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

PyTree = Any


class Checkpoints:
  """The checkpoints of one stage: the newest three, written in the background.

  A checkpoint holds named pytrees, which can be restored one without the other.

  Args:
    folder: Where they live; made if missing.
  """

  def __init__(self, folder: Path):
    # Orbax takes absolute paths only.
    self._manager = ocp.CheckpointManager(
      folder.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=3)
    )

  def latest_step(self) -> int | None:
    """The step of the newest checkpoint; None if there is none."""
    return self._manager.latest_step()

  def save(self, step: int, /, **items: PyTree) -> None:
    """Saves the named pytrees as of `step`."""
    saved = {name: ocp.args.StandardSave(item) for name, item in items.items()}
    self._manager.save(step, args=ocp.args.Composite(**saved))

  def restore(self, step: int, /, **like: PyTree) -> dict[str, PyTree]:
    """The named pytrees saved at `step`, in the structure and placement of those given."""
    wanted = {
      name: ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, item))
      for name, item in like.items()
    }
    restored = self._manager.restore(step, args=ocp.args.Composite(**wanted))
    return {name: restored[name] for name in like}

  def close(self) -> None:
    """Waits until everything is written."""
    self._manager.wait_until_finished()
    self._manager.close()

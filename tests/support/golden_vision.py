"""The golden files of the three models of vision: pairs of images, scores and gradients.

tests/goldens/README.md says what they hold.
"""

from collections import defaultdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike

_DATA = Path(__file__).parents[1] / "goldens"
IMAGES, SCORES, GRADS, STAGES = (
  dict(np.load(_DATA / f"vision_{name}.npz")) for name in ("images", "scores", "grads", "stages")
)
_ORDERED_NAMES = SCORES["names"].tolist()
_KEYS = {name: (distorted, reference) for name, reference, distorted in IMAGES["pairs"].tolist()}


def _sort_by_size() -> dict[str, list[str]]:
  sizes = defaultdict(list)
  for name, (_, reference) in _KEYS.items():
    h, w, _ = IMAGES[f"img/{reference}"].shape
    sizes[f"{h}x{w}"].append(name)
  return dict(sizes)


# Names of pairs: those of one size are one batch, compiled once.
BY_SIZE = _sort_by_size()


def read_pairs(names: list[str], dtype: DTypeLike) -> tuple[jax.Array, jax.Array]:
  """Reads the distorted images of pairs of one size, and their references."""
  distorted, reference = (
    np.stack([IMAGES[f"img/{_KEYS[name][i]}"] / 255 for name in names]).astype(dtype)
    for i in (0, 1)
  )
  return jnp.asarray(distorted), jnp.asarray(reference)


def read_scores(key: str, names: list[str]) -> np.ndarray:
  """Reads a score, such as "jod_4k", of each pair."""
  return SCORES[key][[_ORDERED_NAMES.index(name) for name in names]]

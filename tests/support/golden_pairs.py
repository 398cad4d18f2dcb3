"""The golden files' pairs of images, and what the published code gave for them."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import skimage.data

from hvsjnd_jax.data.images import read_image

DATA = Path(__file__).parents[1] / "goldens"

PAIRS: tuple[str, ...] = ("coffee_176_noise", "chelsea_256x384_jpeg", "astronaut_512_blur")


def read_pair(name: str) -> dict[str, np.ndarray]:
  """Reads the numbers of a pair, with `distorted` and `reference`, uint8 [H, W, 3]."""
  with np.load(DATA / f"metrics_{name}.npz") as file:
    arrays = dict(file)
  if "reference" not in arrays:
    arrays["distorted"] = read_image(DATA / f"metrics_{name}.png")
    arrays["reference"] = {
      "chelsea": lambda: skimage.data.chelsea()[20:276, 30:414],
      "astronaut": skimage.data.astronaut,
    }[name.partition("_")[0]]()
  return arrays


def to_images(golden: dict[str, np.ndarray]) -> tuple[jnp.ndarray, jnp.ndarray]:
  """Scales distorted and reference to float32 in [0, 1], [1, H, W, 3]."""
  distorted, reference = (golden[name][None] / 255 for name in ("distorted", "reference"))
  return jnp.asarray(distorted, jnp.float32), jnp.asarray(reference, jnp.float32)

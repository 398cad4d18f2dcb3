"""The contract for images, which every public function checks in the same words.

Images are NumPy or JAX arrays in [0, 1], [B, H, W, 3], RGB. They are float32 or float64;
float16 and bfloat16 pass as well where images are cast to the weights' precision (`estimate`,
`analyze`, `degrade`) or only added to (`inject`), but not where they are squared and
subtracted (metrics, baselines, `masking.threshold`), which would leave mostly rounding errors.

Types and shapes are always checked. Values are checked wherever they are known, which is not
under `jax.jit`, `jax.grad` or `jax.vmap`: they must be finite, and may lie 0.5 beyond [0, 1].
Filters and decoders overshoot by less, while images in 0..255 or -1..1 exceed it.

Functions here raise TypeError for a wrong type, and ValueError for a wrong shape or value.
The message says what was expected, what came, and what to do.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from hvsjnd_jax.ops.types import Images, RGBImagesLike

_OVERSHOOT = 0.5


def check_images(
  function: str, images: RGBImagesLike, *, smallest_px: int = 1, half: bool = False
) -> None:
  """Refuses what are not RGB images in [0, 1].

  Args:
    function: The public function's name, for the message.
    images: Whatever the user passed.
    smallest_px: The shortest side that the function accepts.
    half: Whether float16 and bfloat16 are accepted.
  """
  check_type(function, "images", images, half=half)
  check_rgb(function, images)
  check_sides(function, images, smallest_px=smallest_px)
  check_values(function, "images", images)


def check_type(function: str, name: str, images: Any, *, half: bool = False) -> None:
  """Refuses what is not an array of floats; `name` is the argument's, for the message."""
  wanted = "float" if half else "float32 or float64"
  expected = f"{function}: expected {wanted} images in [0, 1], got {name} of"
  if not isinstance(images, Array | np.ndarray):
    raise TypeError(f"{expected} type {type(images).__name__}; pass a NumPy or JAX array")
  if not jnp.issubdtype(images.dtype, jnp.floating):
    raise TypeError(f"{expected} {images.dtype}; divide 8-bit images by 255")
  if not half and images.dtype.itemsize < 4:
    raise TypeError(f"{expected} {images.dtype}; cast them to float32")


def check_rgb(function: str, images: RGBImagesLike) -> None:
  """Refuses other shapes than [B, H, W, 3]."""
  shape = images.shape
  if len(shape) != 4 or shape[-1] != 3:
    raise ValueError(
      f"{function}: expected RGB images [B, H, W, 3], got shape {shape}{advise_layout(shape)}"
    )


def check_sides(function: str, images: Images | RGBImagesLike, *, smallest_px: int) -> None:
  """Refuses no images at all, and images with a side below `smallest_px`."""
  b, h, w, _ = images.shape
  if b == 0:
    raise ValueError(f"{function}: expected at least one image, got none")
  if min(h, w) < smallest_px:
    raise ValueError(f"{function}: expected sides of at least {smallest_px} pixels, got {h}x{w}")


def check_values(function: str, name: str, images: Array | np.ndarray) -> None:
  """Refuses values that are not finite or are those of another range, where they are known."""
  low, high = check_finite(function, name, images)
  if low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT:
    return
  too_high = high > 1 + _OVERSHOOT
  advice = "divide 8-bit images by 255" if too_high else "scale values in -1..1 by (x + 1) / 2"
  raise ValueError(
    f"{function}: expected values in [0, 1], got {name} from {low:g} to {high:g}; {advice}"
  )


def check_finite(function: str, name: str, array: Array | np.ndarray) -> tuple[float, float]:
  """Refuses NaN and infinity, where values are known, and returns the least and the greatest."""
  if not array.size or isinstance(array, Tracer):
    return 0.0, 0.0
  low, high = _find_extremes(array)
  if not np.isfinite([low, high]).all():
    found = "NaN" if np.isnan(low) else "infinity"
    raise ValueError(
      f"{function}: expected finite values, got {name} with {found}; replace such values"
    )
  return low, high


def check_pixels(function: str, pixels: Any) -> None:
  """Refuses what is not one 8-bit image, [H, W, 3], on the host."""
  if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
    found = getattr(pixels, "dtype", type(pixels).__name__)
    raise TypeError(
      f"{function}: expected a NumPy array of uint8 pixels, got {found}; multiply floats in "
      "[0, 1] by 255 and round them"
    )
  if pixels.ndim != 3 or pixels.shape[-1] != 3:
    raise ValueError(f"{function}: expected RGB pixels [H, W, 3], got shape {pixels.shape}")


def is_channels_first(shape: tuple[int, ...]) -> bool:
  """Whether a shape looks like [C, H, W] or [B, C, H, W]."""
  return len(shape) in (3, 4) and shape[-3] in (1, 3) and shape[-1] not in (1, 3)


def advise_layout(shape: tuple[int, ...]) -> str:
  """Says how images of a wrong shape become [B, H, W, C]; "" where that is not known."""
  if is_channels_first(shape):
    return "; transpose to [B, H, W, C]"
  if len(shape) == 3:
    return "; add an axis for the batch: images[None]"
  if len(shape) == 4 and shape[-1] in (1, 4):
    return "; repeat a gray channel three times" if shape[-1] == 1 else "; drop the alpha channel"
  return ""


def _find_extremes(array: Array | np.ndarray) -> tuple[float, float]:
  """Finds the least and the greatest value; both are NaN where any value is."""
  if isinstance(array, np.ndarray) or _is_on_host(array):
    values = np.asarray(array)  # no copy, and no compile for each shape
    with np.errstate(invalid="ignore"):  # NumPy warns of NaN in float16
      return float(values.min()), float(values.max())
  with jax.ensure_compile_time_eval():  # a constant inside a function that is being traced
    low, high = _reduce(array)
    return float(low), float(high)


def _is_on_host(array: Array) -> bool:
  return array.is_fully_addressable and all(d.platform == "cpu" for d in array.devices())


@jax.jit
def _reduce(array: Array) -> tuple[Array, Array]:
  nan = jnp.where(jnp.isnan(array).any(), jnp.nan, 0)  # which XLA's minimum on a CPU passes over
  return array.min() + nan, array.max() + nan

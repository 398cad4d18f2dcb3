"""Every public function of images refuses the same inputs in the same words."""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hvsjnd_jax
from hvsjnd_jax.baselines import BASELINES
from hvsjnd_jax.metrics import METRICS
from hvsjnd_jax.metrics.backbones import VGG16
from hvsjnd_jax.model import windows
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.model.masking import threshold
from hvsjnd_jax.noise import draw_signs
from hvsjnd_jax.noise_scale import scale_to_psnr

SIDE_PX = 180  # enough for every metric
OF_MODEL = ("estimate", "analyze", "degrade", "windows.analyze")
NAMES = (*OF_MODEL, "inject", "threshold", *BASELINES, *METRICS)
# These cast images to the weights' precision, or only add to them.
TAKES_HALF = (*OF_MODEL, "inject")


@pytest.fixture(scope="module")
def functions(small_model: JNDModel, vgg16: VGG16) -> dict[str, Callable[[Any], Any]]:
  """Every public function of images, as a function of its images alone."""

  def inject(images: Any) -> Any:
    shape = getattr(images, "shape", (1, 8, 8, 3))
    signs = np.ones(shape[1:3], np.float32)
    return hvsjnd_jax.inject(images, np.zeros(shape, np.float32), signs)  # pyright: ignore[reportArgumentType]

  table: dict[str, Callable[[Any], Any]] = {
    name: functools.partial(getattr(hvsjnd_jax, name), small_model) for name in OF_MODEL[:3]
  }
  table["windows.analyze"] = functools.partial(windows.analyze, small_model, window=(256, 256))
  table |= {"inject": inject, "threshold": threshold}
  table |= {name: baseline.function for name, baseline in BASELINES.items()}
  for name, metric in METRICS.items():
    options = {"vgg16": vgg16} if metric.backbone else {}
    table[name] = lambda images, f=metric.function, options=options: f(images, images, **options)
  assert table.keys() == set(NAMES)
  return table


def said(name: str) -> str:
  """The function's name in its messages."""
  if name in METRICS:  # several entries of the table may be one function with other options
    function = METRICS[name].function
    name = getattr(function, "func", function).__name__
  return re.escape(name)


def draw(**changes: float) -> np.ndarray:
  """An image with one or two odd values, which stand in one place."""
  images = np.full((1, SIDE_PX, SIDE_PX, 3), 0.5, np.float32)
  images[0, 7, 9, : len(changes)] = list(changes.values())
  return images


IMAGES = draw()

VALUES = {
  "0..255": (
    draw(low=0, high=255),
    r"expected values in \[0, 1\], got (images|distorted) from 0 to 255; divide 8-bit images",
  ),
  "-1..1": (
    draw(low=-1, high=1),
    r"expected values in \[0, 1\], got (images|distorted) from -1 to 1; scale values in -1\.\.1 by",
  ),
  "NaN": (draw(nan=np.nan), r"expected finite values, got (images|distorted) with NaN; replace"),
  "infinity": (
    draw(high=np.inf),
    r"expected finite values, got (images|distorted) with infinity; replace",
  ),
  "minus infinity": (
    draw(low=-np.inf),
    r"expected finite values, got (images|distorted) with infinity; replace",
  ),
}

WANTED = r"expected (two images of one shape \[B, H, W, C\]|RGB images \[B, H, W, 3\]), got "

SHAPES = {
  "[3, H, W]": (IMAGES[0].transpose(2, 0, 1), r".*180.*; transpose to \[B, H, W, C\]"),
  "[B, 3, H, W]": (IMAGES.transpose(0, 3, 1, 2), r".*180.*; transpose to \[B, H, W, C\]"),
  "[H, W, 3]": (IMAGES[0], r".*180.*; add an axis for the batch: images\[None\]"),
  "[H, W]": (IMAGES[0, ..., 0], r".*\(180, 180\)"),
}

ANY_FLOAT = r"expected float(32 or float64)? images in \[0, 1\], got (images|distorted) of "

TYPES = {
  "uint8": (np.zeros((1, SIDE_PX, SIDE_PX, 3), np.uint8), "uint8; divide 8-bit images by 255"),
  "int64": (np.zeros((1, SIDE_PX, SIDE_PX, 3), np.int64), "int64; divide 8-bit images by 255"),
  "bool": (np.zeros((1, SIDE_PX, SIDE_PX, 3), bool), "bool; divide 8-bit images by 255"),
  "list": ([[[[0.5] * 3] * 8] * 8], "type list; pass a NumPy or JAX array"),
  "number": (0.5, "type float; pass a NumPy or JAX array"),
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("name", NAMES)
def test_values(functions: dict[str, Callable[[Any], Any]], name: str, kind: str):
  images, message = VALUES[kind]
  for array in (images, jnp.asarray(images)):
    with pytest.raises(ValueError, match=f"^{said(name)}: {message}"):
      functions[name](array)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_shapes(functions: dict[str, Callable[[Any], Any]], name: str, kind: str):
  images, message = SHAPES[kind]
  with pytest.raises(ValueError, match=f"^{said(name)}: {WANTED}{message}"):
    functions[name](images)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", NAMES)
def test_types(functions: dict[str, Callable[[Any], Any]], name: str, kind: str):
  images, message = TYPES[kind]
  if (name, kind) == ("windows.analyze", "uint8"):
    assert functions[name](images).jnd.shape == images.shape  # whose contract has bytes as well
    return
  with pytest.raises(TypeError, match=f"^{said(name)}: {ANY_FLOAT}{message}"):
    functions[name](images)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision(functions: dict[str, Callable[[Any], Any]], name: str, dtype: type):
  if name in TAKES_HALF:
    functions[name](np.full((1, 16, 16, 3), 0.5, dtype))
    return
  with pytest.raises(
    TypeError, match=rf"^{said(name)}: {ANY_FLOAT}b?float16; cast them to float32"
  ):
    functions[name](IMAGES.astype(dtype))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in METRICS])
def test_overshoot_passes(functions: dict[str, Callable[[Any], Any]], name: str):
  images = np.linspace(-0.49, 1.49, 768, dtype=np.float32).reshape(1, 16, 16, 3)
  assert_finite(functions[name](images))
  # A patch below 0, whose means are below it, too.
  images = np.full((1, 16, 16, 3), 0.5, np.float32)
  images[:, :8, :8] = -0.1
  assert_finite(functions[name](images))


def assert_finite(result: Any) -> None:
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))


@pytest.mark.parametrize("name", NAMES)
def test_no_image_is_refused(functions: dict[str, Callable[[Any], Any]], name: str):
  with pytest.raises(ValueError, match=f"^{said(name)}: expected at least one image, got none"):
    functions[name](IMAGES[:0])


@pytest.mark.parametrize("name", NAMES)
def test_traced_functions_check_types_and_shapes(
  functions: dict[str, Callable[[Any], Any]], name: str
):
  if name == "windows.analyze":
    with pytest.raises(ValueError, match=r"^windows\.analyze: expected no window under jax\.jit"):
      jax.eval_shape(functions[name], IMAGES)
    return
  jax.eval_shape(functions[name], draw(nan=np.nan))
  with pytest.raises(ValueError, match=f"^{said(name)}: {WANTED}"):
    jax.eval_shape(functions[name], IMAGES.transpose(0, 3, 1, 2))
  with pytest.raises(TypeError, match=f"^{said(name)}: {ANY_FLOAT}uint8"):
    jax.eval_shape(functions[name], TYPES["uint8"][0])


def test_constants_inside_traced_functions_are_checked():
  spoilt = jnp.asarray(draw(nan=np.nan))
  with pytest.raises(ValueError, match=r"^psnr: expected finite values, got reference with NaN"):
    jax.eval_shape(lambda images: METRICS["psnr"].function(images, spoilt), IMAGES)


def test_maps_are_checked_too():
  signs = np.ones((8, 8), np.float32)
  images, spoilt = (np.full((1, 8, 8, 3), value, np.float32) for value in (0.5, np.nan))
  with pytest.raises(ValueError, match=r"^inject: expected finite values, got jnd with NaN"):
    hvsjnd_jax.inject(images, spoilt, signs)
  with pytest.raises(TypeError, match=r"^inject: expected float images .*got jnd of uint8"):
    hvsjnd_jax.inject(images, images.astype(np.uint8), signs)


@pytest.mark.parametrize(
  ("pixels", "error", "message"),
  [
    (np.zeros((8, 8, 3), np.float32), TypeError, "uint8 pixels, got float32; multiply floats"),
    ([[[0, 0, 0]]], TypeError, "uint8 pixels, got list; multiply"),
    (np.zeros((8, 8), np.uint8), ValueError, r"RGB pixels \[H, W, 3\], got shape \(8, 8\)"),
    (np.zeros((3, 8, 8), np.uint8), ValueError, r"RGB pixels \[H, W, 3\], got shape \(3, 8, 8\)"),
  ],
  ids=["float", "list", "gray", "channels first"],
)
def test_pixels(pixels: Any, error: type[Exception], message: str):
  jnd, signs = np.ones((8, 8, 3)), np.ones((8, 8))
  with pytest.raises(error, match=f"^draw_signs: expected .*{message}"):
    draw_signs(pixels, seed=0)
  with pytest.raises(error, match=f"^scale_to_psnr: expected .*{message}"):
    scale_to_psnr(pixels, jnd, signs, psnr_db=30, by_channel=False)


def test_accelerators_find_the_same_extremes(monkeypatch: pytest.MonkeyPatch):
  """Where arrays are not on the host, one compiled reduction finds the values."""
  monkeypatch.setattr("hvsjnd_jax.ops.checks._is_on_host", lambda array: False)
  for images, message in VALUES.values():
    with pytest.raises(ValueError, match=f"^threshold: {message}"):
      threshold(jnp.asarray(images))
  threshold(jnp.asarray(IMAGES))

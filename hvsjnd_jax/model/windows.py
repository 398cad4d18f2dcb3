"""Computes JND maps of images of any size through windows of one fixed shape.

So all sizes share one compile, and device memory does not grow with the image. Both networks
are convolutional and see a bounded number of pixels; only sums, minima and maxima are global.
An image is computed window by window in two passes: first the priors, whose statistics are
gathered on the way, then the map. Windows overlap by the reach of the networks, and one that
extends past the end of its image is given the image's extent. The result is that of the whole
image, to float32 rounding.

Images are NHWC, RGB, uint8, uint16 or float in [0, 1]. They and all results are NumPy arrays on the
host, and nothing else is as large as an image.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from hvsjnd_jax.model import generator, tiling
from hvsjnd_jax.model.correction import CorrectionNetwork
from hvsjnd_jax.model.extents import Extent
from hvsjnd_jax.model.generator import JNDGenerator
from hvsjnd_jax.model.hvs_sd import HVSSD, STRIDE
from hvsjnd_jax.model.jnd_map import Resolution, draw_jnd, enlarge_as_published
from hvsjnd_jax.model.jnd_model import MIN_SIDE_PX, JNDModel
from hvsjnd_jax.model.priors import (
  AttentionLayer,
  Priors,
  draw_attention,
  forward_backward,
  normalize,
)
from hvsjnd_jax.model.tiling import Tile
from hvsjnd_jax.ops.checks import check_images, check_rgb, check_sides
from hvsjnd_jax.ops.types import HostImages
from hvsjnd_jax.runtime.jobs import Inputs, Job, Sweep, run_job, run_jobs
from hvsjnd_jax.runtime.memory import find_memory_limit

# How far a pixel of the input gradient sees: 14 pixels through each of encoder and decoder,
# forward and back. In multiples of 8, as every window starts at a cell of the feature.
PRIORS_REACH_PX = 56

# How far a pixel of the JND map sees: 14 pixels through six convolutions and 6 through the
# resizing, or 17 through the correction network and 2 through the masking threshold.
MAP_REACH_PX = 24

# Planned sides are multiples of this: the fewer shapes there are, the more often one has been
# compiled before.
_SIDE_STEP_PX = 64

# The largest planned window where it shares the host's memory.
_HOST_PIXELS = 2**20

# An accelerator computes windows of so many pixels at a time, as one small window would leave it
# idle. No accelerator was at hand to measure this.
_PIXELS_AT_ONCE = 2**21

# A window is reported as wasteful if it computes more than so many times the pixels of the best.
_MOST_WASTE = 2

# Memory for a pixel of a window; 1000 was measured on a CPU.
BYTES_PER_PIXEL = 1200


class Window(NamedTuple):
  """The sides of a window in pixels, multiples of 8."""

  height: int
  width: int


class HostPriors(NamedTuple):
  """Priors as in `Priors`, on the host."""

  degraded: Float[np.ndarray, "b h w 3"]
  attention: Float[np.ndarray, "b h w 1"]
  gradient: Float[np.ndarray, "b h w 3"]


class Maps(NamedTuple):
  """JND maps and priors as in `Analysis`, on the host."""

  jnd: Float[np.ndarray, "b h w 3"]
  priors: HostPriors | None


def plan_window(sizes: Sequence[tuple[int, int]], *, max_pixels: int | None = None) -> Window:
  """Finds the window that computes images of these sizes with the fewest pixels.

  Args:
    sizes: Height and width of each image.
    max_pixels: Limit on the size of a window. None means what half of the device's memory
      holds, and on a CPU no more than a million pixels (1 GB).

  Returns:
    Height and width, multiples of 64, the height no more than the width.

  Raises:
    ValueError: If there are no sizes, or `max_pixels` holds no window of 128x128.

  Examples:
    >>> plan_window([(480, 700), (700, 480)], max_pixels=2**20)
    Window(height=512, width=704)
  """
  if np.ndim(sizes) != 2:
    raise ValueError(f"plan_window: expected a list of (height, width), got {sizes}")
  limit = _count_pixels() if max_pixels is None else max_pixels
  least = 2 * _SIDE_STEP_PX  # more than the overlap with two neighbours
  if limit < least**2:
    raise ValueError(f"plan_window: expected max_pixels of at least {least**2}, got {limit}")
  # An upright image is turned to fit a wide window: see `analyze`.
  heights, widths = np.sort(np.asarray(sizes), axis=1).T
  largest = min(limit // least, _SIDE_STEP_PX * math.ceil(int(widths.max()) / _SIDE_STEP_PX))
  sides = np.arange(least, max(largest, least) + 1, _SIDE_STEP_PX)
  rows, columns = (
    np.stack([_count_windows(lengths, side) for side in sides.tolist()])
    for lengths in (heights, widths)
  )
  area = np.outer(sides, sides).astype(np.float64)
  area[(area > limit) | (sides[:, None] > sides)] = np.inf
  best = np.argmin(rows @ columns.T * area)
  return Window(*(int(sides[i]) for i in np.unravel_index(best, area.shape)))


def count_pixels(sizes: Sequence[tuple[int, int]], window: tuple[int, int]) -> int:
  """Counts the pixels that are computed for images of these sizes through a window.

  Examples:
    >>> count_pixels([(480, 700), (700, 480)], (512, 704)) == 2 * 512 * 704
    True
  """
  lengths = np.sort(np.asarray(sizes), axis=1).T
  short, long = (_count_windows(*args) for args in zip(lengths, sorted(window), strict=True))
  return int((short * long).sum()) * math.prod(window)


def judge_window(sizes: Sequence[tuple[int, int]], window: tuple[int, int]) -> str:
  """Says by how much another window is better, if this one computes more than twice its pixels.

  Returns:
    A sentence without its subject, the window; "" for a good one.

  Examples:
    >>> judge_window([(480, 700)], (512, 704))
    ''
    >>> judge_window([(480, 700)], (128, 128))
    'computes 38.7 times the pixels of 512x704'
  """
  best = plan_window(sizes)
  waste = count_pixels(sizes, window) / max(count_pixels(sizes, best), 1)
  if waste <= _MOST_WASTE:
    return ""
  return f"computes {waste:.1f} times the pixels of {best.height}x{best.width}"


def _count_windows(lengths: np.ndarray, side: int) -> np.ndarray:
  overlap = 2 * PRIORS_REACH_PX
  return np.maximum(1, -(-(lengths - overlap) // (side - overlap)))


def _count_pixels() -> int:
  devices = jax.local_devices()
  memory = None if devices[0].platform == "cpu" else devices[0].memory_stats()
  if memory is None:  # the devices share the host's memory, or do not tell how much they have
    pixels = min(_HOST_PIXELS, find_memory_limit().size // (2 * BYTES_PER_PIXEL))
    return max(pixels // len(devices), (2 * _SIDE_STEP_PX) ** 2)
  return memory["bytes_limit"] // (2 * BYTES_PER_PIXEL)


def count_at_once(window: tuple[int, int]) -> int:
  """Counts the windows that a device computes at a time, where many images are computed.

  On a CPU it is one; on other devices, as many as two million pixels hold, and half the memory.
  """
  if jax.default_backend() == "cpu":
    return 1
  return max(1, min(_PIXELS_AT_ONCE, _count_pixels()) // math.prod(window))


def check_window(window: tuple[int, int]) -> Window:
  """Refuses a window with sides that cannot be used, and returns any other.

  Raises:
    ValueError: If it is not a height and a width, whole multiples of 8 above 112.
  """
  sides = np.asarray(window)
  least = 2 * PRIORS_REACH_PX
  if sides.shape != (2,) or (sides % STRIDE).any() or sides.min() <= least:
    raise ValueError(
      f"expected a window (height, width) of multiples of {STRIDE} above {least}, got {window}"
    )
  return Window(*map(int, sides))


def analyze(
  model: JNDModel,
  images: HostImages,
  *,
  window: tuple[int, int],
  resolution: Resolution | None = None,
  attention_layer: AttentionLayer | None = None,
) -> Maps:
  """Estimates JND maps and their priors, as `hvsjnd_jax.analyze`, through windows.

  Args:
    model: What `hvsjnd_jax.load` returned.
    images: Images of uint8 or uint16, or of floats in [0, 1], [B, H, W, 3], H and W at least 8.
    window: Height and width, multiples of 8 above 112; `plan_window` finds good ones. Where
      one of image and window is upright and the other is not, the image is turned, and the
      kernels with it, so that photographs of both kinds share a shape.
    resolution: As `hvsjnd_jax.estimate`.
    attention_layer: As `hvsjnd_jax.estimate`.

  Returns:
    The maps and the priors, NumPy arrays, float32 as the weights.

  Raises:
    TypeError, ValueError: As `hvsjnd_jax.estimate`, but that images of 8 and 16 bits pass.

  Examples:
    >>> images = np.zeros((1, 16, 24, 3), np.uint8)
    >>> analyze(hvsjnd_jax.load(), images, window=(128, 128)).jnd.shape
    (1, 16, 24, 3)
  """
  analyzer = Analyzer(model, window, resolution, attention_layer)
  return run_job(analyzer.start(images))


def analyze_each(
  model: JNDModel,
  batches: Iterable[HostImages],
  *,
  window: tuple[int, int],
  resolution: Resolution | None = None,
  attention_layer: AttentionLayer | None = None,
) -> Iterator[Maps]:
  """Estimates the maps of many batches of images, of any sizes, as `analyze`.

  Windows of several batches are computed at a time, where there are several devices or an
  accelerator. So batches of images are drawn ahead of their results, but no more than have sixteen
  times the windows that are computed at a time.

  Args:
    model: As `analyze`.
    batches: Batches as those of `analyze`, often of one image.
    window: As `analyze`.
    resolution: As `analyze`.
    attention_layer: As `analyze`.

  Yields:
    What `analyze` returns for each batch, in their order.

  Raises:
    TypeError, ValueError: As `analyze`.

  Examples:
    >>> batches = (np.zeros((1, height, 24, 3), np.uint8) for height in (16, 40))
    >>> maps = analyze_each(hvsjnd_jax.load(), batches, window=(128, 128))
    >>> [batch.jnd.shape for batch in maps]
    [(1, 16, 24, 3), (1, 40, 24, 3)]
  """
  analyzer = Analyzer(model, window, resolution, attention_layer)
  return run_jobs(map(analyzer.start, batches), parts_per_device=count_at_once(window))


class Analyzer:
  """Estimates maps as `analyze`, in jobs whose windows share batches (`runtime.jobs`)."""

  def __init__(
    self,
    model: JNDModel,
    window: tuple[int, int],
    resolution: Resolution | None = None,
    attention_layer: AttentionLayer | None = None,
  ):
    self._model, self._options = model, model.choose_options(resolution, attention_layer)
    self._window = check_window(window)
    self._passes = _Passes(model, self._window, *self._options)

  def start(self, images: HostImages) -> Job[Maps]:
    """Starts the job of a batch of images."""
    if isinstance(images, jax.Array) and not isinstance(images, Tracer):
      images = np.asarray(images)  # on a device, checking would compile for every size
    _check(images)
    images = np.asarray(images)
    _, height, width, _ = images.shape
    if (height - width) * (self._window.height - self._window.width) >= 0:
      return (yield from self._passes.start(images))
    turned = yield from self._turned_passes.start(images.swapaxes(1, 2))
    return jax.tree.map(lambda maps: maps.swapaxes(1, 2), turned)

  @functools.cached_property
  def _turned_passes(self) -> "_Passes":
    return _Passes(jax.tree.map(_turn_kernel, self._model), self._window, *self._options)


def _check(images: HostImages) -> None:
  if isinstance(images, Tracer):
    raise ValueError(
      "windows.analyze: expected no window under jax.jit, jax.grad or jax.vmap; compute the "
      "images whole"
    )
  if getattr(images, "dtype", None) in (np.uint8, np.uint16):
    check_rgb("windows.analyze", images)
    check_sides("windows.analyze", images, smallest_px=MIN_SIDE_PX)
  else:
    check_images("windows.analyze", images, smallest_px=MIN_SIDE_PX, half=True)


def _turn_kernel(parameter: Array) -> Array:
  return parameter.swapaxes(0, 1) if parameter.ndim == 4 else parameter


class _Passes:
  """The two passes over images that lie as the window does."""

  def __init__(
    self,
    model: JNDModel,
    window: Window,
    resolution: Resolution,
    attention_layer: AttentionLayer,
  ):
    self._window, self._resolution = window, resolution
    self._attention_layer: AttentionLayer = attention_layer
    self._hvs_sd, self._dtype = model.hvs_sd, model.param_dtype
    # The jobs of all images share these two, and so their batches.
    self._pass = functools.partial(_pass, model.hvs_sd, attention_layer=attention_layer)
    self._draw = functools.partial(_draw, model.generator, resolution=resolution)

  def start(self, images: np.ndarray) -> Job[Maps]:
    """Computes the priors, if the model has HVS-SD, and then the maps."""
    priors = None
    if self._hvs_sd is not None:
      priors = yield from self._compute_priors(self._hvs_sd.channels, images)
    return Maps((yield from self._draw_maps(images, priors)), priors)

  def _compute_priors(self, feature_channels: int, images: np.ndarray) -> Job[HostPriors]:
    b, h, w, _ = images.shape
    dtype, attention_layer = self._dtype, self._attention_layer
    degraded, gradient = np.empty(images.shape, dtype), np.empty(images.shape, dtype)
    stride, channels, activation = 1, 3, degraded
    if attention_layer == "feature":
      stride, channels = STRIDE, feature_channels
      activation = np.empty((b, -(-h // stride), -(-w // stride), channels), dtype)
    cotangents = np.zeros((b, 1, 1, channels))  # the sum over each image

    def keep(tile: Tile, passed: tuple[np.ndarray, ...]) -> None:
      part, part_gradient, part_activation, cotangent = passed
      degraded[tile.place] = part[tile.inner]
      gradient[tile.place] = part_gradient[tile.inner]
      small = tile.scale_down(stride)
      activation[small.place] = part_activation[small.inner]
      cotangents[tile.image] += cotangent[small.inner].sum(axis=(0, 1), dtype=np.float64)

    load = functools.partial(self._load_padded, images)
    tiles = tiling.cover(images.shape, self._window, PRIORS_REACH_PX)
    yield Sweep(self._pass, load, keep, tiles)

    weights = (cotangents / math.prod(activation.shape[1:3])).astype(dtype)
    attention = np.empty((b, h, w, 1), dtype)
    for i in range(b):
      attention[i] = draw_attention(
        activation[i], weights[i], size=(h, w), attention_layer=attention_layer
      )
      normalize(gradient[i])  # in place
    return HostPriors(degraded, attention, gradient)

  def _load_padded(self, images: np.ndarray, tile: Tile) -> Inputs:
    """Loads a part padded to multiples of 8, its valid and its padded size, the image's pixels."""
    part = tiling.read(images, tile, self._window, self._dtype)
    valid_size = part.shape[:2]
    margins = (*((0, -side % STRIDE) for side in valid_size), (0, 0))
    part = np.pad(part, margins, mode="reflect")
    sizes = (np.asarray(size, np.int32) for size in (valid_size, part.shape[:2]))
    pixels = np.asarray(math.prod(images.shape[1:3]), self._dtype)
    return tiling.fill(part, self._window), *sizes, pixels

  def _draw_maps(self, images: np.ndarray, priors: HostPriors | None) -> Job[np.ndarray]:
    b, h, w, _ = images.shape
    # The "reference" map is enlarged as a whole, when all of it is drawn.
    stride = generator.STRIDE if self._resolution == "reference" else 1
    maps = np.empty((b, -(-h // stride), -(-w // stride), 3), self._dtype)

    def load(tile: Tile) -> Inputs:
      sources = (images, *(priors or ()))
      parts = [tiling.read(source, tile, self._window, self._dtype) for source in sources]
      extent = np.asarray(parts[0].shape[:2], np.int32)
      return extent, *(tiling.fill(part, self._window) for part in parts)

    def keep(tile: Tile, drawn: np.ndarray) -> None:
      small = tile.scale_down(stride)
      maps[small.place] = drawn[small.inner]

    yield Sweep(self._draw, load, keep, tiling.cover(images.shape, self._window, MAP_REACH_PX))
    if self._resolution != "reference":
      return maps
    jnd = np.empty(images.shape, maps.dtype)
    for i in range(b):
      jnd[i] = enlarge_as_published(maps[i], (h, w))
    return jnd


@functools.partial(jax.jit, static_argnames="attention_layer")
def _pass(
  hvs_sd: HVSSD,
  parts: Array,
  valid_size: Extent,
  extent: Extent,
  pixels: Array,
  *,
  attention_layer: AttentionLayer,
) -> tuple[Array, Array, Array, Array]:
  """Computes degraded parts, their gradients, and activations with their cotangents."""
  pixels = pixels[:, None, None, None]
  passed = forward_backward(hvs_sd, parts, valid_size, pixels=pixels, extent=extent)
  return passed.degraded, passed.gradient, *passed.read(attention_layer)


@functools.partial(jax.jit, static_argnames="resolution")
def _draw(
  network: JNDGenerator | CorrectionNetwork,
  extent: Extent,
  images: Array,
  *maps: Array,
  resolution: Resolution,
) -> Array:
  priors = Priors(*maps) if maps else None
  if resolution == "reference":
    assert isinstance(network, JNDGenerator)
    assert priors is not None
    return network(images, priors.attention, priors.gradient, extent=extent)
  return draw_jnd(network, images, priors, resolution=resolution, extent=extent)

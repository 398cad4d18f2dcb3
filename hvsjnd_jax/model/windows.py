"""Images of any size through windows of one: one compile, and memory that does not grow.

Both networks are convolutional, and reach a bounded number of pixels; only sums, minima and
maxima are global. So an image is computed window by window, in two passes: the priors, whose
statistics are gathered on the way, then the map. A window overlaps its neighbours by the
networks' reach and keeps its inner part; one that reaches past the image's end is told where
that is. The result is that of the whole image, to float32 rounding.

Images are NHWC, RGB, uint8 or float in [0, 1]; they, and all results, are NumPy arrays on
the host, where they are the only things of an image's size. Windows are split among the
devices of this process.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from hvsjnd_jax.model.generator import REFERENCE_SIZES, JNDGenerator, Resolution
from hvsjnd_jax.model.hvs_sd import HVSSD, STRIDE
from hvsjnd_jax.model.layers import Extent
from hvsjnd_jax.model.priors import AttentionLayer, trace
from hvsjnd_jax.runtime.sharding import make_mesh, shard_batch

# How far a pixel of the input gradient sees: 14 pixels through each of encoder and decoder,
# forth and back. In multiples of 8, as all windows start at a cell of the feature.
PRIORS_REACH_PX = 56

# How far one of the JND map sees: 14 pixels through six convolutions, 6 through the resizing.
MAP_REACH_PX = 24

# Sides are multiples of this: the fewer shapes, the more often one has been compiled before.
_SIDE_STEP_PX = 64

# Where the window's memory is the host's.
_HOST_PIXELS = 2**20

# Measured on a CPU, of a window's pixel: 1000.
_BYTES_PER_PIXEL = 1200

Images = UInt8[np.ndarray, "b h w 3"] | Float[np.ndarray, "b h w 3"]


class Window(NamedTuple):
  """Sides of a window in pixels, multiples of 8."""

  height: int
  width: int


class Maps(NamedTuple):
  """JND maps and priors, as `estimator.Analysis` holds them, on the host."""

  jnd: Float[np.ndarray, "b h w 3"]
  degraded: Float[np.ndarray, "b h w 3"]
  attention: Float[np.ndarray, "b h w 1"]
  gradient: Float[np.ndarray, "b h w 3"]


def plan_window(sizes: Sequence[tuple[int, int]], *, max_pixels: int | None = None) -> Window:
  """The window that computes images of these sizes with the fewest pixels.

  Args:
    sizes: Height and width of each image.
    max_pixels: How large a window may be. None: a million pixels on a CPU (1 GB), on
      other devices what half their memory holds.

  Returns:
    Height and width, multiples of 64, the height no more than the width.

  Raises:
    ValueError: If `max_pixels` holds no window of 128x128.

  Examples:
    >>> plan_window([(480, 700), (700, 480)], max_pixels=2**20)
    Window(height=512, width=704)
  """
  limit = _count_pixels() if max_pixels is None else max_pixels
  least = 2 * _SIDE_STEP_PX  # more than the overlap with two neighbours
  if limit < least**2:
    raise ValueError(f"plan_window: expected max_pixels of at least {least**2}, got {limit}")
  # An image that is upright in a lying window is turned: see `analyze`.
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


def _count_windows(lengths: np.ndarray, side: int) -> np.ndarray:
  overlap = 2 * PRIORS_REACH_PX
  return np.maximum(1, -(-(lengths - overlap) // (side - overlap)))


def _count_pixels() -> int:
  devices = jax.local_devices()
  memory = None if devices[0].platform == "cpu" else devices[0].memory_stats()
  if memory is None:  # the host's, which they share; or a device that does not tell
    return _HOST_PIXELS // len(devices)
  return memory["bytes_limit"] // (2 * _BYTES_PER_PIXEL)


def check_window(window: tuple[int, int]) -> Window:
  """The window, if it can be one.

  Raises:
    ValueError: If a side is no multiple of 8 above 112.
  """
  height, width = window
  least = 2 * PRIORS_REACH_PX
  if height % STRIDE or width % STRIDE or min(window) <= least:
    raise ValueError(
      f"window: expected sides that are multiples of {STRIDE} above {least}, got {height}x{width}"
    )
  return Window(height, width)


def analyze(
  hvs_sd: HVSSD,
  generator: JNDGenerator,
  images: Images,
  *,
  window: tuple[int, int],
  resolution: Resolution,
  attention: AttentionLayer,
) -> Maps:
  """The JND maps and their priors, as `estimator.analyze` gives them.

  Args:
    hvs_sd: The signal-degradation network.
    generator: The JND generator.
    images: [B, H, W, 3], H and W at least 8.
    window: Height and width, multiples of 8 above 112. Where image and window lie
      crosswise, one upright and one not, the image is turned, and the kernels with it:
      photographs of both kinds share a shape.
    resolution: As `estimate`.
    attention: As `estimate`.

  Returns:
    The maps and the priors, NumPy arrays, float32 as the weights.

  Raises:
    ValueError: If the window has other sides.

  Examples:
    >>> model = hvsjnd_jax.load()
    >>> images = np.zeros((1, 16, 24, 3), np.uint8)
    >>> options = {"resolution": "native", "attention": "reconstruction"}
    >>> analyze(model.hvs_sd, model.generator, images, window=(128, 128), **options).jnd.shape
    (1, 16, 24, 3)
  """
  sides = check_window(window)
  _, height, width, _ = images.shape
  if (height - width) * (sides.height - sides.width) < 0:
    hvs_sd, generator = jax.tree.map(_turn_kernel, (hvs_sd, generator))
    turned = analyze(
      hvs_sd,
      generator,
      images.swapaxes(1, 2),
      window=sides,
      resolution=resolution,
      attention=attention,
    )
    return Maps(*(maps.swapaxes(1, 2) for maps in turned))
  degraded, attentions, gradient = _compute_priors(hvs_sd, images, sides, attention)
  jnd = _draw_maps(generator, (images, attentions, gradient), sides, resolution)
  return Maps(jnd, degraded, attentions, gradient)


def _turn_kernel(parameter: Array) -> Array:
  return parameter.swapaxes(0, 1) if parameter.ndim == 4 else parameter


def _compute_priors(
  hvs_sd: HVSSD, images: Images, window: Window, attention: AttentionLayer
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Degraded image, attention map and input gradient."""
  b, h, w, _ = images.shape
  dtype = hvs_sd.encoder.conv1.kernel[...].dtype
  degraded, gradient = np.empty(images.shape, dtype), np.empty(images.shape, dtype)
  # What attention is read off, and the sum of its pull by channel.
  stride, channels, activation = 1, 3, degraded
  if attention == "feature":
    stride, channels = STRIDE, hvs_sd.channels
    activation = np.empty((b, -(-h // stride), -(-w // stride), channels), dtype)
  pulls = np.zeros((b, channels))

  def load(tile: _Tile) -> tuple[np.ndarray, ...]:
    part = _read(images, tile, window, dtype)
    own = part.shape[:2]
    part = np.pad(part, (*((0, -side % STRIDE) for side in own), (0, 0)), mode="reflect")
    return _fill(part, window), *(np.asarray(size, np.int32) for size in (own, part.shape[:2]))

  def run(parts: Array, own: Array, extent: Array) -> _Seen:
    return _trace(hvs_sd, parts, own, extent, np.asarray(h * w, dtype), attention=attention)

  for tile, seen in _sweep(run, load, _tile(images, window, PRIORS_REACH_PX)):
    degraded[tile.place] = seen.degraded[tile.inner]
    gradient[tile.place] = seen.gradient[tile.inner]
    place, inner = tile.shrink(stride)
    activation[place] = seen.activation[inner]
    pulls[tile.image] += seen.pull[inner].sum(axis=(0, 1), dtype=np.float64)

  weights = (pulls / math.prod(activation.shape[1:3])).astype(dtype)
  attentions = np.empty((b, h, w, 1), dtype)
  for i in range(b):
    cam = np.abs(activation[i] @ weights[i])
    if attention == "feature":
      cam = _resize(cam, (STRIDE * cam.shape[0], STRIDE * cam.shape[1]))
    attentions[i, ..., 0] = cam[:h, :w]
    for maps in (attentions[i], gradient[i]):
      maps -= maps.min()
      maps /= maps.max() or 1
  return degraded, attentions, gradient


class _Seen(NamedTuple):
  degraded: Array
  gradient: Array
  activation: Array
  pull: Array


@functools.partial(jax.jit, static_argnames="attention")
def _trace(
  hvs_sd: HVSSD,
  parts: Array,
  own: Extent,
  extent: Extent,
  pixels: Array,
  *,
  attention: AttentionLayer,
) -> _Seen:
  seen = trace(hvs_sd, parts, own, pixels=pixels, extent=extent)
  if attention == "feature":
    return _Seen(seen.degraded, seen.gradient, seen.feature, seen.feature_pull)
  return _Seen(seen.degraded, seen.gradient, seen.degraded, seen.pull)


def _draw_maps(
  generator: JNDGenerator,
  sources: tuple[Images, np.ndarray, np.ndarray],
  window: Window,
  resolution: Resolution,
) -> np.ndarray:
  """The maps that the generator draws from images, attention maps and input gradients."""
  images, _, gradient = sources
  b, h, w, _ = images.shape
  dtype = gradient.dtype
  # "reference" sees the whole map, at a quarter of the size, before it is resized.
  stride = 4 if resolution == "reference" else 1
  maps = np.empty((b, -(-h // stride), -(-w // stride), 3), dtype)

  def load(tile: _Tile) -> tuple[np.ndarray, ...]:
    parts = [_read(source, tile, window, dtype) for source in sources]
    extent = np.asarray(parts[0].shape[:2], np.int32)
    return *(_fill(part, window) for part in parts), extent

  def run(*arrays: Array) -> Array:
    return _draw(generator, *arrays, resolution=resolution)

  for tile, drawn in _sweep(run, load, _tile(images, window, MAP_REACH_PX)):
    place, inner = tile.shrink(stride)
    maps[place] = drawn[inner]
  if resolution != "reference":
    return maps
  jnd = np.empty(images.shape, dtype)
  for i, resized in enumerate(maps):
    for size in (*REFERENCE_SIZES, (h, w)):
      resized = _resize(resized, size)
    jnd[i] = np.clip(np.abs(resized), 0, 1)
  return jnd


@functools.partial(jax.jit, static_argnames="resolution")
def _draw(
  generator: JNDGenerator,
  images: Array,
  attention: Array,
  gradient: Array,
  extent: Extent,
  *,
  resolution: Resolution,
) -> Array:
  if resolution == "reference":
    return generator.draw_quarter(images, attention, gradient, extent=extent)
  return generator(images, attention, gradient, resolution=resolution, extent=extent)


def _resize(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """As `jax.image.resize`, bilinear and without antialiasing; on the host: no compile."""
  import scipy.ndimage  # a sixth of the start-up, for what the default weights do not need

  zoom = [new / old for new, old in zip(size, maps.shape, strict=False)] + [1] * (maps.ndim - 2)
  return np.asarray(scipy.ndimage.zoom(maps, zoom, order=1, mode="nearest", grid_mode=True))


class _Tile(NamedTuple):
  """A window's place over an image, and the part of it that is kept."""

  image: int
  top: int
  left: int
  rows: slice  # of the image
  columns: slice

  @property
  def place(self) -> tuple[int, slice, slice]:
    """What is kept, in the image."""
    return self.image, self.rows, self.columns

  @property
  def inner(self) -> tuple[slice, slice]:
    """What is kept, in the window."""
    return _move(self.rows, self.top), _move(self.columns, self.left)

  def shrink(self, stride: int) -> tuple[tuple[int, slice, slice], tuple[slice, slice]]:
    """`place` and `inner` in maps that are smaller by `stride`, sides rounded up."""
    rows, columns = (slice(s.start // stride, -(-s.stop // stride)) for s in self[3:])
    small = _Tile(self.image, self.top // stride, self.left // stride, rows, columns)
    return small.place, small.inner


def _move(part: slice, origin: int) -> slice:
  return slice(part.start - origin, part.stop - origin)


def _tile(images: Images, window: Window, reach: int) -> Iterator[_Tile]:
  b, h, w, _ = images.shape
  for image in range(b):
    for top, rows in _cover(h, window.height, reach):
      for left, columns in _cover(w, window.width, reach):
        yield _Tile(image, top, left, rows, columns)


def _cover(length: int, side: int, reach: int) -> Iterator[tuple[int, slice]]:
  """Where windows begin along one axis, and what each of them keeps of it."""
  for start in range(0, length, side - 2 * reach):
    last = start + side >= length
    yield start, slice(start + reach if start else 0, length if last else start + side - reach)
    if last:
      return


def _read(source: np.ndarray, tile: _Tile, window: Window, dtype: np.dtype) -> np.ndarray:
  """What the window sees of the source; 8-bit values over 255."""
  part = source[
    tile.image, tile.top : tile.top + window.height, tile.left : tile.left + window.width
  ]
  return part.astype(dtype) / 255 if part.dtype == np.uint8 else part.astype(dtype)


def _fill(part: np.ndarray, window: Window) -> np.ndarray:
  filled = np.zeros((*window, part.shape[-1]), part.dtype)
  filled[: part.shape[0], : part.shape[1]] = part
  return filled


_Loaded = tuple[np.ndarray, ...]


def _sweep(
  run: Callable[..., Any], load: Callable[[_Tile], _Loaded], tiles: Iterable[_Tile]
) -> Iterator[tuple[_Tile, Any]]:
  """Each tile and its result, on the host; the next is under way when it is given out."""
  mesh = make_mesh(jax.local_devices())
  tiles = iter(tiles)
  under_way: list[tuple[_Tile, Any, int]] = []
  while group := list(islice(tiles, mesh.size)):
    loaded = [load(tile) for tile in group]
    loaded += loaded[-1:] * (mesh.size - len(group))  # one shape for all
    outputs = run(*shard_batch(tuple(map(np.stack, zip(*loaded, strict=True))), mesh))
    yield from _hand_out(under_way)
    under_way = [(tile, outputs, i) for i, tile in enumerate(group)]
  yield from _hand_out(under_way)


def _hand_out(under_way: list[tuple[_Tile, Any, int]]) -> Iterator[tuple[_Tile, Any]]:
  for tile, outputs, i in under_way:
    yield tile, jax.tree.map(lambda maps, i=i: np.asarray(maps)[i], outputs)

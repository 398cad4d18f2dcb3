"""Windows: the whole image's result, with one compile, on any devices."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hvsjnd_jax
from hvsjnd_jax.model import tiling, windows
from hvsjnd_jax.model.jnd_map import Resolution, draw_jnd
from hvsjnd_jax.model.jnd_model import Analysis, JNDModel
from hvsjnd_jax.model.priors import AttentionLayer, Priors, forward_backward
from hvsjnd_jax.model.windows import Maps, Window, check_window, plan_window
from hvsjnd_jax.ops import checks

DrawImages = Callable[..., jax.Array]

ROOT = Path(__file__).parents[2]
WINDOW = (128, 160)

# Windows are small here, so that small images have several.
pytestmark = pytest.mark.filterwarnings("ignore:window .* is so small:UserWarning")
# Of a map's maximum: the same sums, compiled for another shape. 6e-6 was measured.
SELF = 2e-5


def assert_same(maps: Analysis | Maps, wanted: Analysis | Maps) -> None:
  for got, want in zip(jax.tree.leaves(maps), jax.tree.leaves(wanted), strict=True):
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=0, atol=SELF * float(abs(want).max()))


SIZES = pytest.mark.parametrize(
  "size",
  [
    (9, 13),  # far smaller than the window
    (128, 160),  # the window
    (129, 161),  # a pixel more
    (130, 303),  # sides that are 2 and 3 more than a multiple of 4
    (303, 130),  # upright: the image is turned
    (275, 80),  # longer than the window, and narrower
  ],
  ids=lambda size: f"{size[0]}x{size[1]}",
)


@pytest.mark.parametrize(
  ("resolution", "attention_layer"),
  [("reference", "feature"), ("native", "reconstruction")],
)
@SIZES
def test_windows_give_what_the_whole_image_gives(
  small_model: JNDModel,
  draw_images: DrawImages,
  size: tuple[int, int],
  resolution: Resolution,
  attention_layer: AttentionLayer,
):
  images = draw_images(2, *size)
  options: dict[str, Any] = {"resolution": resolution, "attention_layer": attention_layer}
  got = hvsjnd_jax.analyze(small_model, images, window=WINDOW, **options)
  assert_same(got, hvsjnd_jax.analyze(small_model, images, **options))
  alone = hvsjnd_jax.estimate(small_model, images, window=WINDOW, **options)
  np.testing.assert_array_equal(alone, got.jnd)


@SIZES
@pytest.mark.parametrize("kind", ["fine_model", "fast_model"])
def test_windows_of_fine_maps(
  request: pytest.FixtureRequest, kind: str, draw_images: DrawImages, size: tuple[int, int]
):
  model, images = request.getfixturevalue(kind), draw_images(2, *size)
  got = hvsjnd_jax.analyze(model, images, window=WINDOW)
  assert (got.priors is None) == (kind == "fast_model")
  assert_same(got, hvsjnd_jax.analyze(model, images))


@pytest.mark.usefixtures("optimized")
def test_windows_of_the_full_size_networks(model: JNDModel, draw_images: DrawImages):
  images = draw_images(1, 250, 301)
  got = hvsjnd_jax.analyze(model, images, window=(192, 192), resolution="native")
  assert_same(got, hvsjnd_jax.analyze(model, images, resolution="native"))


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_windows_of_a_large_image(draw_images: DrawImages):
  """Whole, it takes 10 GB of memory and a minute."""
  model = hvsjnd_jax.load()
  images = draw_images(1, 2500, 3300)
  got = hvsjnd_jax.analyze(model, images, window=plan_window([(2500, 3300)]))
  assert_same(got, hvsjnd_jax.analyze(model, images))


@pytest.mark.usefixtures("x64")
def test_overlap_is_the_networks_reach(small_model: JNDModel, fine_model: JNDModel):
  """How far away a pixel's change still shows, wherever it lies in a cell of 8 pixels."""
  model = jax.tree.map(lambda leaf: leaf.astype(np.float64), small_model)
  fine = jax.tree.map(lambda leaf: leaf.astype(np.float64), fine_model)
  rng = np.random.default_rng(0)
  image, degraded, gradient, attention = (rng.random((1, 128, 128, c)) for c in (3, 3, 3, 1))
  places = np.arange(60, 68)
  changed = image.repeat(8, axis=0)
  changed[np.arange(8), places, places] += 0.5

  @jax.jit
  def see(images: jax.Array) -> tuple[jax.Array, ...]:
    passed = forward_backward(model.hvs_sd, images, None, pixels=1)
    priors = Priors(
      *(jnp.broadcast_to(m, (len(images), *m.shape[1:])) for m in (degraded, attention, gradient))
    )
    native = draw_jnd(model.generator, images, priors, resolution="native")
    return passed.gradient, native, draw_jnd(fine.generator, images, priors, resolution="fine")

  reaches = (windows.PRIORS_REACH_PX, windows.MAP_REACH_PX, windows.MAP_REACH_PX)
  for base, other, reach in zip(see(image), see(changed), reaches, strict=True):
    which, *shown = np.nonzero(np.asarray(other != base).any(axis=-1))
    farthest = max(np.abs(axis - places[which]).max() for axis in shown)
    # No further; and the next multiple of 8 would not do.
    assert reach - 8 < farthest <= reach


def test_bytes_are_images_over_255(small_model: JNDModel):
  pixels = np.random.default_rng(0).integers(0, 256, (1, 40, 50, 3), np.uint8)
  of_bytes = windows.analyze(small_model, pixels, window=WINDOW)
  floats = (pixels / 255).astype(np.float32)
  of_floats = windows.analyze(small_model, floats, window=WINDOW)
  for got, want in zip(*map(jax.tree.leaves, (of_bytes, of_floats)), strict=True):
    np.testing.assert_array_equal(got, want)


def test_flat_image_is_finite(small_model: JNDModel, flat_images: Callable[[int], jax.Array]):
  maps = hvsjnd_jax.analyze(small_model, flat_images(150), window=(128, 128))
  for leaf in jax.tree.leaves(maps):
    assert np.isfinite(leaf).all()


COMPILES = "/jax/core/compile/backend_compile_duration"


@pytest.mark.parametrize(
  ("resolution", "window"), [("native", (136, 160)), ("reference", (144, 160))]
)
def test_many_sizes_compile_once(
  small_model: JNDModel, resolution: Resolution, window: tuple[int, int]
):
  compiled: list[str] = []

  def count(event: str, duration_secs: float, **_: object) -> None:
    del duration_secs
    if event == COMPILES:
      compiled.append(event)

  def run(size: tuple[int, int]) -> None:
    images = np.zeros((1, *size, 3), np.float32)
    windows.analyze(small_model, images, window=window, resolution=resolution)

  jax.monitoring.register_event_duration_secs_listener(count)
  try:
    run((64, 64))
    assert len(compiled) == 2  # the priors, and the maps
    for size in ((9, 200), window, (99, 140), (150, 301)):
      run(size)
    assert len(compiled) == 2
  finally:
    jax.monitoring.unregister_event_duration_listener(count)


ON_MANY = """
import json, sys
import jax, numpy as np
import hvsjnd_jax
from hvsjnd_jax.model.hvs_sd import HVSSD
from flax import nnx
assert jax.local_device_count() == int(sys.argv[1])
model = hvsjnd_jax.load("paper")
model.hvs_sd = HVSSD(8, rngs=nnx.Rngs(0))
image = np.random.default_rng(0).random((1, 250, 300, 3), np.float32)
jnd = hvsjnd_jax.estimate(model, image, window=(128, 128))
print(json.dumps(np.asarray(jnd).sum((0, 2, 3)).tolist()))
"""


def test_devices_share_the_windows():
  """20 windows on 1 and on 3 devices, which 20 is no multiple of."""
  rows = []
  for devices in (1, 3):
    done = subprocess.run(
      [sys.executable, "-c", ON_MANY, str(devices)],
      cwd=ROOT,
      env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
      capture_output=True,
      text=True,
      check=True,
    )
    rows.append(json.loads(done.stdout))
  np.testing.assert_allclose(rows[1], rows[0], rtol=1e-6)


EACH = """
import os
if hasattr(os, "sched_setaffinity"):  # on one core: threads would add up sums in another order
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import collections, hashlib, json, sys
import jax, numpy as np
from flax import nnx
from hvsjnd_jax.model import windows
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.runtime import jobs

model = JNDModel(
  resolution="fine", hvs_sd_channels=4, generator_channels=4, level=0.5, rngs=nnx.Rngs(2)
)
rng = np.random.default_rng(0)
useful = collections.Counter()
drawn, done, most_waiting = 0, 0, 0

def draw_batches():
  global drawn, most_waiting
  for size in rng.permutation(json.loads(sys.argv[1])):
    most_waiting = max(most_waiting, drawn - done)
    drawn += 1
    yield rng.integers(0, 256, (1, *size, 3), np.uint8)

shard_batch = jobs.shard_batch
def count_useful(inputs, mesh):
  placed = shard_batch(inputs, mesh)
  parts = max(placed, key=lambda array: array.ndim)
  seen = set()
  for shard in parts.addressable_shards:
    part = np.asarray(shard.data).tobytes()
    useful[str(shard.device)] += part not in seen
    seen.add(part)
  return placed

jobs.shard_batch = count_useful
digests = []
for maps in windows.analyze_each(model, draw_batches(), window=(120, 128)):
  done += 1
  digests.append([hashlib.sha256(leaf).hexdigest() for leaf in map(
    np.ascontiguousarray, jax.tree.leaves(maps))])
print(json.dumps([digests, list(useful.values()), most_waiting]))
"""

# Of the windows of the device with the most: less would be time that a device waits.
LEAST_SHARE = 0.9


def test_devices_share_the_windows_of_many_images():
  sizes = [(9, 13), (120, 128), (130, 121), (90, 140), (140, 90), (128, 40), (8, 200)] * 6
  digests, counts, most_waiting = [], [], []
  for devices in (1, 4):
    done = subprocess.run(
      [sys.executable, "-c", EACH, json.dumps(sizes)],
      cwd=ROOT,
      env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
      capture_output=True,
      text=True,
      check=True,
    )
    for found, value in zip((digests, counts, most_waiting), json.loads(done.stdout), strict=True):
      found.append(value)
  assert len(digests[0]) == len(sizes)
  assert digests[1] == digests[0]
  assert sum(counts[1]) == counts[0][0]
  assert len(counts[1]) == 4
  assert min(counts[1]) >= LEAST_SHARE * max(counts[1])
  # With one device, an image is done before the next is drawn; with four, 64 windows may wait.
  assert most_waiting[0] == 0
  assert most_waiting[1] <= 64


def test_windows_of_several_images_at_a_time(
  fine_model: JNDModel, draw_images: DrawImages, monkeypatch: pytest.MonkeyPatch
):
  """As on an accelerator: a device computes five windows at once."""
  monkeypatch.setattr(windows, "count_at_once", lambda window: 5)
  batches = [
    draw_images(b, *size, seed=b) for b, size in enumerate([(9, 13), (130, 121), (200, 50)], 1)
  ]
  each = list(windows.analyze_each(fine_model, batches, window=WINDOW))
  for maps, images in zip(each, batches, strict=True):
    assert_same(maps, windows.analyze(fine_model, images, window=WINDOW))


@pytest.mark.parametrize(
  ("sizes", "window"),
  [
    ([(512, 768)] * 3, (512, 768)),
    ([(512, 768), (768, 512)], (512, 768)),  # upright ones are turned
    ([(9, 13)], (128, 128)),
    ([(2160, 3840)], (640, 1408)),
  ],
)
def test_plan(sizes: list[tuple[int, int]], window: tuple[int, int]):
  assert plan_window(sizes) == window


@pytest.mark.parametrize("seed", range(5))
def test_plan_needs_the_fewest_pixels(seed: int):
  """Against every window, counted by walking over each image."""
  rng = np.random.default_rng(seed)
  sizes = rng.integers(8, 700, (5, 2)).tolist()

  def count(window: Window) -> int:
    number = 0
    for size in sizes:
      number += len(list(tiling.cover((1, *sorted(size)), window, windows.PRIORS_REACH_PX)))
    return number * window.height * window.width

  limit = 400_000
  sides = range(128, 769, 64)
  fewest = min(count(Window(h, w)) for h in sides for w in sides if h <= w and h * w <= limit)
  planned = plan_window(sizes, max_pixels=limit)
  assert planned.height * planned.width <= limit
  assert count(planned) == fewest


def test_plan_in_too_little_memory():
  with pytest.raises(ValueError, match="expected max_pixels of at least 16384, got 100"):
    plan_window([(100, 100)], max_pixels=100)


@pytest.mark.parametrize("sizes", [[], (480, 700)])
def test_plan_needs_sizes(sizes: Any):
  with pytest.raises(ValueError, match=r"expected a list of \(height, width\), got "):
    plan_window(sizes)


@pytest.mark.parametrize("window", [(112, 512), (200, 204), (512, 0), (-128, 128), 512, (128.5, 8)])
def test_window_of_no_use_is_named(window: Any):
  with pytest.raises(
    ValueError,
    match=re.escape(f"a window (height, width) of multiples of 8 above 112, got {window}"),
  ):
    check_window(window)


def test_window_under_a_transformation_is_named(small_model: JNDModel, draw_images: DrawImages):
  with pytest.raises(ValueError, match="expected no window under jax"):
    jax.jit(lambda images: hvsjnd_jax.estimate(small_model, images, window=WINDOW))(
      draw_images(1, 16, 16)
    )


def test_defaults_are_the_weights_own(small_model: JNDModel, draw_images: DrawImages):
  images = np.asarray(draw_images(1, 16, 24))
  named = windows.analyze(
    small_model,
    images,
    window=WINDOW,
    resolution=small_model.resolution,
    attention_layer=small_model.attention_layer,
  )
  unnamed = windows.analyze(small_model, images, window=WINDOW)
  for got, want in zip(*map(jax.tree.leaves, (unnamed, named)), strict=True):
    np.testing.assert_array_equal(got, want)
  with pytest.raises(ValueError, match="attention_layer must be one of reconstruction, feature"):
    windows.analyze(small_model, images, window=WINDOW, attention_layer="encoder")  # pyright: ignore[reportArgumentType]


def test_inputs_are_left_as_they_were(small_model: JNDModel, draw_images: DrawImages):
  images = np.array(draw_images(1, 16, 24))
  before = images.copy()
  windows.analyze(small_model, images, window=WINDOW)
  np.testing.assert_array_equal(images, before)


def test_estimates_of_many_sizes_compile_once(
  small_model: JNDModel, monkeypatch: pytest.MonkeyPatch
):
  """Images and maps of a hundred sizes go to the device and back, and nothing is kept of them."""
  # As on an accelerator, where values are checked by a reduction that compiles for each size.
  monkeypatch.setattr(checks, "_is_on_host", lambda array: False)
  compiled: list[str] = []

  def count(event: str, duration_secs: float, **_: object) -> None:
    del duration_secs
    if event == COMPILES:
      compiled.append(event)

  def run(height: int, width: int) -> None:
    image = jax.device_put(np.zeros((1, height, width, 3), np.float32))
    analysis = hvsjnd_jax.analyze(small_model, image, window=(120, 120))
    for leaf in jax.tree.leaves(analysis):
      assert isinstance(leaf, jax.Array)

  jax.monitoring.register_event_duration_secs_listener(count)
  try:
    run(8, 8)
    compiled.clear()
    for height in range(8, 18):
      for width in range(20, 30):
        run(height, width)
    assert not compiled
  finally:
    jax.monitoring.unregister_event_duration_listener(count)

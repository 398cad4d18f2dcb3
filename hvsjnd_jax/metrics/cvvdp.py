"""ColorVideoVDP of one pair of still images. Images are float in [0, 1], NHWC, RGB.

Inside, arrays are [3, B, H, W]: the channels are A (light and dark), RG (red and green) and
YV (yellow and violet), the same light seen through three mechanisms of the eye.
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hvsjnd_jax.metrics._pairs import check_rgb_pair
from hvsjnd_jax.ops.axis_maps import AxisMap, filter_matrix
from hvsjnd_jax.ops.color import to_linear
from hvsjnd_jax.ops.filters import gaussian
from hvsjnd_jax.ops.types import Images, Scores

StandardDisplay = Literal["standard_4k", "standard_fhd"]
Channels = Float[Array, "3 b h w"]
Table = Float[np.ndarray, "3 luminances"]

_CSF_FILE = Path(__file__).parents[1] / "assets/cvvdp/csf.npz"
_CSF_NITS = (0.005, 1e4)  # first and last luminance, each at the same ratio to the next
# Light of R, G and B to X, Y and Z; to that which the cones L, M and S take up; to A, RG and YV.
_XYZ = (
  (0.4124564, 0.3575761, 0.1804375),
  (0.2126729, 0.7151522, 0.0721750),
  (0.0193339, 0.1191920, 0.9503041),
)
_LMS = (
  (0.187596268556126, 0.585168649077728, -0.026384263306304),
  (-0.133397430663221, 0.405505777260049, 0.034502127690364),
  (0.000244379021663, -0.000542995890619, 0.019406849066323),
)
_DKL = ((1, 1, 0), (1, -2.311130179947035, 0), (-1, -1, 50.977571328718781))
_TO_DKL = AxisMap(np.asarray(_DKL) @ np.asarray(_LMS) @ np.asarray(_XYZ))

_KERNEL = np.asarray((0.05, 0.25, 0.4, 0.25, 0.05))
_SECOND_FREQUENCY = 0.3228  # of the second band, as a ratio to the first
# In cycles per degree. The first band at or below the one is the last, then comes the base.
_LOWEST_FREQUENCY, _BASE_FREQUENCY = 0.2, 0.1
_DARKEST_NITS, _LARGEST_CONTRAST = 0.01, 1000
_TO_BACKGROUND = AxisMap(np.asarray([(1, 0, 0)] * 3))  # A, in the place of all three channels
_SENSITIVITY_DB = -0.2797423303127289
_GAINS = (1, 1.45, 1)
_MASK_SIGMA, _MASK_RADIUS = 3, 6
_MASK_LOG10 = -0.7954971194267273
_MASK_POWERS = (1.302622675895691, 2.8885908126831055, 3.6807713508605957)  # q
_CROSS_LOG2 = (  # X[k, c]: how much channel k masks channel c
  (-0.18950104713439941, -5.962151050567627, -4.31834602355957),
  (2.5655593872070312, 0.34406712651252747, -2.719646453857422),
  (3.8118371963500977, -1.0051705837249756, -0.5193376541137695),
)
_CROSS_MASK = AxisMap(2 ** np.asarray(_CROSS_LOG2).T)
_DIFFERENCE_POWER = 2.264355182647705
_LARGEST_DIFFERENCE = 10**2.5642454624176025  # Dm
_DEAD_ZONE, _EPSILON = 1e-9, 1e-5
_BAND_POWER, _CHANNEL_POWER = 4, 4
_BASE_WEIGHTS = (0.0036334486212581396, 1.6627724170684814, 4.11874532699585)
_STILL = 0.577918291091919
_JOD_SLOPE, _JOD_POWER, _JOD_LINE = 0.0439569391310215, 0.9302042722702026, 0.1  # a, e

CVVDP_SMALLEST_PX = 2


@dataclass(frozen=True)
class Display:
  """A display, and where its viewer sits. The defaults are those of "standard_4k".

  Args:
    resolution_px: Width and height.
    diagonal_inches: Size of the screen.
    distance_m: From the viewer to the screen, in metres.
    peak_nits: Luminance of white, in cd/m².
    contrast: Luminance of white over that of black, in a dark room.
    ambient_lux: Light of the room that falls on the screen.
    reflectivity: The share of it that the screen reflects, evenly to all sides.

  Raises:
    ValueError: If a number is not above 0; 1, of the contrast; or at least 0, of the last two.

  Examples:
    >>> round(Display().pixels_per_degree, 3)
    75.402
  """

  resolution_px: tuple[int, int] = (3840, 2160)
  diagonal_inches: float = 30
  distance_m: float = 0.7472
  peak_nits: float = 200
  contrast: float = 1000
  ambient_lux: float = 250
  reflectivity: float = 0.005

  def __post_init__(self) -> None:
    size = self.resolution_px
    if not isinstance(size, tuple) or len(size) != 2 or min(size) < 1:
      raise ValueError(f"Display: expected resolution_px (width, height), got {size}")
    above = {"diagonal_inches": 0, "distance_m": 0, "peak_nits": 0, "contrast": 1}
    for name, bound in above.items():
      if not bound < getattr(self, name) < math.inf:
        raise ValueError(
          f"Display: expected a finite {name} above {bound}, got {getattr(self, name)}"
        )
    for name in ("ambient_lux", "reflectivity"):
      if not 0 <= getattr(self, name) < math.inf:
        raise ValueError(
          f"Display: expected a finite {name} of at least 0, got {getattr(self, name)}"
        )

  @property
  def pixels_per_degree(self) -> float:
    """Pixels in one degree of visual angle, at the centre of the screen."""
    width_px, height_px = self.resolution_px
    width_m = 0.0254 * self.diagonal_inches * width_px / math.hypot(width_px, height_px)
    return 1 / (2 * math.degrees(math.atan(width_m / (2 * width_px * self.distance_m))))


_DISPLAYS: dict[str, Display] = {
  "standard_4k": Display(),
  "standard_fhd": Display(resolution_px=(1920, 1080), diagonal_inches=24, distance_m=0.6),
}


def cvvdp(
  distorted: Images, reference: Images, *, display: StandardDisplay | Display = "standard_4k"
) -> Scores:
  """ColorVideoVDP of still images, in JOD; higher is better, 10 for equal images.

  Of two images one JOD (just-objectionable difference) apart, three observers in four
  prefer the better one. Values become light on the display, and light becomes the channels
  c: A, RG and YV. A pyramid splits them into bands b, which are divided by the image's own
  background: contrasts t and r of the two images. With S, the eye's sensitivity where the
  background is the reference's,

    T = g t S,  R = g r S,  M = 0.16 blur(min(|T|, |R|))
    u = pw(|T - R|, 2.26) / (1 + sum_k X_kc pw(M_k, q_k)),  D = Dm u / (Dm + u)
    Q = 0.578 ‖w_cb ‖D‖_2‖_4,  JOD = 10 - 0.044 Q^0.93

  with the 2-norm over pixels and 4-norms over bands, then channels, all of which have
  pw(x, p) = (x + 1e-5)^p - 1e-5^p in the place of powers. Of the base, which is what the
  bands leave, D = |t - r| S, and there alone w is not 1. Below Q = 0.1, JOD is a line.

  Contrast is relative to the image's own light, so a change of brightness goes unseen: a
  loss needs another term that holds it. Gradients are finite, and vanish for equal images.
  Where JPEG left flat blocks, float32's differ from float64's by 4e-4 of the largest one.

  Args:
    distorted: Images, RGB, clipped to [0, 1], sides of at least 2 pixels.
    reference: Same shape.
    display: "standard_4k" (30 inches, seen from 0.75 m), "standard_fhd" (24 inches, from
      0.6 m), or a `Display`. The image is shown pixel by pixel, not scaled to the screen.

  Returns:
    Scores, at most 10, [B].

  Raises:
    TypeError, ValueError: See `_pairs.check_pair`; ValueError if there are not 3 channels,
      or for an unknown display.

  Source: Mantiuk et al., "ColorVideoVDP: a visual difference predictor for image, video and
  display distortions", 2024, https://doi.org/10.1145/3658144. Constants and borders are those
  of the program, cvvdp 0.5.7, whose scores are met within 1e-6 on its two standard displays.

  Memory: some 110 bytes per pixel in float32, 290 with the gradient.

  Examples:
    >>> image = jnp.full((1, 16, 16, 3), 0.5)
    >>> float(cvvdp(image, image)[0])
    10.0
  """
  distorted, reference, display = _check("cvvdp", distorted, reference, display)
  differences = _differences(distorted, reference, display)
  return 10 - _lost_jod([d.reshape(*d.shape[:2], -1) for d in differences])


def cvvdp_map(
  distorted: Images, reference: Images, *, display: StandardDisplay | Display = "standard_4k"
) -> Float[Array, "b h w"]:
  """Where `cvvdp` sees a difference, in JOD lost; larger is more visible, 0 if equal.

  The D of every band is expanded to the image's size by the pyramid's own kernel, and every
  pixel is then scored by itself, by the norms, weights and curve of `cvvdp`:

    map(x) = 10 - JOD(0.578 ‖w_cb ‖D_cb(x)‖_2‖_4)

  This is what an image would lose that were everywhere as this one is at x. Where D is the
  same all over, the map is 10 - `cvvdp`; in general, its mean is not.

  Args, Raises: As `cvvdp`.

  Returns:
    JOD lost at each pixel, at least 0 (but for rounding, 1e-9), [B, H, W].

  Source: This package; neither the paper nor the program defines this map.
  Memory: some 210 bytes per pixel in float32.

  Examples:
    >>> image = jnp.full((1, 16, 16, 3), 0.5)
    >>> round(float(cvvdp_map(image, image).max()), 6)
    0.0
  """
  distorted, reference, display = _check("cvvdp_map", distorted, reference, display)
  _, h, w, _ = reference.shape
  differences = _differences(distorted, reference, display)
  enlarged = (
    _map_both(_expand_map(h, band), _expand_map(w, band), d) for band, d in enumerate(differences)
  )
  return _lost_jod([d[..., None] for d in enlarged])


def _check(
  function: str, distorted: Images, reference: Images, display: StandardDisplay | Display
) -> tuple[Images, Images, Display]:
  distorted, reference = check_rgb_pair(
    function, distorted, reference, smallest_px=CVVDP_SMALLEST_PX
  )
  described = display if isinstance(display, Display) else _DISPLAYS.get(display)
  if described is None:
    expected = f"{', '.join(_DISPLAYS)} or a Display"
    raise ValueError(f"{function}: expected display {expected}, got {display}")
  return distorted, reference, described


# Compiled as a whole, as `_differences`: in eager mode each of a thousand operations would be.
@jax.jit
def _lost_jod(differences: list[Float[Array, "3 b *place n"]]) -> Float[Array, " b *place"]:
  """What is lost of 10 JOD at a place of n pixels, by D of all bands, the base the last."""
  *fine, base = (_pixel_norm(d) for d in differences)
  weights = jnp.asarray(_BASE_WEIGHTS, base.dtype).reshape(3, *(1,) * (base.ndim - 1))
  powers = (_power(norm, _BAND_POWER) for norm in (*fine, weights * base))
  channels = _power(functools.reduce(jnp.add, powers), 1 / _BAND_POWER)
  q = _STILL * _power(_power(channels, _CHANNEL_POWER).sum(axis=0), 1 / _CHANNEL_POWER)
  curve = _JOD_SLOPE * jnp.maximum(q, _JOD_LINE) ** _JOD_POWER
  line = _JOD_SLOPE * _JOD_LINE ** (_JOD_POWER - 1) * q
  return jnp.where(q > _JOD_LINE, curve, line)


def _pixel_norm(differences: Float[Array, "3 b *place n"]) -> Float[Array, "3 b *place"]:
  """The 2-norm over n pixels: a product of vectors, which a reduction takes longer for."""
  squares = jnp.vecdot(differences, differences + 2 * _EPSILON, precision="highest")
  return _power(squares / differences.shape[-1], 1 / 2)


def _power(values: Array, power: float) -> Array:
  """pw(x, p), with a finite slope at 0; the gradient of `x**p` would take a second power."""
  return jnp.exp(power * jnp.log(values + _EPSILON)) - _EPSILON**power


@functools.partial(jax.jit, static_argnames="display")
def _differences(distorted: Images, reference: Images, display: Display) -> list[Channels]:
  """D of every band, the finest first, the base last."""
  frequencies = _band_frequencies(display.pixels_per_degree, *reference.shape[1:3])
  # Apart, not in one batch: the gradient then passes through one pyramid, not both.
  tests, references = (
    _decompose(_to_dkl(images, display), bands=len(frequencies))
    for images in (distorted, reference)
  )
  differences = []
  for band, frequency in enumerate(frequencies):
    base = band == len(frequencies) - 1
    gains = np.ones(3) if base else np.asarray(_GAINS) * (1 if band == 0 else 2)
    table = _sensitivities(frequency) * gains[:, None]
    sensitivity = _interpolate(table, references.backgrounds[band])
    t, r = (pyramid.contrasts[band] * sensitivity for pyramid in (tests, references))
    differences.append(jnp.abs(t - r) if base else _mask(t, r))
  return differences


def _mask(t: Channels, r: Channels) -> Channels:
  """The difference, less where both images have contrast nearby, and with an upper limit."""
  h, w = t.shape[2:]
  # In flat areas t is 0 but for rounding, whose sign would become a gradient.
  t_size, r_size = (jnp.where(jnp.abs(x) > _DEAD_ZONE, jnp.abs(x), 0) for x in (t, r))
  mutual = jnp.minimum(t_size, r_size)
  if min(h, w) > _MASK_RADIUS:
    mutual = _map_both(_mask_map(h), _mask_map(w), mutual)
  q = np.asarray(_MASK_POWERS).reshape(3, 1, 1, 1)
  raised = jnp.exp(jnp.asarray(q, t.dtype) * jnp.log(10**_MASK_LOG10 * mutual + _EPSILON))
  mask = _mix(_CROSS_MASK, raised - jnp.asarray(_EPSILON**q, t.dtype))
  u = _power(jnp.abs(t - r), _DIFFERENCE_POWER) / (1 + mask)
  return _LARGEST_DIFFERENCE * u / (_LARGEST_DIFFERENCE + u)


def _interpolate(table: Table, backgrounds: Channels) -> Channels:
  """Sensitivity at each background, a power of luminance between the table's entries.

  The logarithm, a polygon, is summed up from its bends: on a CPU in a third of the time in
  which entries are read by index.
  """
  first, last = _CSF_NITS
  intervals = table.shape[1] - 1
  # The channels of `backgrounds` are alike.
  place = jnp.log(backgrounds[:1] / first) * (intervals / math.log(last / first))
  place = jnp.clip(place, 0, intervals)
  logarithms = np.log(table).reshape(3, -1, 1, 1, 1).swapaxes(0, 1)
  slopes = np.diff(logarithms, axis=0)
  terms = (logarithms[0], slopes[0], *np.diff(slopes, axis=0))
  start, slope, *bends = (jnp.asarray(term, backgrounds.dtype) for term in terms)
  polygon = start + slope * place
  for entry, bend in enumerate(bends, start=1):
    polygon += bend * jnp.maximum(place - entry, 0)
  return jnp.exp(polygon)


@functools.cache
def _sensitivities(frequency: float) -> Table:
  """Those of one frequency: a power of it between the file's entries, and beyond."""
  with np.load(_CSF_FILE) as csf:
    entries, log10 = np.log10(csf["rho"]), csf["log10_S"] + _SENSITIVITY_DB / 20
  place = math.log10(frequency)
  i = int(np.clip(np.searchsorted(entries, place) - 1, 0, len(entries) - 2))
  share = (place - entries[i]) / (entries[i + 1] - entries[i])
  return 10 ** ((1 - share) * log10[:, :, i] + share * log10[:, :, i + 1])


def _to_dkl(images: Images, display: Display) -> Channels:
  """Light on the display, in cd/m², as A, RG and YV."""
  linear = to_linear(jnp.moveaxis(images, -1, 0))
  black = display.peak_nits / display.contrast
  reflected = display.reflectivity * display.ambient_lux / math.pi
  scale, offset = float(display.peak_nits - black), float(black + reflected)
  return _mix(_TO_DKL, scale * linear + offset)


class _Pyramid(NamedTuple):
  """Bands, the finest first; the last, the base, is what the others leave."""

  contrasts: list[Channels]
  backgrounds: list[Channels]  # A of the next coarser level, alike in all three channels


def _decompose(level: Channels, *, bands: int) -> _Pyramid:
  pyramid = _Pyramid([], [])
  for _ in range(bands - 1):
    h, w = level.shape[2:]
    # Not a slip: the program ends columns by the number of rows, too.
    odd = h % 2 == 1
    coarse = _map_both(_reduce_map(h, odd), _reduce_map(w, odd), level)
    expanded = _map_both(_expand_map(h), _expand_map(w), coarse)
    # A product: the slice that it stands for has a gradient that takes ten times as long.
    background = jnp.maximum(_mix(_TO_BACKGROUND, expanded), _DARKEST_NITS)
    pyramid.contrasts.append(jnp.minimum((level - expanded) / background, _LARGEST_CONTRAST))
    pyramid.backgrounds.append(background)
    level = coarse
  background = jnp.maximum(level[:1], _DARKEST_NITS).mean(axis=(2, 3), keepdims=True)
  pyramid.contrasts.append(jnp.minimum(level / background, _LARGEST_CONTRAST))
  pyramid.backgrounds.append(background)
  return pyramid


def _band_frequencies(pixels_per_degree: float, h: int, w: int) -> list[float]:
  """Of all bands, in cycles per degree; small images have fewer."""
  most = min(h, w).bit_length() - 2  # floor(log2(min(h, w))) - 1, besides the base
  frequencies = [pixels_per_degree / 2]
  while frequencies[-1] > _LOWEST_FREQUENCY:
    frequencies.append(frequencies[0] * _SECOND_FREQUENCY / 2 ** (len(frequencies) - 1))
  return [*frequencies[:most], _BASE_FREQUENCY]


def _map_both(rows: AxisMap, columns: AxisMap, channels: Channels) -> Channels:
  return columns(rows(channels, axis=2), axis=3)


def _mix(mixture: AxisMap, channels: Channels) -> Channels:
  """Each channel as a sum of all three."""
  return mixture(channels.reshape(3, -1), axis=0).reshape(channels.shape)


@functools.lru_cache(maxsize=64)
def _reduce_map(size: int, odd: bool) -> AxisMap:
  """Blurs, and keeps every other pixel; `odd` says how the far end is mirrored."""
  matrix = filter_matrix(_KERNEL, size, border="zero")[::2]
  matrix[0, :2] += (0.25, 0.05)
  matrix[-1, -2:] += (0.05, 0.25) if odd else (0, 0.05)
  return AxisMap(matrix)


@functools.lru_cache(maxsize=64)
def _expand_map(size: int, levels: int = 1) -> AxisMap:
  """From so many levels below up to `size`; past its ends a level repeats itself."""
  if levels == 0:
    return AxisMap(np.eye(size))
  half = np.arange(-(-size // 2))
  before, here, after = (
    np.eye(len(half))[np.clip(half + step, 0, len(half) - 1)] for step in (-1, 0, 1)
  )
  even, odd = 0.1 * before + 0.8 * here + 0.1 * after, 0.5 * here + 0.5 * after
  matrix = np.stack([even, odd], axis=1).reshape(-1, len(half))[:size]
  return AxisMap(matrix if levels == 1 else matrix @ _expand_map(len(half), levels - 1).to_matrix())


@functools.lru_cache(maxsize=64)
def _mask_map(size: int) -> AxisMap:
  taps = np.asarray(gaussian(_MASK_RADIUS, _MASK_SIGMA))
  return AxisMap(filter_matrix(taps, size, border="reflect"))

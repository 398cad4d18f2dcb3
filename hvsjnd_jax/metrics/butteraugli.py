"""Butteraugli, as libjxl's programs compute it. Images are float in [0, 1], NHWC, RGB."""

import functools
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from hvsjnd_jax.metrics._pairs import check_rgb_pair
from hvsjnd_jax.ops.axis_maps import AxisMap, filter_matrix, halve
from hvsjnd_jax.ops.color import to_linear
from hvsjnd_jax.ops.filters import gaussian
from hvsjnd_jax.ops.malta import DENSE, SPARSE, malta
from hvsjnd_jax.ops.types import Images, Scores

Map = Float[Array, "b h w"]
Channels = Float[Array, "3 b h w"]
Version = Literal["0.7", "0.8"]
Norm = Literal["3-norm", "max"] | float

BUTTERAUGLI_SMALLEST_PX = 8


class _Constants(NamedTuple):
  """What differs between versions."""

  asymmetry: float  # h
  lf_scales: tuple[float, float, float]  # of X, Y, B
  gain: float


_VERSIONS = {
  "0.7": _Constants(0.8, (32.2217497012, 13.7697791434, 47.504615728), 17.8),
  "0.8": _Constants(1.0, (33.832837186260, 14.458268100570, 49.87984651440), 17.83),
}

_NITS = 80  # T, of white
# The three receptors' shares of R, G and B, and what they give in the dark, c.
_RECEPTORS = (
  (0.29956550340058319, 0.63373087833825936, 0.077705617820981968),
  (0.22158691104574774, 0.69391388044116142, 0.0987313588422),
  (0.02, 0.02, 0.20480129041026129),
)
_DARK = (1.7557483643287353, 1.7557483643287353, 12.226454707163354)

# K: Gaussians, in pixels.
_ADAPTATION_SIGMA = 1.2
_LF_SIGMA = 7.15593339443
_MF_SIGMA = 3.22489901262
_HF_SIGMA = 1.56416327805
_MASK_SIGMA = 2.7

# Differences along lines, of X and Y: their weight w, and the level n up to which the
# amplitude of the band itself does not mask them.
_UHF_LINES = ((173.5, 5), (1.10039032555, 71.7800275169))
_HF_LINES = ((6923.99476109, 8051.15833247), (18.7237414387, 4498534.45232))
_MF_LINES = ((8246.75321353, 1009002.70582), (37.0819870399, 130262059.556))
_DENSE_MU = 0.39905817637
_SPARSE_MU = 0.611612573796
# Differences at a pixel, of X, Y and B: their weight W.
_HF_WEIGHTS = (400, 1.50815703118)
_MF_WEIGHTS = (2150, 10.6195433239, 16.2176043152)
_LF_WEIGHTS = (29.2353797994, 0.844626970982, 0.703646627719)
_MASK_WEIGHT = 10


def butteraugli(
  distorted: Images, reference: Images, *, norm: Norm = "3-norm", version: Version = "0.7"
) -> Scores:
  """Butteraugli's distance; lower is better, 0 for equal images, about 1 just noticeable.

  A norm (see `pool`) of the map of differences D (see `butteraugli_map`). Not symmetric:
  what hides a difference is looked for in the reference.

  Args:
    distorted: Images in [0, 1], sRGB, sides of at least 8 pixels; values beyond count as
      0 or 1.
    reference: Same shape.
    norm: "3-norm" and "max" are what the program prints; a number q is a plain q-norm.
      The gradient of "max" is that of one pixel: to train, take another.
    version: Of libjxl: "0.7", which Debian ships and this project's figures are of; or
      "0.8" for 0.8 and later, whose scores are up to 5 % higher. Print which.

  Returns:
    Distances, [B], within 1e-4 of the programs', relatively. The gradient at equal images
    is 0.

  Raises:
    TypeError, ValueError: See `_pairs.check_rgb_pair`; ValueError for another number of
      channels than 3, and an unknown norm or version.

  Source: Alakuijala et al., "Guetzli: Perceptually guided JPEG encoder", 2017, arXiv
  1703.04421, for the idea; constants and structure are libjxl's `butteraugli_main`, at its
  intensity target of 80 nits. Deviations: the sRGB curve is exact, not a rational
  approximation; sides below 8 are refused, where the program gives 0; no alpha.

  Memory beyond the images, in float32: 170 bytes per pixel, 500 with the gradient.

  Examples:
    >>> image = jnp.full((1, 16, 16, 3), 0.5)
    >>> float(jax.jit(butteraugli)(image, image)[0])
    0.0
  """
  _check_norm(norm)
  return pool(butteraugli_map(distorted, reference, version=version), norm=norm)


def butteraugli_map(distorted: Images, reference: Images, *, version: Version = "0.7") -> Map:
  """Butteraugli's map of differences, 0 where images are equal.

    D = .85 D_1(d, r) + .5 up(D_1(down(d), down(r))),  D_1 = sqrt(G_dc DC + G_ac AC)

  where down halves the linear images, and up repeats pixels; images with a side below 15
  are compared at full size only. DC is the difference in the lowest of four frequency
  bands of the opponent colours X, Y, B; AC sums up those in the others, at pixels and along
  lines. The gains G fall with what the finest bands of the reference hold nearby.

  Args:
    distorted: Images in [0, 1], sRGB, sides of at least 8 pixels.
    reference: Same shape.
    version: See `butteraugli`.

  Returns:
    Differences, [B, H, W].

  Raises:
    TypeError, ValueError: See `butteraugli`.

  Examples:
    >>> image = jnp.full((1, 16, 16, 3), 0.5)
    >>> jax.jit(butteraugli_map)(image, image).shape
    (1, 16, 16)
  """
  distorted, reference = check_rgb_pair(
    "butteraugli", distorted, reference, smallest_px=BUTTERAUGLI_SMALLEST_PX
  )
  if version not in _VERSIONS:
    raise ValueError(f"butteraugli: expected version 0.7 or 0.8, got {version}")
  return _draw_map(distorted, reference, version=version)


# Compiled as a whole: in eager mode each of some two hundred operations would be.
@functools.partial(jax.jit, static_argnames="version")
def _draw_map(distorted: Images, reference: Images, *, version: Version) -> Map:
  constants = _VERSIONS[version]
  _, h, w, _ = distorted.shape
  d, r = _to_nits(distorted), _to_nits(reference)
  difference = _difference(d, r, constants)
  if (min(h, w) + 1) // 2 >= BUTTERAUGLI_SMALLEST_PX:
    coarse = _difference(halve(d), halve(r), constants)
    difference = 0.85 * difference + 0.5 * coarse.repeat(2, axis=1).repeat(2, axis=2)[:, :h, :w]
  # The compiler may round equal images in two ways, which the root in D would show.
  equal = (distorted == reference).all(axis=(1, 2, 3))
  return jnp.where(equal[:, None, None], 0, difference)


def pool(difference_map: Map, *, norm: Norm = "3-norm") -> Scores:
  """A norm of each map.

    "3-norm"  (|D|_3 + |D|_6 + |D|_12) / 3: the program's name for it
    "max"     its greatest value
    q         |D|_q = (mean D^q)^(1/q)

  Args:
    difference_map: What `butteraugli_map` gave.
    norm: One of the above, q at least 1.

  Returns:
    Norms, [B]. The gradient at a map of zeros is 0.

  Raises:
    ValueError: If the norm is none of them.

  Examples:
    >>> round(float(pool(jnp.asarray([[[3.0, 4.0]]]), norm=2)[0]), 4)
    3.5355
  """
  _check_norm(norm)
  peak = difference_map.max(axis=(1, 2))
  if norm == "max":
    return peak
  # Twelfth powers would leave float32's range. As a mere scale the peak has no gradient.
  scale = lax.stop_gradient(jnp.where(peak == 0, 1, peak))
  relative = difference_map / scale[:, None, None]
  exponents = (3, 6, 12) if isinstance(norm, str) else (norm,)
  norms = _add(_root((relative**q).mean(axis=(1, 2)), q) for q in exponents)
  return scale * norms / len(exponents)


def _check_norm(norm: Norm) -> None:
  if norm not in ("3-norm", "max") and (isinstance(norm, str) or not norm >= 1):
    raise ValueError(f"butteraugli: expected norm 3-norm, max or a number from 1 on, got {norm}")


def _root(values: Array, degree: float) -> Array:
  """The root, with gradient 0 at 0."""
  safe = jnp.where(values == 0, 1, values)
  return jnp.where(values == 0, 0, jnp.sqrt(safe) if degree == 2 else safe ** (1 / degree))


def _add(planes: Iterable[Array]) -> Array:
  # Not a stack's `sum`, which on a CPU XLA gives to a library that needs all of the stack.
  return functools.reduce(jnp.add, planes)


def _weigh(planes: Iterable[Map], weights: Sequence[float]) -> Map:
  return _add(w * plane for w, plane in zip(weights, planes, strict=True))


# --- an image's bands ------------------------------------------------------------------------


class _Bands(NamedTuple):
  """An image as it is seen, from coarse to fine."""

  lf: Sequence[Map]  # X, Y, B
  mf: Sequence[Map]  # X, Y, B
  hf: Sequence[Map]  # X, Y
  uhf: Sequence[Map]  # X, Y


def _to_nits(images: Images) -> Channels:
  """Linear light."""
  return _NITS * to_linear(images.transpose(3, 0, 1, 2))


def _split(nits: Channels) -> _Bands:
  """Blurs take each band from what the coarser ones left; small values are cut, or doubled."""
  xyb = _opsin(nits)
  lf = _blur(xyb, _LF_SIGMA)
  rest = [plane - low for plane, low in zip(xyb, lf, strict=True)]
  mf = _blur(rest, _MF_SIGMA)
  x, y = rest[0] - mf[0], rest[1] - mf[1]
  x *= 0.653020556257 + 0.346979443743 * 46 / (y**2 + 46)
  hf_x, hf_y = _blur([x, y], _HF_SIGMA)
  hf_y = _compress(hf_y, 28.4691806922)
  return _Bands(
    lf=lf,
    mf=(_remove(mf[0], 0.29), _amplify(mf[1], 0.1), mf[2]),
    hf=(_remove(hf_x, 1.5), _amplify(2.155 * hf_y, 0.132)),
    uhf=(_remove(x - hf_x, 0.04), 2.69313763794 * _compress(y - hf_y, 5.19175294647)),
  )


def _opsin(nits: Channels) -> Sequence[Map]:
  """X, Y and B: receptors that adapt to the light around them, as opponents."""
  planes = jnp.unstack(nits)
  around = _blur(planes, _ADAPTATION_SIGMA)
  long, medium, short = (
    _adapt(_weigh(planes, shares) + dark, _weigh(around, shares) + dark, dark)
    for shares, dark in zip(_RECEPTORS, _DARK, strict=True)
  )
  return long - medium, long + medium, short


def _adapt(received: Map, around: Map, dark: float) -> Map:
  around = jnp.maximum(around, dark)
  gamma = 19.245013259874995 * jnp.log(around + 9.9710635769299145) - 23.16046239805755
  return jnp.maximum(received * jnp.maximum(gamma / around, 1e-4), dark)


def _remove(band: Map, width: float) -> Map:
  """Takes the width away: 0 for what is below."""
  return band - _limit(band, width)


def _amplify(band: Map, width: float) -> Map:
  """Adds the width: the double of what is below."""
  return band + _limit(band, width)


def _compress(band: Map, limit: float) -> Map:
  """Lets a share pass of what is beyond the limit."""
  within = _limit(band, limit)
  return within + 0.724216145665 * (band - within)


def _limit(band: Map, limit: float) -> Map:
  low, high = (jnp.asarray(bound, band.dtype) for bound in (-limit, limit))
  return lax.clamp(low, band, high)


def _blur(planes: Sequence[Map], sigma: float) -> Sequence[Map]:
  h, w = planes[0].shape[1:]
  return jnp.unstack(_blur_map(sigma, h)(_blur_map(sigma, w)(jnp.stack(planes), axis=-1), axis=-2))


@functools.lru_cache(maxsize=64)
def _blur_map(sigma: float, size: int) -> AxisMap:
  taps = np.asarray(gaussian(int(2.25 * sigma), sigma))
  border = "symmetric" if sigma == _ADAPTATION_SIGMA else "renormalize"
  return AxisMap(filter_matrix(taps, size, border=border))


# --- a pair's differences --------------------------------------------------------------------


def _difference(distorted: Channels, reference: Channels, constants: _Constants) -> Map:
  """D_1."""
  d, r = _split(distorted), _split(reference)
  mask = _mask(r)
  h, scales = constants.asymmetry, constants.lf_scales
  x, y, b = (low_r - low_d for low_d, low_r in zip(d.lf, r.lf, strict=True))
  lf = (scales[0] * x, scales[1] * y, scales[2] * (b - 0.362267051518 * y))
  mf = (band_r - band_d for band_d, band_r in zip(d.mf, r.mf, strict=True))
  dc = _weigh((plane**2 for plane in lf), _LF_WEIGHTS)
  ac = (
    _weigh((plane**2 for plane in mf), _MF_WEIGHTS)
    + _weigh((_compare(*pair, h) for pair in zip(d.hf, r.hf, strict=True)), _HF_WEIGHTS)
    + _compare_lines(d, r, h)
    + _MASK_WEIGHT * (mask - _mask(d)) ** 2
  )
  eroded = _erode(mask)
  gain = 1 / (0.79079917404 * constants.gain)
  gain_ac = gain * (1 + 2.5485944793 / (0.451936922203 * eroded + 0.829591754942))
  gain_dc = gain * (1 + 0.505054525019 / (3.87449418804 * eroded + 0.20025578522))
  return _root(gain_dc**2 * dc + gain_ac**2 * ac, 2)


def _mask(bands: _Bands) -> Map:
  """M: how much there is around a pixel that hides differences."""
  x, y = (uhf + hf for uhf, hf in zip(bands.uhf, bands.hf, strict=True))
  amplitude = _root((2.5 * x) ** 2 + (0.4 * y) ** 2, 2)
  m = 6.19424080439
  k = 12.61050594197 * m
  return _blur([jnp.sqrt(m * amplitude + k) - k**0.5], _MASK_SIGMA)[0]


def _erode(mask: Map) -> Map:
  """E: a mean of the least three of the mask, two doubles of it, and its neighbours."""
  _, h, w = mask.shape
  padded = jnp.pad(mask, ((0, 0), (3, 3), (3, 3)), constant_values=jnp.inf)
  first, second, third = mask, 2 * mask, 2 * mask
  for y, x in ((0, 0), (0, 3), (0, 6), (3, 0), (3, 6), (6, 0), (6, 3), (6, 6)):
    neighbour = padded[:, y : y + h, x : x + w]
    third = jnp.minimum(third, jnp.maximum(second, neighbour))
    second = jnp.minimum(second, jnp.maximum(first, neighbour))
    first = jnp.minimum(first, neighbour)
  return 0.45 * first + 0.3 * second + 0.25 * third


def _compare(d: Map, r: Map, h: float) -> Map:
  """The squared difference, and that to the nearest value the reference would excuse."""
  return 0.8 * (h * (r - d) ** 2 + _excess(d, r, 0.4, 1) ** 2 / h)


def _excess(d: Map, r: Map, low: float, high: float) -> Map:
  """s e: what brings d to the range from `low` to `high` times r, 0 inside it."""
  size, toward = jnp.abs(r), jnp.where(r < 0, -d, d)
  excess = lax.clamp(low * size, toward, high * size) - toward
  return jnp.where(r < 0, -excess, excess)


def _compare_lines(d: _Bands, r: _Bands, h: float) -> Map:
  """Squared sums of differences along lines."""
  sparse = [
    _normalize(band_d, band_r, w, n, skew=skew, mu=_SPARSE_MU)
    for bands_d, bands_r, lines, skew in (
      (d.hf, r.hf, _HF_LINES, h**0.5),
      (d.mf[:2], r.mf[:2], _MF_LINES, 1),
    )
    for band_d, band_r, (w, n) in zip(bands_d, bands_r, lines, strict=True)
  ]
  dense = [
    _normalize(band_d, band_r, w, n, skew=h, mu=_DENSE_MU)
    for band_d, band_r, (w, n) in zip(d.uhf, r.uhf, _UHF_LINES, strict=True)
  ]
  squares = (malta(jnp.stack(q), lines) for q, lines in ((sparse, SPARSE), (dense, DENSE)))
  return _add(plane for stack in squares for plane in jnp.unstack(stack))


def _normalize(d: Map, r: Map, w: float, n: float, *, skew: float, mu: float) -> Map:
  """q: differences of a band, beside its own amplitude."""
  k1 = mu * n * (0.5 * w * skew) ** 0.5 / 8.5
  k2 = mu * n * (0.33 * w / skew) ** 0.5 / 8.5
  masking = n + 0.5 * (jnp.abs(r) + jnp.abs(d))
  return k1 / masking * (r - d) + k2 / masking * _excess(d, r, 0.55, 1.05)

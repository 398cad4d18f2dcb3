"""Classical JND models: the yardsticks beside which a learnt one is measured.

Images are float32 or float64 in [0, 1], [B, H, W, 3], RGB, H and W at least 8; so are the
JND maps: gray levels / 255, at most 1. All models look at luma, 0.299 R + 0.587 G + 0.114 B,
and give the three channels the same map, as comparisons of JND models do. Values beyond [0, 1]
are cut. All are pure functions, compiled at the first call for each size; `jax.jit` and
`jax.vmap` work on them; `jax.grad` does not help: they decide, and take roots of 0.

What a window reads past an image's edge is the image mirrored, unless it is said otherwise.

`BASELINES` is the table of them, by name, which the commands read.

In the equations, on 0..255: b is the background luminance, the mean of 5x5 pixels with weight
1 on the outer ring, 2 on the inner one and 0 at the centre; G the greatest of four directional
gradients over 5x5 pixels; and

  LA(b) = 17 (1 - sqrt(b / 127)) + 3 up to b = 127, 3 (b - 127) / 128 + 3 above
  A (+) M = A + M - 0.3 min(A, M), the nonlinear additivity model of masking (NAMM)
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from hvsjnd_jax import edges
from hvsjnd_jax.edges import Kernel, Planes
from hvsjnd_jax.masking import LUMA
from hvsjnd_jax.metrics.pairs import check_sides, check_type, check_values

__all__ = [
  "BASELINES",
  "SMALLEST_PX",
  "Baseline",
  "chou_li_1995",
  "contrast_heuristic",
  "jiang_2022",
  "uniform",
  "wu_2017",
  "yang_2005",
]

SMALLEST_PX = 8  # as the estimator; no window reaches further past an edge

Images = Float[Array, "b h w 3"]
ImagesLike = Float[Array | np.ndarray, "b h w 3"]

_OVERLAP = 0.3  # C of NAMM

_BACKGROUND: Kernel = (
  (1, 1, 1, 1, 1),
  (1, 2, 2, 2, 1),
  (1, 2, 0, 2, 1),
  (1, 2, 2, 2, 1),
  (1, 1, 1, 1, 1),
)
_FALL: Kernel = ((0,) * 5, (1, 3, 8, 3, 1), (0,) * 5, (-1, -3, -8, -3, -1), (0,) * 5)
_LEANING: Kernel = (
  (0, 0, 1, 0, 0),
  (0, 8, 3, 0, 0),
  (1, 3, 0, -3, -1),
  (0, 0, -3, -8, 0),
  (0, 0, -1, 0, 0),
)
_RISING: Kernel = (
  (0, 0, 1, 0, 0),
  (0, 0, 3, 8, 0),
  (-1, -3, 0, 3, 1),
  (0, -8, -3, 0, 0),
  (0, 0, -1, 0, 0),
)
_GRADIENTS = (_FALL, _LEANING, _RISING, edges.transpose(_FALL))
_PREWITT: Kernel = ((-1, 0, 1),) * 3

_EDGE_SIGMA_PX = 0.8  # of the Gaussian over an edge map, in all models
_BLOCK_PX = 8
_WEIBULL_SHAPE, _WEIBULL_SCALE = 894.16, 0.99805


def uniform(images: ImagesLike) -> Images:
  """One gray level everywhere: what a model must beat to have said anything.

  Args:
    images: Images in [0, 1], [B, H, W, 3], H and W at least 8.

  Returns:
    JND maps, same shape and dtype: 1 / 255. Which level does not matter where models are
    compared at equal noise energy.

  Raises:
    TypeError: If the images are neither float32 nor float64.
    ValueError: If the shape is not [B, H, W, 3], if a side is below 8 pixels, or if values
      are those of another range, such as 0..255.

  Examples:
    >>> round(255 * float(uniform(jnp.zeros((1, 16, 16, 3))).mean()), 3)
    1.0
  """
  return _run("uniform", jnp.ones_like, images)


def chou_li_1995(images: ImagesLike) -> Images:
  """The greater of luminance adaptation and gradient masking.

    max(LA(b), G (0.0001 b + 0.115) + 0.5 - 0.01 b)

  Args, Returns, Raises: As `uniform`.

  Source: Chou and Li, "A perceptually tuned subband image coder based on the measure of
  just-noticeable-distortion profile", 1995.

  Examples:
    >>> gray = jnp.full((1, 16, 16, 3), 127 / 255)
    >>> round(255 * float(chou_li_1995(gray).mean()), 3)
    3.0
  """
  return _run("chou_li_1995", _chou_li, images)


def yang_2005(images: ImagesLike) -> Images:
  """Luminance adaptation and texture masking, weaker at edges, added by NAMM.

    LA(b) (+) 0.117 G W

  W is 0.1 at Canny's edges (high threshold 0.5) and 1 elsewhere, under a Gaussian of 7x7
  pixels and deviation 0.8: the eye knows edges too well to be fooled there.

  Args, Returns, Raises: As `uniform`.

  Source: Yang et al., "Just noticeable distortion model and its applications in video
  coding", 2005. Deviation: its map of luma on all channels; the paper has one for each of
  Y, Cb and Cr. Other code in circulation masks as Chou and Li, and widens the edges.

  Examples:
    >>> gray = jnp.full((1, 16, 16, 3), 127 / 255)
    >>> round(255 * float(yang_2005(gray).mean()), 3)
    3.0
  """
  return _run("yang_2005", _yang, images)


def wu_2017(images: ImagesLike) -> Images:
  """Luminance adaptation, contrast masking and pattern complexity.

    0.7 LA(b') (+) max(1.84 s^2.4 / (s² + 26²), 0.3 s E c^2.7 / (c² + 1))

  b' is b, up to 127 lifted to round(32 + 95 b / 127). s is the standard deviation of 5x5
  pixels, 0 at two pixels along the border. c counts the orientations that occur among 3x3
  pixels, under a Gaussian of 3x3 pixels and deviation 1: angles arctan(y / x) of the Prewitt
  gradient (its weights over 3), to whole degrees, then in steps of 12 from 0 to 180, rounded;
  a gradient below 5 is an orientation of its own, and where it stands at the centre, or at the
  border, c = 1. E is 1, and 0 within 3 pixels of Canny's edges (high threshold
  min(60 / max G, 0.8)), under a Gaussian of 5x5 pixels and deviation 0.8.

  Args, Returns, Raises: As `uniform`.

  Source: Wu et al., "Enhanced just noticeable difference model for images with pattern
  complexity", 2017, with the constants of the authors' MATLAB code, in which published maps
  were made; the paper's differ. Where the notes on it are silent: s divides by 25, b is not
  rounded before it is lifted, an edge and its negative have one orientation, the disk around
  edges is Euclidean.

  Examples:
    >>> white = jnp.ones((1, 16, 16, 3))
    >>> round(255 * float(wu_2017(white).mean()), 3)  # 0.7 LA(255)
    4.2
  """
  return _run("wu_2017", _wu, images)


def contrast_heuristic(images: ImagesLike) -> Images:
  """What watermarking networks use: luminance adaptation and contrast masking, no edges.

    max(0, L (+) 1.872 c^2.4 / (c² + 26²))

  c is the magnitude of Sobel's gradient (weights 1, 2, 1, not divided), and L is LA(b)
  without its last 3 up to b = 127, of b + 0.00127: it falls to 0 there, and goes on from 3. Past
  the image's edge are zeros, so that a border of two pixels stands out.

  Args, Returns, Raises: As `uniform`.

  Source: Fernandez et al., "Active image indexing", 2023, after Wu et al., 2017. Deviation:
  its map of luma, on all channels alike; there are forms for each channel, and for blue.

  Examples:
    >>> white = jnp.ones((1, 16, 16, 3))
    >>> round(255 * float(contrast_heuristic(white)[0, 8, 8, 0]), 3)  # LA(255)
    6.0
  """
  return _run("contrast_heuristic", _contrast, images)


def jiang_2022(images: ImagesLike) -> Images:
  """What an image loses before it looks different, by its own Karhunen-Loève transform.

    |I - K_L K_L^T I| E

  K are the eigenvectors of the covariance of all 8x8 blocks, the greatest eigenvalue first;
  the components Y = K^T I, not centred, have mean energies of which P_k is the share of the
  first k. L = ceil(sum_k k f(P_k) / sum_k f(P_k)), k = 1..64, with f Weibull's density of
  shape 894.16 and scale 0.99805. E guards edges, as in `wu_2017`.

  Args, Returns, Raises: As `uniform`.

  Source: Jiang et al., "Toward top-down just noticeable difference estimation of natural
  images", 2022, as the authors' MATLAB code. Deviation: sides that are no multiples of 8 are
  mirrored up to one, not cropped, and the added pixels count in the statistics. Directions
  in which the blocks vary by no more than rounding count as one component, after the others:
  an image of fewer than 65 blocks would be cut by chance. Of a flat image the map is 0.

  Examples:
    >>> gray = jnp.full((1, 16, 16, 3), 0.5)
    >>> round(255 * float(jiang_2022(gray).max()), 3)
    0.0
  """
  return _run("jiang_2022", _jiang, images)


class Baseline(NamedTuple):
  """What is known of a model.

  Attributes:
    function: Of images, giving their JND maps.
    title: For tables and figures.
    year: Of the source; None where there is none.

  Examples:
    >>> BASELINES["yang_2005"].title, BASELINES["yang_2005"].year
    ('Yang et al. (NAMM)', 2005)
  """

  function: Callable[[ImagesLike], Images]
  title: str
  year: int | None


BASELINES: dict[str, Baseline] = {
  "uniform": Baseline(uniform, "Uniform", None),
  "chou_li_1995": Baseline(chou_li_1995, "Chou & Li", 1995),
  "yang_2005": Baseline(yang_2005, "Yang et al. (NAMM)", 2005),
  "wu_2017": Baseline(wu_2017, "Wu et al. (pattern complexity)", 2017),
  "contrast_heuristic": Baseline(contrast_heuristic, "Contrast heuristic", 2023),
  "jiang_2022": Baseline(jiang_2022, "Jiang et al. (KLT)", 2022),
}


def _run(name: str, model: Callable[[Planes], Planes], images: ImagesLike) -> Images:
  """Checks the images and runs a model of luma, in gray levels."""
  images = jnp.asarray(images)
  check_type(name, "images", images)
  if images.ndim != 4 or images.shape[-1] != 3:
    raise ValueError(f"{name}: expected RGB images [B, H, W, 3], got shape {images.shape}")
  check_sides(name, images, smallest_px=SMALLEST_PX)
  check_values(name, "images", images)
  return _estimate(model, images)


@functools.partial(jax.jit, static_argnums=0)
def _estimate(model: Callable[[Planes], Planes], images: Images) -> Images:
  r, g, b = (weight * plane for weight, plane in zip(LUMA, _channels(images), strict=True))
  levels = model(255 * (r + g + b))
  return jnp.broadcast_to((levels / 255).clip(0, 1)[..., None], images.shape)


def _channels(images: Images) -> list[Planes]:
  return [images[..., c].clip(0, 1) for c in range(3)]


def _chou_li(luma: Planes) -> Planes:
  background = _background(luma)
  masking = _gradient(luma) * (0.0001 * background + 0.115) + 0.5 - 0.01 * background
  return jnp.maximum(_adaptation(background), masking)


def _yang(luma: Planes) -> Planes:
  at_edges = jnp.where(edges.canny(luma, 0.5), 0.1, 1).astype(luma.dtype)
  weight = edges.smooth(at_edges, radius_px=3, sigma_px=_EDGE_SIGMA_PX)
  return _add(_adaptation(_background(luma)), 0.117 * _gradient(luma) * weight)


def _wu(luma: Planes) -> Planes:
  background = _background(luma)
  lifted = jnp.where(background <= 127, jnp.round(32 + background * (95 / 127)), background)
  spread = _deviation(luma)
  contrast = 1.84 * spread**2.4 / (spread**2 + 26**2)
  count = edges.smooth(_count_orientations(luma), radius_px=1, sigma_px=1)
  pattern = spread * 0.3 * count**2.7 / (count**2 + 1) * _edge_guard(luma)
  return _add(0.7 * _adaptation(lifted), jnp.maximum(contrast, pattern))


def _contrast(luma: Planes) -> Planes:
  background = _background(luma, beyond="constant")
  dark = 17 * (1 - jnp.sqrt(background / 127 + 1e-5))
  adaptation = jnp.where(background <= 127, dark, 3 * (background - 127) / 128 + 3)
  x, y = (
    edges.correlate(luma, kernel, beyond="constant")
    for kernel in (edges.SOBEL, edges.transpose(edges.SOBEL))
  )
  power = x**2 + y**2  # c², whose root has no gradient at 0
  masking = 0.117 * 16 * power**1.2 / (power + 26**2)
  return jnp.maximum(_add(adaptation, masking), 0)


def _jiang(luma: Planes) -> Planes:
  return jnp.abs(luma - _critical_image(luma)) * _edge_guard(luma)


def _add(adaptation: Planes, masking: Planes) -> Planes:
  return adaptation + masking - _OVERLAP * jnp.minimum(adaptation, masking)


def _background(luma: Planes, *, beyond: Literal["symmetric", "constant"] = "symmetric") -> Planes:
  return edges.correlate(luma, _BACKGROUND, beyond=beyond) / 32


def _adaptation(background: Planes) -> Planes:
  dark = 17 * (1 - jnp.sqrt(background / 127)) + 3
  return jnp.where(background <= 127, dark, 3 * (background - 127) / 128 + 3)


def _gradient(luma: Planes) -> Planes:
  slopes = (jnp.abs(edges.correlate(luma, kernel)) / 16 for kernel in _GRADIENTS)
  return functools.reduce(jnp.maximum, slopes)


def _deviation(luma: Planes) -> Planes:
  """Standard deviation of 5x5 pixels; 0 where the window would leave the image."""
  window: Kernel = ((1 / 25,) * 5,) * 5
  mean = edges.correlate(luma, window)
  # Squares of differences: a difference of squares would leave float32 little at low contrast.
  _, h, w = luma.shape
  centre = mean[:, 2:-2, 2:-2]
  squares = (
    (luma[:, i : i + h - 4, j : j + w - 4] - centre) ** 2 for i in range(5) for j in range(5)
  )
  return jnp.pad(jnp.sqrt(functools.reduce(jnp.add, squares) / 25), ((0, 0), (2, 2), (2, 2)))


def _count_orientations(luma: Planes) -> Planes:
  """How many orientations occur among 3x3 pixels; 1 where there is none, and at the border."""
  x, y = (edges.correlate(luma, kernel) / 3 for kernel in (_PREWITT, edges.transpose(_PREWITT)))
  seen = x**2 + y**2 >= 5**2
  degrees = jnp.round(jnp.arctan2(y, x) * (180 / jnp.pi)).astype(jnp.int32) % 180
  orientation = jnp.where(seen, (degrees + 6) // 12, 16)  # a half goes up: 0..15, or none
  bits = jnp.left_shift(jnp.int32(1), orientation)
  _, h, w = luma.shape
  near = (bits[:, i : i + h - 2, j : j + w - 2] for i in range(3) for j in range(3))
  count = lax.population_count(functools.reduce(jnp.bitwise_or, near))
  count = jnp.where(seen[:, 1:-1, 1:-1], count, 1)
  return jnp.pad(count, ((0, 0), (1, 1), (1, 1)), constant_values=1).astype(luma.dtype)


def _edge_guard(luma: Planes) -> Planes:
  """1, and 0 near edges, where a change is seen at once."""
  # min(60 / max G, 0.8), without the division by 0.
  high = 60 / jnp.maximum(_gradient(luma).max(axis=(1, 2)), 75)
  near = edges.dilate(edges.canny(luma, high), edges.disk(3))
  return edges.smooth(1 - near.astype(luma.dtype), radius_px=2, sigma_px=_EDGE_SIGMA_PX)


def _critical_image(luma: Planes) -> Planes:
  """The image from its first L components."""
  b, h, w = luma.shape
  margins = ((0, 0), (0, -h % _BLOCK_PX), (0, -w % _BLOCK_PX))
  padded = jnp.pad(luma, margins, mode="symmetric")
  rows, columns = (side // _BLOCK_PX for side in padded.shape[1:])
  grid = padded.reshape(b, rows, _BLOCK_PX, columns, _BLOCK_PX).swapaxes(2, 3)
  blocks = grid.reshape(b, rows * columns, _BLOCK_PX**2)

  mean = blocks.mean(axis=1, keepdims=True)
  centred = blocks - mean
  covariance = _multiply("bni,bnj->bij", centred, centred) / blocks.shape[1]
  values, basis = (array[..., ::-1] for array in jnp.linalg.eigh(covariance))
  components = _multiply("bni,bik->bnk", blocks, basis)
  energy = (components**2).mean(axis=1)
  total = energy.sum(axis=-1, keepdims=True)

  # Where the blocks do not vary, the basis is rounding's choice: one component, the last.
  varies = values > 8 * jnp.finfo(luma.dtype).eps * total
  order = jnp.arange(1, _BLOCK_PX**2 + 1, dtype=luma.dtype)
  last = varies.sum(axis=-1, keepdims=True).astype(luma.dtype) + 1
  constant = jnp.where(varies, 0, energy).sum(axis=-1, keepdims=True)
  energy = jnp.where(varies, energy, jnp.where(order == last, constant, 0))
  # A black image has no energy: no component is needed.
  shares = jnp.where(total > 0, energy.cumsum(axis=-1) / jnp.where(total > 0, total, 1), 1)
  critical = jnp.ceil((_weibull_weights(shares) * order).sum(axis=-1, keepdims=True))

  kept = jnp.where(varies, order, last) <= critical
  kept = jnp.where(kept[:, None], components, 0)
  grid = _multiply("bnk,bik->bni", kept, basis).reshape(grid.shape)
  return grid.swapaxes(2, 3).reshape(padded.shape)[:, :h, :w]


def _weibull_weights(shares: Float[Array, "b k"]) -> Float[Array, "b k"]:
  """f(P_k) / sum_k f(P_k). By logarithms: f is a peak of width 0.001 and underflows."""
  log_ratio = jnp.log(jnp.maximum(shares, 1e-6) / _WEIBULL_SCALE)
  log_density = (_WEIBULL_SHAPE - 1) * log_ratio - jnp.exp(_WEIBULL_SHAPE * log_ratio)
  return jax.nn.softmax(log_density, axis=-1)


def _multiply(subscripts: str, a: Array, b: Array) -> Array:
  # A GPU's quick products of 10 bits would leave rounding for the residual.
  return jnp.einsum(subscripts, a, b, precision=lax.Precision.HIGHEST)

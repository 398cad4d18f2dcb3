"""SSIMULACRA 2.1, a full-reference score for compression. Images are float in [0, 1], NHWC, RGB."""

import functools
import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from hvsjnd_jax.metrics._pairs import check_rgb_pair
from hvsjnd_jax.ops.axis_maps import AxisMap, filter_matrix, halve
from hvsjnd_jax.ops.color import to_linear
from hvsjnd_jax.ops.types import Images, Scores

SSIMULACRA2_SMALLEST_PX = 8

SSIMULACRA2Border = Literal["zero", "symmetric"]

# X, Y and B (or R, G and B) of the distorted images and of their references.
_Pair = Float[Array, "channel image b h w"]
_Maps = Float[Array, "channel b h w"]

# From linear R, G and B to three mixed responses, and what each gets in the dark.
_MIX = (
  (0.30, 0.622, 0.078),
  (0.23, 0.692, 0.078),
  (0.24342268924547819, 0.20476744424496821, 0.55180986650955360),
)
_K = 0.0037930732552754493

# An exact finite form of the program's recursive filter, of sigma 1.5: entries -4 to 4.
_HALF = (0.21292859201042205, 0.10933537277746020, 0.03601111465836428, 0.00941436780965362)
_TAPS = np.asarray([*_HALF[::-1], 0.2646211054881984, *_HALF])
_C = 0.0009

_SCALES = 6
# Weights of the maps (structure, artifact, lost) at scales 0 to 5: of their means,
_MEAN_WEIGHTS = (
  (  # X
    (0, 0.0007376606707406586, 0),
    (0, 0.0004371155730107379, 0),
    (0, 0.0016406437456599754, 0),
    (0.0007989109436015163, 0.000176816438078653, 0),
    (0.0007289346991508072, 0.9677937080626833, 0),
    (0.0004550992113792063, 0, 0),
  ),
  (  # Y
    (0, 0, 0),
    (0.0006235601634041466, 0, 0),
    (225.20515300849274, 0, 0),
    (176.39317598450694, 0, 0),
    (0, 0, 0),
    (0, 0, 0),
  ),
  (  # B
    (0, 0.0008680556573291698, 0),
    (0, 0.0005313191874358747, 0),
    (0, 0, 0),
    (0.0020827005846636437, 0, 0),
    (95.1080498811086, 0.9863978034400682, 0.9834382792465353),
    (0, 0, 0),
  ),
)
# and of their 4-norms.
_NORM4_WEIGHTS = (
  (  # X
    (0, 0.0007793481682867309, 0),
    (1.1041726426657346, 0.00066284834129271, 0.00015231632783718752),
    (1.8422455520539298, 11.441172603757666, 0),
    (1.8787594979546387, 10.94906990605142, 0),
    (0.00014003424285435884, 0.9981766977854967, 0.00031949755934435053),
    (0.0013648766163243398, 0, 0),
  ),
  (  # Y
    (7.466890328078848, 0, 17.445833984131262),
    (6.683678146179332, 0.00037724407979611296, 1.027889937768264),
    (19.213238186143016, 0.0011401524586618361, 0.001237755635509985),
    (24.43300999870476, 0.28520802612117757, 0.0004485436923833408),
    (34.77906344483772, 44.835625328877896, 0),
    (0, 0, 0),
  ),
  (  # B
    (0, 0, 0),
    (0.00016533814161379112, 0, 0),
    (0.0004179171803251336, 0.0017290828234722833, 0),
    (8.826982764996862, 23.19243343998926, 0),
    (0.0012286405048278493, 171.2667255897307, 0.9807858872435379),
    (0.0005130064588990679, 0, 0.00010854057858411537),
  ),
)
_WEIGHTS = np.stack([_MEAN_WEIGHTS, _NORM4_WEIGHTS], axis=2)  # [channel, scale, norm, map]

# From the weighted sum to the score: t = a S, u = b t - c t² + d t³, 100 - 10 u^p.
_SUM_SCALE = 0.9562382616834844
_CUBIC = (2.326765642916932, -0.020884521182843837, 6.248496625763138e-05)
_EXPONENT = 0.6276336467831387

# In units of the rounding error: what an image may differ from its blur by where it is flat.
_FLAT = 16


def ssimulacra2(
  distorted: Images, reference: Images, *, border: SSIMULACRA2Border = "zero"
) -> Scores:
  """SSIMULACRA 2.1; higher is better, 100 for equal images.

  With S of `ssimulacra2_distance`, and t = 0.956 S,

    100 - 10 u^0.628,  u = 2.33 t - 0.0209 t² + 0.0000625 t³

  People's scale, after its author: 90 visually lossless, 80 very high quality, 70 high, 50
  medium, 30 low, 10 very low. The reference matters: the metric is not symmetric.

  The slope in S is infinite at equal images, where the gradient given is 0, and all but 0
  around a score of -64. To train, `ssimulacra2_distance` is the smoother loss.

  Args:
    distorted: Images in [0, 1], RGB, sides of at least 8 pixels. Values beyond are clipped.
    reference: Same shape.
    border: See `ssimulacra2_distance`; only "zero" is the metric.

  Returns:
    Scores up to 100, [B]; unrelated images mostly score below 0.

  Raises:
    TypeError, ValueError: See `ssimulacra2_distance`.

  Source: See `ssimulacra2_distance`.

  Examples:
    >>> image = jnp.full((1, 16, 16, 3), 0.5)
    >>> float(ssimulacra2(image, image)[0])
    100.0
  """
  distance = _distance("ssimulacra2", distorted, reference, border=border)
  t = _SUM_SCALE * distance
  b, c, d = _CUBIC
  u = t * (b + t * (c + t * d))
  # The power's gradient at 0 is infinite. NaN is not equal, and stays.
  equal = u < jnp.finfo(u.dtype).tiny
  return jnp.where(equal, 100, 100 - 10 * jnp.where(equal, 1, u) ** _EXPONENT)


def ssimulacra2_distance(
  distorted: Images, reference: Images, *, border: SSIMULACRA2Border = "zero"
) -> Scores:
  """The sum S behind SSIMULACRA 2.1; lower is better, 0 for equal images.

  The greater S, the lower the score. Near equality S grows in proportion to the difference
  of the images, which makes it the better loss. Both images become X, Y and B: with (R, G, B)
  linear,

    l_i = cbrt(M_i · (R, G, B) + k) - cbrt(k),  k = 0.00379
    X = 7 (l_0 - l_1) + 0.42,  Y = (l_0 + l_1) / 2 + 0.01,  B = l_2 - (l_0 + l_1) / 2 + 0.55

  at up to six scales, each the 2x2 mean of the linear one before. With r and d one channel
  of the reference and the distorted image, m their blurs and s their blurred products less
  those of the blurs, three maps follow, C = 0.0009:

    structure  1 - (1 - (m_d - m_r)²) (2 s_dr + C) / (s_dd + s_rr + C)
    artifact   max(0, e),  e = (1 + |d - m_d|) / (1 + |r - m_r|) - 1
    lost       max(0, -e)

  S is the weighted sum of each map's mean and 4-norm over channels and scales.

  Images with a side below 113 have fewer scales: 2 from 8 pixels on, 3 from 15, 4 from 29, 5
  from 57. The program then reads its list of weights without gaps, so that terms meet
  weights made for others. That is kept: such scores are the program's, but hardly quality.

  Args:
    distorted: Images in [0, 1], RGB, sides of at least 8 pixels. Values beyond are clipped.
    reference: Same shape.
    border: What the blur finds past the ends: "zero", as the metric has it, which dims the
      means and sees false variance within 4 pixels (at every scale) of the border, and so
      invites noise there; or "symmetric", the image mirrored, to train on crops. Only
      "zero" is the metric.

  Returns:
    Sums >= 0, but for rounding, [B]. The gradient is 0 at equal images, and finite.

  Raises:
    TypeError, ValueError: See `_pairs.check_pair`; ValueError for a number of channels other
      than 3 and for an unknown border.

  Source: Cloudinary's program ssimulacra2, version 2.1, written from a description of its
  arithmetic. Deviation: the program blurs by a recursion in float32, whose rounding moves
  its printed scores by up to 0.05 for photographs of 256 pixels, 0.2 for larger ones, 0.9
  for flat grey; here the blur is exact. Images with alpha are not taken.

  Memory, in float32: some 180 bytes for each pixel of a pair, 490 with the gradient.

  Examples:
    >>> image = jnp.full((1, 16, 16, 3), 0.5)
    >>> float(ssimulacra2_distance(image, image)[0])
    0.0
  """
  return _distance("ssimulacra2_distance", distorted, reference, border=border)


def _distance(
  function: str, distorted: Images, reference: Images, *, border: SSIMULACRA2Border
) -> Scores:
  """S, for the public function of that name."""
  distorted, reference = check_rgb_pair(
    function, distorted, reference, smallest_px=SSIMULACRA2_SMALLEST_PX
  )
  if border not in get_args(SSIMULACRA2Border):
    raise ValueError(f"{function}: expected border zero or symmetric, got {border}")
  return _sum_up(distorted, reference, border=border)


# Compiled as a whole: in eager mode each of some two hundred operations would be.
@functools.partial(jax.jit, static_argnames="border")
def _sum_up(distorted: Images, reference: Images, *, border: SSIMULACRA2Border) -> Scores:
  _, h, w, _ = distorted.shape
  weights = _weights(_scale_count(h, w))
  norms = _norms(distorted, reference, wanted=weights.sum(axis=-1) > 0, border=border)
  distance = (norms * jnp.asarray(weights, norms.dtype)[..., None]).sum(axis=(0, 1, 2, 3))
  # Two equal images may differ by rounding, which the score's infinite slope would show.
  return jnp.where((distorted == reference).all(axis=(1, 2, 3)), 0, distance)


def _scale_count(h: int, w: int) -> int:
  """Scales of an image: a scale is halved once more if it has 8 pixels on both sides."""
  scales = 1
  while scales < _SCALES and min(h, w) >= SSIMULACRA2_SMALLEST_PX:
    h, w = -(-h // 2), -(-w // 2)
    scales += 1
  return scales


def _weights(scales: int) -> Float[np.ndarray, "scale norm map channel"]:
  """The program's list of weights, read without gaps: in place only with all six scales."""
  shape = (len(_WEIGHTS), scales, *_WEIGHTS.shape[2:])
  return np.moveaxis(_WEIGHTS.reshape(-1)[: math.prod(shape)].reshape(shape), 0, -1)


def _norms(
  distorted: Images,
  reference: Images,
  *,
  wanted: Bool[np.ndarray, "scale norm map"],
  border: SSIMULACRA2Border,
) -> Float[Array, "scale norm map channel b"]:
  """Mean and 4-norm of every map; those without a weight in any channel are 0, not computed."""
  linear = to_linear(jnp.stack([distorted, reference]).transpose(4, 0, 1, 2, 3))
  unwanted = jnp.zeros((len(_MIX), len(distorted)), linear.dtype)
  norms = []
  for scale, wanted_here in enumerate(wanted):
    if scale > 0:
      linear = halve(linear)
    xyb = _to_xyb(linear)
    means = _blur(xyb, border=border)
    rise = _detail_rise(xyb - means)
    structure = _structure(xyb, means, border=border)
    maps = (structure, jax.nn.relu(rise), jax.nn.relu(-rise))
    norms += [
      pool(planes) if wanted_here[norm, kind] else unwanted
      for norm, pool in enumerate((_mean, _norm4))
      for kind, planes in enumerate(maps)
    ]
  return jnp.stack(norms).reshape(*wanted.shape, *unwanted.shape)


def _to_xyb(linear: _Pair) -> _Pair:
  red, green, blue = linear
  # Light is not below 0, so that no response is below k: no clamp is needed.
  absorbed = (r * red + g * green + b * blue + _K for r, g, b in _MIX)
  # On a CPU this takes a fifth of the time of `jnp.cbrt`, and is as accurate.
  responses = (jnp.exp(jnp.log(each) / 3) for each in absorbed)
  first, second, third = (response - _K ** (1 / 3) for response in responses)
  mean = (first + second) / 2
  return jnp.stack([7 * (first - second) + 0.42, mean + 0.01, third - mean + 0.55])


def _structure(xyb: _Pair, means: _Pair, *, border: SSIMULACRA2Border) -> _Maps:
  """How far the structure is from equal; at least 0, but for rounding.

  The variance of the difference, s_dd + s_rr - 2 s_dr, stands for the covariance: one blur
  less, and accurate in float32 where the images are nearly equal.
  """
  d, r = xyb[:, 0], xyb[:, 1]
  difference, squares = _blur(jnp.stack([(d - r) ** 2, d**2 + r**2]), border=border)
  shift = (means[:, 0] - means[:, 1]) ** 2
  ratio = (difference - shift) / (squares - (means**2).sum(axis=1) + _C)
  return shift + (1 - shift) * ratio


def _detail_rise(detail: _Pair) -> _Maps:
  """e, of the images less their blurs."""
  size = jnp.abs(detail)
  # In flat parts of an image the detail is rounding noise, and the gradient of |·| would be
  # that noise's sign.
  size = jnp.where(size <= _FLAT * jnp.finfo(size.dtype).eps, 0, size)
  return (size[:, 0] - size[:, 1]) / (1 + size[:, 1])


def _blur(planes: Float[Array, "... h w"], *, border: SSIMULACRA2Border) -> Array:
  h, w = planes.shape[-2:]
  return _blurring(h, border)(_blurring(w, border)(planes, axis=-1), axis=-2)


@functools.lru_cache(maxsize=64)
def _blurring(size: int, border: SSIMULACRA2Border) -> AxisMap:
  return AxisMap(filter_matrix(_TAPS, size, border=border))


def _mean(maps: _Maps) -> Float[Array, "channel b"]:
  return maps.mean(axis=(-2, -1))


def _norm4(maps: _Maps) -> Float[Array, "channel b"]:
  """(mean of the 4th power)^(1/4), with gradient 0 at 0."""
  mean = _mean(maps**4)
  # Below the least normal number a processor may take the root's argument for 0.
  zero = mean < jnp.finfo(mean.dtype).tiny
  return jnp.where(zero, 0, jnp.sqrt(jnp.sqrt(jnp.where(zero, 1, mean))))

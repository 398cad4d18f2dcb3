"""Feature similarity, with and without colour. Images are float in [0, 1], NHWC, RGB."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from hvsjnd_jax.metrics._pairs import check_pair, downsample_to_256
from hvsjnd_jax.ops import filters
from hvsjnd_jax.ops.color import YIQ, mix_channels
from hvsjnd_jax.ops.types import Images, Planes, Scores

# T in each similarity, on the 0..255 scale.
_CONGRUENCY_T = 0.85
_GRADIENT_T = 160
_CHROMA_T = 200

_CHROMA_EXPONENT = 0.03

# The bank of log-Gabor filters, under a Butterworth low-pass.
_SCALES = 4
_ORIENTATIONS = 4
_SHORTEST_WAVELENGTH_PX = 6
_SCALE_RATIO = 2
_RADIAL_SIGMA = 0.55  # as a ratio to a filter's centre frequency
_ANGULAR_SIGMA = math.pi / _ORIENTATIONS / 1.2
_CUTOFF, _ORDER = 0.45, 15

_NOISE_SIGMAS = 2  # above the mean noise, where energy begins to count
_EPSILON = 1e-4

FSIM_SMALLEST_PX = _SHORTEST_WAVELENGTH_PX


def fsim(
  distorted: Images, reference: Images, *, chroma: bool = True, gradient_floor: float = 1e-12
) -> Scores:
  """Feature similarity (FSIMc, or FSIM without `chroma`); higher is better, 1 if equal.

    sum_x S_PC S_G (S_I S_Q)^.03 PC_m / sum_x PC_m,  S(a, b) = (2ab + T) / (a² + b² + T)

  S_PC compares the phase congruency of luma (T = .85), S_G its Scharr gradient magnitude
  (T = 160), S_I and S_Q the colours I and Q (T = 200), on the 0..255 scale, after averaging to a
  shorter side of about 256 pixels; PC_m is the greater phase congruency of the two. If neither
  image has any (both are flat), all pixels weigh the same. FSIM does not see a difference between
  two flat grays, which have no features.

  The root in every magnitude, sqrt(x² + y² + e), amplifies the least noise in flat areas, as in
  `gmsd`; to train, pass `gradient_floor=1`.

  Args:
    distorted: Images in [0, 1], [B, H, W, 3], or [B, H, W, 1] without `chroma`, with sides of at
      least 6 pixels.
    reference: Originals, same shape.
    chroma: Whether colours count, as in the published JND code.
    gradient_floor: e, on the 0..255 scale.

  Returns:
    Scores in [0, 1], [B].

  Raises:
    TypeError, ValueError: As `psnr`; ValueError also for a number of channels that is neither 3
      nor, without `chroma`, 1.

  Source: Zhang et al., "FSIM: A feature similarity index for image quality assessment", 2011;
  phase congruency by Kovesi, "Image features from phase congruency", 1999. Deviations, as in the
  published JND code: the median in the noise estimate is the lower of the two middle values, and
  the power is of |S_I S_Q|, where the paper has the real part of the power of S_I S_Q.

  Examples:
    >>> image = jnp.full((1, 16, 16, 3), 0.5)
    >>> round(float(jax.jit(fsim)(image, image)[0]), 3)
    1.0
  """
  distorted, reference = check_pair("fsim", distorted, reference, smallest_px=FSIM_SMALLEST_PX)
  channels = distorted.shape[-1]
  if channels != 3 and (chroma or channels != 1):
    expected = "3 channels" if chroma else "3 channels or 1"
    raise ValueError(f"fsim: expected {expected}, got {channels}")
  images = 255 * jnp.concatenate([distorted, reference])
  planes = [images[..., 0]] if channels == 1 else [mix_channels(images, row) for row in YIQ]
  luma, *colours = (downsample_to_256(plane) for plane in planes)

  congruency = _halve(_phase_congruency(luma, floor=gradient_floor))
  gradients = _halve(
    filters.gradient_magnitude(luma, filters.SCHARR, floor=gradient_floor, border="zero")
  )
  similarity = _similarity(*congruency, _CONGRUENCY_T) * _similarity(*gradients, _GRADIENT_T)
  if chroma:
    in_i, in_q = (_similarity(*_halve(plane), _CHROMA_T) for plane in colours)
    similarity *= (jnp.abs(in_i * in_q) + 1e-12) ** _CHROMA_EXPONENT
  return _average(similarity, weights=jnp.maximum(*congruency))


def _halve(planes: Planes) -> tuple[Planes, Planes]:
  """Splits a stack into the distorted images and their references."""
  b = len(planes) // 2
  return planes[:b], planes[b:]


def _similarity(a: Planes, b: Planes, stability: float) -> Planes:
  return (2 * a * b + stability) / (a**2 + b**2 + stability)


def _average(similarity: Planes, *, weights: Planes) -> Scores:
  """Averages over the pixels, which all weigh the same where no weight is above 0."""
  featured = weights.sum(axis=(1, 2), keepdims=True) > 0
  weights = jnp.where(featured, weights, 1)
  return (similarity * weights).sum(axis=(1, 2)) / weights.sum(axis=(1, 2))


def _phase_congruency(luma: Planes, *, floor: float) -> Planes:
  """Returns local energy above noise over the sum of amplitudes, in [0, 1] at any contrast."""
  h, w = luma.shape[1:]
  bank = _filter_bank(h, w, luma.dtype.name)
  spectrum = jnp.fft.rfft2(luma)[:, None, None]  # [B, 1, 1, H, W // 2 + 1]
  real, imaginary = spectrum.real, spectrum.imag
  # The filtered image's real and imaginary parts, [B, orientation, scale, H, W]. The latter is
  # the real part of -i times what the filter's odd half gives.
  even_half, odd_half = bank.even[None], bank.odd[None]
  even = jnp.fft.irfft2(lax.complex(real * even_half, imaginary * even_half), s=(h, w))
  odd = jnp.fft.irfft2(lax.complex(imaginary * odd_half, -real * odd_half), s=(h, w))
  squared = even**2 + odd**2 + floor
  amplitude = jnp.sqrt(squared)

  # The mean phase of all scales, and how closely each scale follows it.
  even_sum, odd_sum = even.sum(axis=2), odd.sum(axis=2)
  length = jnp.sqrt(even_sum**2 + odd_sum**2 + floor) + _EPSILON
  even_mean, odd_mean = (even_sum / length)[:, :, None], (odd_sum / length)[:, :, None]
  along = even * even_mean + odd * odd_mean
  across = jnp.abs(even * odd_mean - odd * even_mean)
  energy = (along - across).sum(axis=2)

  # The threshold is for white noise, of the median power at the finest scale.
  power = _lower_median(squared[:, :, 0].reshape(*squared.shape[:2], -1)) / math.log(2)
  tau = jnp.sqrt(power * bank.noise_energy[None] / 2 + 1e-12)
  spread = jnp.sqrt((2 - math.pi / 2) * tau**2 + 1e-12)
  threshold = (tau * math.sqrt(math.pi / 2) + _NOISE_SIGMAS * spread) / 1.7
  energy = jax.nn.relu(energy - threshold[:, :, None, None])
  return energy.sum(axis=1) / amplitude.sum(axis=(1, 2))


def _lower_median(values: Float[Array, "b o n"]) -> Float[Array, "b o"]:
  """Returns the lower of the two middle values; its gradient goes to that one element.

  Floats >= 0 are ordered as their bits are, so the answer's bits are found one by one, each by
  counting. Sorting would take an order of magnitude longer.
  """
  rank = (values.shape[-1] - 1) // 2
  word, bits = (jnp.uint64, 64) if values.dtype == jnp.float64 else (jnp.uint32, 32)
  keys = lax.bitcast_convert_type(lax.stop_gradient(values), word)

  def step(i: Array, found: Array) -> Array:
    candidate = found | (jnp.ones((), word) << (bits - 1 - i).astype(word))
    below = (keys < candidate[..., None]).sum(axis=-1)
    return jnp.where(below <= rank, candidate, found)

  found = lax.fori_loop(0, bits, step, jnp.zeros(values.shape[:-1], word))
  index = jnp.argmax(keys == found[..., None], axis=-1)
  return jnp.take_along_axis(values, index[..., None], axis=-1)[..., 0]


class _FilterBank(NamedTuple):
  """Log-Gabor filters of one size, [orientation, scale, H, W // 2 + 1].

  A filter f passes one side of the spectrum and gives a complex image. Its even half
  (f(k) + f(-k)) / 2 gives the image's real part, and its odd half the imaginary part, each by a
  real transform.

  Attributes:
    even: The filters' even halves.
    odd: The filters' odd halves.
    noise_energy: For white noise, the energy of the summed scales over the power at the finest
      scale, [orientation].
  """

  even: np.ndarray
  odd: np.ndarray
  noise_energy: np.ndarray


@functools.lru_cache(maxsize=16)
def _filter_bank(h: int, w: int, dtype: str) -> _FilterBank:
  """Makes the filters of a size in float64, once."""
  x, y = np.meshgrid(_frequencies(w), _frequencies(h))
  radius = np.fft.ifftshift(np.hypot(x, y))
  radius[0, 0] = 1  # the image's mean, whose logarithm would be infinite and whose filter is 0
  x, y = np.meshgrid(*((np.arange(n) - n // 2) / n for n in (w, h)))
  theta = np.fft.ifftshift(np.arctan2(-y, x))
  x, y = np.meshgrid(_low_pass_frequencies(w), _low_pass_frequencies(h))
  low_pass = np.fft.ifftshift(1 / (1 + (np.hypot(x, y) / _CUTOFF) ** (2 * _ORDER)))

  radial = []
  for scale in range(_SCALES):
    centre = 1 / (_SHORTEST_WAVELENGTH_PX * _SCALE_RATIO**scale)
    gabor = np.exp(-(np.log(radius / centre) ** 2) / (2 * math.log(_RADIAL_SIGMA) ** 2))
    gabor[0, 0] = 0
    radial.append(gabor * low_pass)
  angular = []
  for orientation in range(_ORIENTATIONS):
    difference = theta - orientation * math.pi / _ORIENTATIONS
    difference = np.arctan2(np.sin(difference), np.cos(difference))
    angular.append(np.exp(-(difference**2) / (2 * _ANGULAR_SIGMA**2)))
  spectra = np.stack(angular)[:, None] * np.stack(radial)

  # sum_s f_s² and sum_{s<t} f_s f_t over all pixels, f = Re ifft2(filter) sqrt(HW).
  impulses = np.fft.ifft2(spectra).real * math.sqrt(h * w)
  own = (impulses**2).sum(axis=(1, 2, 3))
  crossed = ((impulses.sum(axis=1) ** 2).sum(axis=(1, 2)) - own) / 2
  noise_energy = (2 * own + 4 * crossed) / (spectra[:, 0] ** 2).sum(axis=(1, 2))

  mirrored = np.roll(spectra[..., ::-1, ::-1], 1, axis=(2, 3))
  half = np.s_[..., : w // 2 + 1]
  parts = ((spectra + mirrored)[half] / 2, (spectra - mirrored)[half] / 2, noise_energy)
  parts = [part.astype(dtype) for part in parts]
  for part in parts:
    part.flags.writeable = False  # all calls share it
  return _FilterBank(*parts)


def _frequencies(n: int) -> np.ndarray:
  """Returns frequencies for the log-Gabors' radius: from -0.5, up to 0.5 if n is odd."""
  return np.linspace(-0.5, 0.5, n, endpoint=n % 2 == 1)


def _low_pass_frequencies(n: int) -> np.ndarray:
  """Returns frequencies for the low-pass, which differ from the log-Gabors' where n is odd."""
  return np.arange(-(n - 1) / 2, n / 2) / (n - 1) if n % 2 else np.arange(-n / 2, n / 2) / n

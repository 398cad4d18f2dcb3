"""Image-quality metrics: closed forms, and oracles in NumPy and SciPy, float64."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import structural_similarity

from hvsjnd_jax import metrics
from hvsjnd_jax.metrics.fsim import _filter_bank, _lower_median

Images = Callable[..., jax.Array]
Metric = Callable[[jax.Array, jax.Array], jax.Array]

# Scores near 1 from float32 images.
F32 = 1e-5
# The same sums in float64, in another order.
F64 = 1e-10


def test_psnr_closed_form():
  reference = jnp.full((3, 8, 8, 3), 0.25)
  distorted = reference + jnp.asarray([0.1, 0.01, 0.0])[:, None, None, None]
  np.testing.assert_allclose(metrics.psnr(distorted, reference), [20, 40, 100], rtol=F32)


def test_psnr_by_channel():
  reference = jnp.zeros((1, 4, 4, 3))
  distorted = reference.at[..., 1].set(0.1)
  channels = [slice(c, c + 1) for c in range(3)]
  by_channel = [metrics.psnr(distorted[..., c], reference[..., c])[0] for c in channels]
  np.testing.assert_allclose(by_channel, [100, 20, 100], rtol=F32)
  # A third of the error: 10 log10(3) dB more.
  np.testing.assert_allclose(metrics.psnr(distorted, reference), 24.771213, rtol=F32)


@pytest.mark.usefixtures("x64")
def test_ssim_closed_form():
  """Two flat images differ in luminance alone."""
  distorted, reference = (jnp.full((1, 12, 12, 3), level) for level in (0.2, 0.6))
  want = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
  np.testing.assert_allclose(metrics.ssim(distorted, reference), want, rtol=F64)


def _mean_pool(image: np.ndarray, size: int = 2, *, pad: bool) -> np.ndarray:
  if pad:
    margins = [(side % 2, side % 2) for side in image.shape[:2]]
    image = np.pad(image, [*margins, (0, 0)])
  h, w, _ = image.shape
  image = image[: h // size * size, : w // size * size]
  cells = [image[i::size, j::size] for i in range(size) for j in range(size)]
  return np.mean(cells, axis=0)


def _ssim_maps(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  def blur(image: np.ndarray) -> np.ndarray:
    window = np.exp(-(np.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2))
    for axis in (0, 1):
      image = ndimage.correlate1d(image, window / window.sum(), axis=axis)
    return image[5:-5, 5:-5]

  mx, my = blur(x), blur(y)
  vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
  return (
    (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4),
    (2 * cov + 9e-4) / (vx + vy + 9e-4),
  )


def _ssim_oracle(x: np.ndarray, y: np.ndarray, variant: str = "reference") -> float:
  luminance, contrast = _ssim_maps(x, y)
  return (luminance * (contrast.clip(0) if variant == "reference" else contrast)).mean()


def _ms_ssim_oracle(x: np.ndarray, y: np.ndarray, variant: str = "wang2003") -> float:
  """The released form written as it stands: a product of products."""
  terms = []
  for scale in range(5):
    if scale > 0:
      x, y = _mean_pool(x, pad=True), _mean_pool(y, pad=True)
    luminance, contrast = _ssim_maps(x, y)
    if variant == "reference":
      contrast = contrast.clip(0)
    term = (luminance if scale == 4 else 1) * contrast
    terms.append(term.mean() if variant == "reference" else term.mean(axis=(0, 1)).clip(0))
  weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
  *rest, last = (term**weight for term, weight in zip(terms, weights, strict=True))
  if variant == "reference":
    return float(np.prod([term * last for term in rest]))
  return float(np.mean(np.prod([*rest, last], axis=0)))


def _gmsd_oracle(distorted: np.ndarray, reference: np.ndarray) -> float:
  """On the 0..255 scale of the paper."""

  def magnitude(image: np.ndarray) -> np.ndarray:
    image = np.pad(_mean_pool(255 * image, pad=False), ((1, 1), (1, 1), (0, 0)))
    kernel = np.outer(np.ones(3), [1, 0, -1])[:, :, None] / 3
    slopes = (ndimage.correlate(image, k)[1:-1, 1:-1] for k in (kernel, kernel.swapaxes(0, 1)))
    return np.sqrt(np.sum([slope**2 for slope in slopes], axis=0) + 1e-12)

  d, r = magnitude(distorted), magnitude(reference)
  return ((2 * d * r + 170) / (d**2 + r**2 + 170)).std(ddof=1)


def _phase_congruency_oracle(luma: np.ndarray) -> np.ndarray:
  """By complex transforms, filter by filter."""
  h, w = luma.shape

  def grid(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return columns[None, :] + 0 * rows[:, None], rows[:, None] + 0 * columns[None, :]

  def radius_axis(n: int) -> np.ndarray:
    return np.linspace(-0.5, 0.5, n, endpoint=bool(n % 2))

  def low_pass_axis(n: int) -> np.ndarray:
    return (
      np.arange(-(n - 1) / 2, (n - 1) / 2 + 1) / (n - 1) if n % 2 else np.arange(-n / 2, n / 2) / n
    )

  def angle_axis(n: int) -> np.ndarray:
    return (np.arange(n) - n // 2) / n

  x, y = grid(radius_axis(h), radius_axis(w))
  radius = np.fft.ifftshift(np.sqrt(x**2 + y**2))
  radius[0, 0] = 1
  x, y = grid(low_pass_axis(h), low_pass_axis(w))
  low_pass = np.fft.ifftshift(1 / (1 + (np.sqrt(x**2 + y**2) / 0.45) ** 30))
  x, y = grid(angle_axis(h), angle_axis(w))
  theta = np.fft.ifftshift(np.arctan2(-y, x))

  total_energy, total_amplitude = np.zeros((h, w)), np.zeros((h, w))
  for angle in np.arange(4) * np.pi / 4:
    distance = np.abs((theta - angle + np.pi) % (2 * np.pi) - np.pi)
    spread = np.exp(-(distance**2) / (2 * (np.pi / 4 / 1.2) ** 2))
    responses, impulses, noise = [], [], 0.0
    for scale in range(4):
      gabor = np.exp(-(np.log(radius * 6 * 2**scale) ** 2) / (2 * np.log(0.55) ** 2)) * low_pass
      gabor[0, 0] = 0
      responses.append(np.fft.ifft2(np.fft.fft2(luma) * gabor * spread))
      impulses.append(np.fft.ifft2(gabor * spread).real * np.sqrt(h * w))
      if scale == 0:
        squared = np.sort((np.abs(responses[0]) ** 2 + 1e-12).ravel())
        noise = squared[(len(squared) - 1) // 2] / -np.log(0.5) / ((gabor * spread) ** 2).sum()
    mean = sum(responses)
    mean = mean / (np.sqrt(np.abs(mean) ** 2 + 1e-12) + 1e-4)
    energy = sum((r * mean.conj()).real - np.abs((r * mean.conj()).imag) for r in responses)
    own = sum((f**2).sum() for f in impulses)
    crossed = sum((impulses[i] * impulses[j]).sum() for i in range(4) for j in range(i + 1, 4))
    tau = np.sqrt((2 * noise * own + 4 * noise * crossed) / 2 + 1e-12)
    sigma = np.sqrt((2 - np.pi / 2) * tau**2 + 1e-12)
    total_energy += np.maximum(energy - (tau * np.sqrt(np.pi / 2) + 2 * sigma) / 1.7, 0)
    total_amplitude += sum(np.sqrt(np.abs(r) ** 2 + 1e-12) for r in responses)
  return total_energy / total_amplitude


def _fsim_oracle(distorted: np.ndarray, reference: np.ndarray, *, chroma: bool = True) -> float:
  yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
  factor = max(1, round(min(distorted.shape[:2]) / 256))
  pair = [_mean_pool(255 * image @ yiq.T, factor, pad=False) for image in (distorted, reference)]

  def similarity(maps: list[np.ndarray], stability: float) -> np.ndarray:
    a, b = maps
    return (2 * a * b + stability) / (a**2 + b**2 + stability)

  def magnitude(luma: np.ndarray) -> np.ndarray:
    kernel = np.outer([3, 10, 3], [1, 0, -1]) / 16
    slopes = (ndimage.correlate(luma, k, mode="constant") for k in (kernel, kernel.T))
    return np.sqrt(np.sum([slope**2 for slope in slopes], axis=0) + 1e-12)

  congruency = [_phase_congruency_oracle(image[..., 0]) for image in pair]
  score = similarity(congruency, 0.85)
  score = score * similarity([magnitude(image[..., 0]) for image in pair], 160)
  if chroma:
    colours = [similarity([image[..., c] for image in pair], 200) for c in (1, 2)]
    score = score * (np.abs(colours[0] * colours[1]) + 1e-12) ** 0.03
  weights = np.maximum(*congruency)
  return (score * weights).sum() / weights.sum()


ORACLES = {
  "ssim": (metrics.ssim, _ssim_oracle, (31, 46)),
  "ssim, 400 pixels": (metrics.ssim, _ssim_oracle, (400, 391)),
  "ssim, wang2004": (
    functools.partial(metrics.ssim, variant="wang2004"),
    functools.partial(_ssim_oracle, variant="wang2004"),
    (31, 46),
  ),
  "ms_ssim": (metrics.ms_ssim, _ms_ssim_oracle, (166, 171)),  # odd at some scales
  "ms_ssim, reference": (
    functools.partial(metrics.ms_ssim, variant="reference"),
    functools.partial(_ms_ssim_oracle, variant="reference"),
    (171, 166),
  ),
  "gmsd": (metrics.gmsd, _gmsd_oracle, (64, 48)),
  "gmsd, odd": (metrics.gmsd, _gmsd_oracle, (33, 51)),
  "fsim": (metrics.fsim, _fsim_oracle, (48, 32)),
  "fsim, odd": (metrics.fsim, _fsim_oracle, (33, 51)),
  "fsim, luma": (
    functools.partial(metrics.fsim, chroma=False),
    functools.partial(_fsim_oracle, chroma=False),
    (31, 46),
  ),
  "fsim, shrunk": (metrics.fsim, _fsim_oracle, (387, 391)),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("metric", "oracle", "size"), ORACLES.values(), ids=ORACLES)
def test_float64_oracle(
  draw_images: Images,
  metric: Metric,
  oracle: Callable[[np.ndarray, np.ndarray], float],
  size: tuple[int, int],
):
  reference = np.asarray(draw_images(1, *size), np.float64)
  noise = np.random.default_rng(1).normal(scale=0.1, size=reference.shape)
  distorted = np.clip(reference + noise, 0, 1)
  score = jax.jit(metric)(jnp.asarray(distorted), jnp.asarray(reference))
  np.testing.assert_allclose(score, oracle(distorted[0], reference[0]), rtol=F64)


def test_fsim_of_one_channel_is_that_of_its_gray_image(draw_images: Images):
  distorted, reference = (draw_images(1, 32, 32, seed=seed)[..., :1] for seed in (1, 2))
  luma_fsim = jax.jit(functools.partial(metrics.fsim, chroma=False))
  gray = luma_fsim(distorted, reference)
  rgb = luma_fsim(*(image.repeat(3, -1) for image in (distorted, reference)))
  np.testing.assert_allclose(gray, rgb, rtol=F32)
  with pytest.raises(ValueError, match="fsim: expected 3 channels, got 1"):
    metrics.fsim(distorted, reference)


def test_fsim_builds_its_filters_once_for_each_size():
  _filter_bank.cache_clear()
  for shape in ((1, 16, 18, 3), (2, 16, 18, 3), (1, 16, 17, 3), (1, 16, 18, 3)):
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    jax.eval_shape(metrics.fsim, images, images)
  assert _filter_bank.cache_info().misses == 2


@pytest.mark.parametrize("size", [1, 2, 7, 8, 1000])
def test_lower_median_and_its_gradient(size: int):
  values = np.random.default_rng(size).gamma(1, 1e3, (2, 3, size)).astype(np.float32)
  values[0, 0] = 0
  median, vjp = jax.vjp(_lower_median, jnp.asarray(values))
  np.testing.assert_array_equal(median, np.sort(values)[..., (size - 1) // 2])
  (gradient,) = vjp(jnp.ones_like(median))
  assert ((gradient == 1).sum(axis=-1) == 1).all()
  np.testing.assert_array_equal((gradient * values).sum(axis=-1), median)


@pytest.mark.usefixtures("x64")
def test_ssim_of_a_negative(draw_images: Images):
  """scikit-image gives the plain form, and the published code's ends at 0."""
  image = np.asarray(draw_images(1, 48, 40), np.float64)
  want: Any = structural_similarity(
    1 - image[0],
    image[0],
    gaussian_weights=True,
    use_sample_covariance=False,
    data_range=1.0,
    channel_axis=-1,
  )
  assert want < -0.5
  pair = jnp.asarray(1 - image), jnp.asarray(image)
  np.testing.assert_allclose(metrics.ssim(*pair, variant="wang2004"), want, rtol=F64)
  assert metrics.ssim(*pair)[0] == 0


def test_ssim_variant_is_checked():
  images = jnp.zeros((1, 16, 16, 3))
  with pytest.raises(ValueError, match="ssim: expected variant reference or wang2004, got plain"):
    metrics.ssim(images, images, variant="plain")  # pyright: ignore[reportArgumentType]


def test_ms_ssim_variant_is_checked():
  images = jnp.zeros((1, 161, 161, 3))
  with pytest.raises(ValueError, match="expected variant wang2003 or reference, got other"):
    metrics.ms_ssim(images, images, variant="other")  # pyright: ignore[reportArgumentType]

"""Image-quality metrics against closed forms, float64 oracles and golden numbers."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from hvsjnd_jax import metrics

DATA = Path(__file__).parent / "data"

Images = Callable[..., jax.Array]
Metric = Callable[[jax.Array, jax.Array], jax.Array]

# Scores near 1 from float32 images.
F32 = 1e-5
# Of a gradient's maximum: PyTorch's and JAX's float32 sums of some hundred terms.
GRADIENT = 1e-4
# Variances as differences of squares: float32 leaves 1e-7 beside C2 = 9e-4.
IDENTITY = 1e-5


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
  with np.load(DATA / "metrics_coffee_176_noise.npz") as file:
    return dict(file)


@pytest.fixture(scope="module")
def pair(golden: dict[str, np.ndarray]) -> tuple[jax.Array, jax.Array]:
  """Distorted and reference, [1, 176, 176, 3]."""
  distorted, reference = (golden[name][None] / 255 for name in ("distorted", "reference"))
  return jnp.asarray(distorted, jnp.float32), jnp.asarray(reference, jnp.float32)


def _mean_pool(image: np.ndarray, *, pad: bool) -> np.ndarray:
  h, w, _ = image.shape
  if pad:
    image = np.pad(image, ((h % 2, h % 2), (w % 2, w % 2), (0, 0)))
    h, w, _ = image.shape
  image = image[: h // 2 * 2, : w // 2 * 2]
  return (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4


def _ms_ssim_oracle(distorted: np.ndarray, reference: np.ndarray, variant: str) -> float:
  """MS-SSIM of [H, W, C] in float64; the released one differs twice."""

  def blur(image: np.ndarray) -> np.ndarray:
    window = np.exp(-(np.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2))
    for axis in (0, 1):
      image = ndimage.correlate1d(image, window / window.sum(), axis=axis)
    return image[5:-5, 5:-5]

  x, y = distorted.astype(np.float64), reference.astype(np.float64)
  score = np.ones(3)
  for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
    if scale > 0:
      x, y = _mean_pool(x, pad=True), _mean_pool(y, pad=True)
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    term = (2 * cov + 9e-4) / (vx + vy + 9e-4)
    if scale == 4:
      term = term * (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
      weight *= 4 if variant == "released" else 1  # counted with every scale before
    term = term.mean(axis=(0, 1)).clip(0)
    # The released form takes the channels' mean at each scale, not of the products.
    score *= (term.mean() if variant == "released" else term) ** weight
  return score.mean()


def _gmsd_oracle(distorted: np.ndarray, reference: np.ndarray) -> float:
  """GMSD of [H, W, C] in float64, on the 0..255 scale of the paper."""

  def magnitude(image: np.ndarray) -> np.ndarray:
    image = np.pad(_mean_pool(255 * image.astype(np.float64), pad=False), ((1, 1), (1, 1), (0, 0)))
    kernel = np.outer(np.ones(3), [1, 0, -1])[:, :, None] / 3
    slopes = (ndimage.correlate(image, k)[1:-1, 1:-1] for k in (kernel, kernel.swapaxes(0, 1)))
    return np.sqrt(sum(slope**2 for slope in slopes) + 1e-12)

  d, r = magnitude(distorted), magnitude(reference)
  return ((2 * d * r + 170) / (d**2 + r**2 + 170)).std(ddof=1)


def test_psnr_closed_form():
  reference = jnp.full((3, 8, 8, 3), 0.25)
  distorted = reference + jnp.asarray([0.1, 0.01, 0.0])[:, None, None, None]
  np.testing.assert_allclose(metrics.psnr(distorted, reference), [20, 40, 100], rtol=F32)


def test_psnr_by_channel():
  reference = jnp.zeros((1, 4, 4, 3))
  distorted = reference.at[..., 1].set(0.1)
  by_channel = [metrics.psnr(distorted[..., [c]], reference[..., [c]])[0] for c in range(3)]
  np.testing.assert_allclose(by_channel, [100, 20, 100], rtol=F32)
  # A third of the error: 10 log10(3) dB more.
  np.testing.assert_allclose(metrics.psnr(distorted, reference), 24.771213, rtol=F32)


def test_gmsd_golden(golden: dict[str, np.ndarray], pair: tuple[jax.Array, jax.Array]):
  np.testing.assert_allclose(metrics.gmsd(*pair), golden["gmsd"], rtol=F32)
  gradient = jax.jit(jax.grad(lambda d, r: metrics.gmsd(d, r)[0]))(*pair)
  step, want = int(golden["step"]), golden["grad_gmsd"]
  atol = GRADIENT * np.abs(want).max()
  np.testing.assert_allclose(gradient[0, ::step, ::step], want, rtol=0, atol=atol)


def test_ms_ssim_oracle_gives_the_golden_value(golden: dict[str, np.ndarray]):
  released = _ms_ssim_oracle(golden["distorted"] / 255, golden["reference"] / 255, "released")
  np.testing.assert_allclose(released, golden["ms_ssim"], rtol=F32)


def test_ms_ssim_against_oracle(pair: tuple[jax.Array, jax.Array]):
  # Sides that are odd at some scales and even at others.
  distorted, reference = (image[:, :171, :166] for image in pair)
  want = _ms_ssim_oracle(np.asarray(distorted[0]), np.asarray(reference[0]), "wang2003")
  np.testing.assert_allclose(jax.jit(metrics.ms_ssim)(distorted, reference), want, rtol=F32)


@pytest.mark.parametrize("size", [(64, 48), (33, 51)], ids=["even", "odd"])
def test_gmsd_against_oracle(pair: tuple[jax.Array, jax.Array], size: tuple[int, int]):
  h, w = size
  distorted, reference = (image[:, :h, :w] for image in pair)
  want = _gmsd_oracle(np.asarray(distorted[0]), np.asarray(reference[0]))
  np.testing.assert_allclose(metrics.gmsd(distorted, reference), want, rtol=F32)


@pytest.mark.parametrize(
  ("metric", "best"),
  [(metrics.psnr, 100), (metrics.ms_ssim, 1), (metrics.gmsd, 0)],
  ids=["psnr", "ms_ssim", "gmsd"],
)
def test_identity_symmetry_and_one_score_an_image(
  pair: tuple[jax.Array, jax.Array], metric: Metric, best: float
):
  distorted, reference = (image[:, :168, :168] for image in pair)
  first = jnp.concatenate([distorted, reference, reference])
  second = jnp.concatenate([reference, distorted, reference])
  there, back, equal = jax.jit(metric)(first, second)
  np.testing.assert_allclose(equal, best, rtol=0, atol=IDENTITY)
  np.testing.assert_allclose(there, back, rtol=F32)
  assert abs(there - best) > 0.01


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ms_ssim, metrics.gmsd])
def test_flat_and_equal_pairs_give_finite_values_and_gradients(
  metric: Metric, flat_images: Images, draw_images: Images
):
  black, grey, white = flat_images(168)
  photo = draw_images(1, 168, 168)[0]
  pairs = [(black, white), (grey, grey), (black, black), (photo, grey), (grey, photo)]
  pairs += [(white, white), (photo, photo)]
  distorted, reference = (jnp.stack(images) for images in zip(*pairs, strict=True))

  @jax.jit
  def run(distorted: jax.Array) -> tuple[jax.Array, jax.Array]:
    scores, vjp = jax.vjp(lambda d: metric(d, reference), distorted)
    return scores, vjp(jnp.ones_like(scores))[0]

  for leaf in run(distorted):
    assert leaf.shape[0] == len(pairs)
    assert jnp.isfinite(leaf).all()


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ms_ssim, metrics.gmsd])
@pytest.mark.parametrize(
  ("distorted", "reference", "error", "message"),
  [
    ((1, 168, 168, 3), (1, 168, 168, 1), ValueError, r"distorted .*3\) and reference .*1\)"),
    ((2, 168, 168, 3), (1, 168, 168, 3), ValueError, r"one shape \[B, H, W, C\]"),
    ((168, 168, 3), (168, 168, 3), ValueError, r"got distorted \(168, 168, 3\)"),
  ],
  ids=["channels", "batch", "rank"],
)
def test_bad_pairs_are_named(
  metric: Metric,
  distorted: tuple[int, ...],
  reference: tuple[int, ...],
  error: type[Exception],
  message: str,
):
  with pytest.raises(error, match=message):
    metric(jnp.zeros(distorted), jnp.zeros(reference))


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ms_ssim, metrics.gmsd])
def test_8_bit_pairs_are_named(metric: Metric):
  float_images = jnp.zeros((1, 168, 168, 3))
  with pytest.raises(TypeError, match="got reference of uint8; divide"):
    metric(float_images, float_images.astype(jnp.uint8))


def test_gmsd_gradient_floor_tames_the_gradient_on_flat_images(flat_images: Images):
  reference = flat_images(16)[1:2]
  distorted = reference + 1e-3 * jax.random.normal(jax.random.key(0), reference.shape)

  def size(gradient_floor: float) -> float:
    def score(distorted: jax.Array) -> jax.Array:
      return metrics.gmsd(distorted, reference, gradient_floor=gradient_floor)[0]

    return float(jnp.abs(jax.jit(jax.grad(score))(distorted)).max())

  assert size(1.0) < size(1e-12)


@pytest.mark.parametrize("size", [(160, 200), (200, 160)], ids=["low", "narrow"])
def test_ms_ssim_names_its_least_size(size: tuple[int, int]):
  images = jnp.zeros((1, *size, 3))
  with pytest.raises(ValueError, match="above 160 pixels, got 160"):
    metrics.ms_ssim(images, images)

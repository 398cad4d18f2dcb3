"""The objectives of both training stages.

Images and maps are float32 in [0, 1], NHWC, RGB. A loss gives one value for each image,
[B]; an objective gives the total and every term by name, as scalars. Every image brings the
key of its own noise, so that a batch computed in parts, on any devices, sees the same.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from hvsjnd_jax.config import JNDConfig, RateDistortionConfig
from hvsjnd_jax.estimator import JNDModel, inject, random_signs
from hvsjnd_jax.hvs_sd import HVSSD
from hvsjnd_jax.metrics import gmsd, ms_ssim
from hvsjnd_jax.priors import compute_priors

Images = Float[Array, "b h w 3"]
Losses = Float[Array, " b"]
Keys = Key[Array, " b"]
Terms = dict[str, Float[Array, ""]]

# A hundredth of a gray level: keeps the logarithm of an amplitude finite at zero.
_AMPLITUDE_FLOOR = 0.01 / 255
# Contrast below which nothing is masked, two gray levels, and the exponent by which
# thresholds grow with contrast above it (Legge & Foley, 1980).
_MASKING_FLOOR = 2 / 255
_MASKING_EXPONENT = 0.6
_MASKING_WINDOW_PX = 5
_LUMA = (0.299, 0.587, 0.114)
# On the 0..255 scale; see `metrics.gmsd`.
_TRAINING_GRADIENT_FLOOR = 1.0


def rate_distortion_objective(
  hvs_sd: HVSSD, images: Images, keys: Keys, *, config: RateDistortionConfig
) -> tuple[Array, Terms]:
  """Stage 1: train_lambda · MSE + bits per pixel.

  Uniform noise U(-.5, .5) on the feature stands for rounding. Without it the encoder
  could shrink the feature, and the rate would fall for nothing.

  Args:
    hvs_sd: The network that is trained.
    images: Crops, sides multiples of 8.
    keys: Sources of the noise, one for each image.
    config: The trade-off.

  Returns:
    The total, and the terms "mse" and "bpp".

  Source: Ballé et al., "End-to-end Optimized Image Compression", 2017. Deviation: the
  released training file draws the noise and leaves it unused.
  """
  feature = hvs_sd.encoder(images)
  shape = feature.shape[1:]
  noise = jax.vmap(lambda key: jax.random.uniform(key, shape, minval=-0.5, maxval=0.5))(keys)
  noisy = feature + noise
  mse = jnp.square(hvs_sd.decoder(noisy) - images).mean()
  bpp = hvs_sd.bits_per_pixel(noisy).mean()
  return config.train_lambda * mse + bpp, {"mse": mse, "bpp": bpp}


def jnd_objective(
  model: JNDModel, images: Images, keys: Keys, *, config: JNDConfig
) -> tuple[Array, Terms]:
  """Stage 2: hide as much noise as asked for where the perceptual domain shows it least.

  The paper's three losses, and one on masking: magnitude holds each channel of the map to
  a target; quality compares x2 with y2; attention compares xc with yc; visibility asks
  for more noise where contrast masks it, and less where it does not.

  Args:
    model: Trained in its generator; differentiate with respect to that alone.
    images: Crops of at least 168 pixels, sides multiples of 8.
    keys: Sources of the noise's signs, one for each image.
    config: Weights and targets.

  Returns:
    The total, and the terms "magnitude", "quality", "attention" and "visibility", unweighted.

  Source: Jin et al., arXiv 2208.07583. Weights, target and the visibility term are ours:
  the paper's are not published.
  """
  # Unused parts of the priors (the gradient of the distorted image) cost nothing: the
  # compiler drops them.
  clean = jax.lax.stop_gradient(compute_priors(model.hvs_sd, images, attention=config.attention))
  jnd = model.generator(images, clean.attention, clean.gradient, resolution=config.resolution)
  signs = jax.vmap(lambda key: random_signs(key, images.shape[1:3]))(keys)
  distorted = inject(images, jnd, signs, lmbda=config.lmbda)
  noisy = compute_priors(model.hvs_sd, distorted, attention=config.attention)

  noise = config.lmbda * jnd
  terms = {
    "magnitude": magnitude_loss(noise, target=config.magnitude_target),
    "quality": quality_loss(noisy.degraded, clean.degraded),
    "attention": jnp.abs(noisy.attention - clean.attention).mean(axis=(1, 2, 3)),
    "visibility": visibility_loss(noise, images),
  }
  terms = {name: value.mean() for name, value in terms.items()}
  total = sum(getattr(config, f"{name}_weight") * value for name, value in terms.items())
  return jnp.asarray(total), terms


def magnitude_loss(noise: Images, *, target: float) -> Losses:
  """log((N² + T²) / (2 N T)) for the geometric mean N of each channel, averaged.

  Zero where N = T, and symmetric in log N (but for a floor of a hundredth of a gray level
  under every amplitude). Channel by channel: a total lets the generator hide all its
  noise in one channel. The geometric mean, because it presses on every pixel alike: an
  arithmetic or quadratic mean is met most cheaply by few huge peaks on the strongest
  edges.

  Args:
    noise: Amplitudes, lmbda · JND map, >= 0.
    target: T > 0, in the same units.

  Returns:
    Losses, [B], >= 0.

  Source: the form is the released magnitude loss's; there it holds the sum of the
  channels' arithmetic means.
  """
  typical = jnp.exp(jnp.log(noise + _AMPLITUDE_FLOOR).mean(axis=(1, 2)))
  return jnp.log((typical**2 + target**2) / (2 * typical * target)).mean(axis=-1)


def visibility_loss(noise: Images, images: Images) -> Losses:
  """Noise power in units of the power that local contrast masks.

  mean of N² / (s² + c²)^0.6, where s is the standard deviation of luma in 5x5 pixels and c
  two gray levels: a power law of contrast masking. The map that hides a given geometric
  mean best under it is proportional to s^0.6 where s is large.

  Args:
    noise: Amplitudes, lmbda · JND map.
    images: The images that are to hide them.

  Returns:
    Losses, [B], >= 0.

  Source: Legge & Foley, "Contrast masking in human vision", 1980.
  """
  luma = images @ jnp.asarray(_LUMA, images.dtype)
  margin = _MASKING_WINDOW_PX // 2
  luma = jnp.pad(luma, ((0, 0), (margin, margin), (margin, margin)), mode="reflect")

  def local_mean(maps: Array) -> Array:
    window = (1, _MASKING_WINDOW_PX, _MASKING_WINDOW_PX)
    return lax.reduce_window(maps, 0.0, lax.add, window, (1, 1, 1), "VALID") / window[1] ** 2

  variance = jnp.maximum(local_mean(luma**2) - local_mean(luma) ** 2, 0)
  masked = (variance + _MASKING_FLOOR**2) ** _MASKING_EXPONENT
  return (jnp.square(noise) / masked[..., None]).mean(axis=(1, 2, 3))


def quality_loss(distorted: Images, reference: Images) -> Losses:
  """(1 - MS-SSIM + GMSD) / 2, for images of more than 160 pixels a side."""
  structure = 1 - ms_ssim(distorted, reference)
  edges = gmsd(distorted, reference, gradient_floor=_TRAINING_GRADIENT_FLOOR)
  return (structure + edges) / 2

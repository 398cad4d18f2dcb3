"""The objectives of both training stages."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from hvsjnd_jax.metrics import ms_ssim
from hvsjnd_jax.metrics.backbones import Backbones
from hvsjnd_jax.model.hvs_sd import HVSSD
from hvsjnd_jax.model.jnd_map import draw_jnd
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.model.masking import threshold
from hvsjnd_jax.model.priors import compute_priors
from hvsjnd_jax.noise import inject, random_signs
from hvsjnd_jax.ops.types import RGBImages
from hvsjnd_jax.training.config import JNDConfig, RateDistortionConfig
from hvsjnd_jax.training.losses import (
  _TRAINING_GRADIENT_FLOOR,
  aic_loss,
  attention_loss,
  classify,
  magnitude_loss,
  mean_magnitude_loss,
  quality_loss,
  rms_magnitude_loss,
  total_variation_loss,
  visibility_loss,
)

Keys = Key[Array, " b"]

Terms = dict[str, Float[Array, ""]]


def rate_distortion_objective(
  hvs_sd: HVSSD, images: RGBImages, keys: Keys, *, config: RateDistortionConfig
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

  Examples:
    >>> def measure(hvs_sd, images):
    ...   keys = jax.random.split(jax.random.key(0), len(images))
    ...   return rate_distortion_objective(hvs_sd, images, keys, config=RateDistortionConfig())
    >>> total, terms = jax.eval_shape(measure, hvsjnd_jax.load().hvs_sd, jnp.zeros((1, 8, 8, 3)))
    >>> sorted(terms)
    ['bpp', 'mse']
  """
  feature = hvs_sd.encoder(images)
  shape = feature.shape[1:]
  noise = jax.vmap(lambda key: jax.random.uniform(key, shape, minval=-0.5, maxval=0.5))(keys)
  noisy = feature + noise
  mse = jnp.square(hvs_sd.decoder(noisy) - images).mean()
  bpp = hvs_sd.bits_per_pixel(noisy).mean()
  return config.train_lambda * mse + bpp, {"mse": mse, "bpp": bpp}


def jnd_objective(
  model: JNDModel,
  images: RGBImages,
  keys: Keys,
  *,
  config: JNDConfig,
  backbones: Backbones | None = None,
) -> tuple[Array, Terms]:
  """Stage 2: hide as much noise as asked for where the perceptual domain shows it least.

  The paper's three losses, and one on masking: magnitude says how much noise there shall
  be; quality compares x2 with y2; attention compares xc with yc; visibility keeps noise even
  in units of what contrast and luminance mask (`masking.threshold`), which are those of
  "geometric" too. The first three have forms:

    magnitude_form  "geometric" `magnitude_loss` and "rms" `rms_magnitude_loss` (ours),
                    "mean" `mean_magnitude_loss`, "total_variation" `total_variation_loss`
    quality_form    "ms_ssim_gmsd" `quality_loss` (ours), "ms_ssim" 1 - MS-SSIM (variant
                    "reference"), "aic" `aic_loss` of the trio that y2's class picks
    quality_domain  "perceptual" (the paper's); "pixels": x with y, and y's class, to see
                    what the perceptual domain is worth
    attention_form  "l1" (ours), "kl", "correlation": `attention_loss`

  The three released objectives, of no attention and no visibility term, are "mean" · 0.1 +
  "aic", "total_variation" + "aic", and "mean" · 0.1 + "ms_ssim".

  Args:
    model: Trained in its generator; differentiate with respect to that alone.
    images: Crops of at least 168 pixels, sides multiples of 8.
    keys: Sources of the noise's signs, one for each image.
    config: Forms, weights and targets.
    backbones: What "aic" is computed with; frozen, as HVS-SD.

  Returns:
    The total, and the terms "magnitude", "quality", "attention" and "visibility", unweighted.

  Raises:
    ValueError: If the form "aic" gets no backbones.

  Source: Jin et al., arXiv 2208.07583. Weights, target and the visibility term are ours:
  the paper's are not published. Deviation: GMSD and FSIM train with a floor of 1 gray
  level under their gradient magnitudes, where the published 1e-12 makes noise of the
  gradient.

  Examples:
    >>> def measure(model, images):
    ...   keys = jax.random.split(jax.random.key(0), len(images))
    ...   return jnd_objective(model, images, keys, config=JNDConfig())
    >>> total, terms = jax.eval_shape(measure, hvsjnd_jax.load(), jnp.zeros((1, 168, 168, 3)))
    >>> sorted(terms)
    ['attention', 'magnitude', 'quality', 'visibility']
  """
  # Unused parts of the priors (the gradient of the distorted image) cost nothing: the
  # compiler drops them.
  clean = jax.lax.stop_gradient(
    compute_priors(model.hvs_sd, images, attention_layer=config.attention)
  )
  jnd = draw_jnd(
    model.generator, images, clean.attention, clean.gradient, resolution=config.resolution
  )
  signs = jax.vmap(lambda key: random_signs(key, images.shape[1:3]))(keys)
  distorted = inject(images, jnd, signs, lmbda=config.lmbda)
  noisy = compute_priors(model.hvs_sd, distorted, attention_layer=config.attention)

  thresholds = threshold(images)
  noise = config.lmbda * jnd / thresholds
  if config.magnitude_form == "geometric":
    magnitude = magnitude_loss(noise, target=config.magnitude_target)
  elif config.magnitude_form == "rms":
    magnitude = rms_magnitude_loss(noise, thresholds, target=config.magnitude_target)
  elif config.magnitude_form == "mean":
    magnitude = mean_magnitude_loss(jnd, images)
  else:
    magnitude = total_variation_loss(jnd, images)
  if config.quality_domain == "perceptual":
    pair = noisy.degraded, clean.degraded
  else:
    pair = distorted, images
  if config.quality_form == "ms_ssim_gmsd":
    quality = quality_loss(*pair)
  elif config.quality_form == "ms_ssim":
    quality = 1 - ms_ssim(*pair, variant="reference")
  else:
    if backbones is None:
      raise ValueError(
        "jnd_objective: quality_form 'aic' needs backbones: see weights.load_vgg16 and "
        "weights.load_classifier"
      )
    quality = aic_loss(
      *pair,
      classify(backbones.classifier, pair[0]),
      vgg16=backbones.vgg16,
      gradient_floor=_TRAINING_GRADIENT_FLOOR,
    )
  terms = {
    "magnitude": magnitude,
    "quality": quality,
    "attention": attention_loss(noisy.attention, clean.attention, form=config.attention_form),
    "visibility": visibility_loss(noise, power=config.visibility_power),
  }
  terms = {name: value.mean() for name, value in terms.items()}
  total = sum(getattr(config, f"{name}_weight") * value for name, value in terms.items())
  return jnp.asarray(total), terms

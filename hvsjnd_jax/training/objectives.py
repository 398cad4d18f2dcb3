"""The objectives of both training stages: weighted sums of losses.

Images and maps are float32 in [0, 1], NHWC, RGB. An objective returns the total and every term
by name, as scalars. Every image has its own key, from which its noise is drawn, so that a batch
computed in parts, on any devices, sees the same noise.

Stage 2's objective sums the paper's three losses and one on masking. Magnitude says how much
noise there is to be; quality compares x2 with y2; attention compares xc with yc; visibility
keeps noise even in units of the masking threshold, which are those of "geometric" too
(`masking.threshold`). The config chooses the forms of the first three:

  magnitude_form  "geometric" `magnitude_loss` and "rms" `rms_magnitude_loss` (ours),
                  "mean" `mean_magnitude_loss`, "total_variation" `total_variation_loss`
  quality_form    "ms_ssim_gmsd" `quality_loss` (ours), "ms_ssim" 1 - MS-SSIM (variant
                  "reference"), "aic" `aic_loss` of the trio that y2's class picks
  quality_domain  "perceptual" (the paper's); "pixels" compares x with y and classifies y,
                  to see what the perceptual domain is worth
  attention_form  "l1" (ours), "kl", "correlation": `attention_loss`

The three released objectives are "mean" · 0.1 + "aic", "total_variation" + "aic", and
"mean" · 0.1 + "ms_ssim", all without an attention or a visibility term.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from hvsjnd_jax.metrics import ms_ssim
from hvsjnd_jax.metrics.backbones import Backbones
from hvsjnd_jax.model.generator import JNDGenerator
from hvsjnd_jax.model.hvs_sd import HVSSD
from hvsjnd_jax.model.jnd_map import draw_jnd
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.model.masking import threshold
from hvsjnd_jax.model.priors import Priors, compute_priors
from hvsjnd_jax.noise import inject, random_signs
from hvsjnd_jax.ops.types import RGBImages
from hvsjnd_jax.training.config import (
  JNDConfig,
  MagnitudeForm,
  QualityForm,
  RateDistortionConfig,
)
from hvsjnd_jax.training.losses import (
  TRAINING_GRADIENT_FLOOR,
  Losses,
  attention_loss,
  magnitude_loss,
  quality_loss,
  rms_magnitude_loss,
  visibility_loss,
)
from hvsjnd_jax.training.released_losses import (
  aic_loss,
  classify,
  mean_magnitude_loss,
  total_variation_loss,
)

Keys = Key[Array, " b"]

Terms = dict[str, Float[Array, ""]]


def rate_distortion_objective(
  hvs_sd: HVSSD, images: RGBImages, keys: Keys, *, config: RateDistortionConfig
) -> tuple[Array, Terms]:
  """Computes stage 1's objective, rate_distortion_lambda · MSE + bits per pixel.

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
  return config.rate_distortion_lambda * mse + bpp, {"mse": mse, "bpp": bpp}


class _Noise(NamedTuple):
  """The noise of a batch, and what its magnitude is compared with."""

  images: RGBImages
  jnd: RGBImages
  thresholds: RGBImages  # masking thresholds of the images
  amplitudes: RGBImages  # lmbda · jnd, in thresholds
  target: float


_MAGNITUDE_FORMS: dict[MagnitudeForm, Callable[[_Noise], Losses]] = {
  "geometric": lambda noise: magnitude_loss(noise.amplitudes, target=noise.target),
  "rms": lambda noise: rms_magnitude_loss(noise.amplitudes, noise.thresholds, target=noise.target),
  "mean": lambda noise: mean_magnitude_loss(noise.jnd, noise.images),
  "total_variation": lambda noise: total_variation_loss(noise.jnd, noise.images),
}


def _assess_adaptively(
  distorted: RGBImages, reference: RGBImages, backbones: Backbones | None
) -> Losses:
  if backbones is None:
    raise ValueError(
      "jnd_objective: quality_form 'aic' needs backbones: see weights.load_vgg16 and "
      "weights.load_classifier"
    )
  classes = classify(backbones.classifier, distorted)
  return aic_loss(
    *(distorted, reference, classes),
    vgg16=backbones.vgg16,
    gradient_floor=TRAINING_GRADIENT_FLOOR,
  )


# (distorted, reference, backbones) -> losses
_QUALITY_FORMS: dict[QualityForm, Callable[[RGBImages, RGBImages, Backbones | None], Losses]] = {
  "ms_ssim_gmsd": lambda distorted, reference, _: quality_loss(distorted, reference),
  "ms_ssim": lambda distorted, reference, _: 1 - ms_ssim(distorted, reference, variant="reference"),
  "aic": _assess_adaptively,
}


def jnd_objective(
  model: JNDModel,
  images: RGBImages,
  keys: Keys,
  *,
  config: JNDConfig,
  backbones: Backbones | None = None,
) -> tuple[Array, Terms]:
  """Computes stage 2's objective: as much noise as asked for, hidden as well as can be.

  The total is a weighted sum of four terms; the module's docstring describes them and their
  forms.

  Args:
    model: Its generator is trained; differentiate with respect to that alone.
    images: Crops of at least 168 pixels, sides multiples of 8.
    keys: Sources of the noise's signs, one for each image.
    config: Forms, weights and targets.
    backbones: The networks of "aic", which are frozen, as HVS-SD is.

  Returns:
    The total, and the terms "magnitude", "quality", "attention" and "visibility", unweighted.

  Raises:
    ValueError: If the form "aic" gets no backbones.

  Source: Jin et al., arXiv 2208.07583. Weights, target and the visibility term are ours: the
  paper's are not published. Deviation: GMSD and FSIM train with a floor of 1 gray level under
  their gradient magnitudes, where the published 1e-12 makes noise of the gradient.

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
    compute_priors(model.hvs_sd, images, attention_layer=config.attention_layer)
  )
  jnd, distorted = _distort(model.generator, images, clean, keys, config=config)
  noisy = compute_priors(model.hvs_sd, distorted, attention_layer=config.attention_layer)

  thresholds = threshold(images)
  amplitudes = config.lmbda * jnd / thresholds
  noise = _Noise(images, jnd, thresholds, amplitudes, config.magnitude_target)
  pair = distorted, images
  if config.quality_domain == "perceptual":
    pair = noisy.degraded, clean.degraded
  losses = {
    "magnitude": _MAGNITUDE_FORMS[config.magnitude_form](noise),
    "quality": _QUALITY_FORMS[config.quality_form](*pair, backbones),
    "attention": attention_loss(noisy.attention, clean.attention, form=config.attention_form),
    "visibility": visibility_loss(amplitudes, power=config.visibility_power),
  }
  return _weigh(losses, config)


def _distort(
  generator: JNDGenerator, images: RGBImages, priors: Priors, keys: Keys, *, config: JNDConfig
) -> tuple[RGBImages, RGBImages]:
  """Draws the JND maps, and injects noise of random sign scaled by them."""
  jnd = draw_jnd(generator, images, priors.attention, priors.gradient, resolution=config.resolution)
  signs = jax.vmap(lambda key: random_signs(key, images.shape[1:3]))(keys)
  return jnd, inject(images, jnd, signs, lmbda=config.lmbda)


def _weigh(losses: dict[str, Losses], config: JNDConfig) -> tuple[Array, Terms]:
  """Averages each loss over the batch, and sums them by the config's weights."""
  terms = {name: loss.mean() for name, loss in losses.items()}
  total = sum(getattr(config, f"{name}_weight") * value for name, value in terms.items())
  return jnp.asarray(total), terms

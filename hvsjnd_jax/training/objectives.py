"""The objectives of both training stages: weighted sums of losses.

Images and maps are float32 in [0, 1], NHWC, RGB. An objective returns the total and every term
by name, as scalars. Every image has its own key, from which its noise is drawn, so that a batch
computed in parts, on any devices, sees the same noise.

Stage 2's objective is a weighted sum of these terms; one of weight 0 is not computed:

  butteraugli, peaks, ssimulacra2, jod   what three models of vision see (`vision_losses`)
  structure    what MS-SSIM and GMSD see (`structure_loss`)
  departure    how far a "fine" map departs from the masking threshold
  magnitude    how much noise there is to be, where the map sets the amount
  quality      how far y2 is from x2
  attention    how far yc is from xc
  visibility   how unevenly the noise lies, in masking thresholds

With noise "psnr" every image's noise has a drawn PSNR in each channel, and its channels have
signs of their own or shared ones; with "lmbda" it is lmbda · map, of shared signs, and the map
decides how much there is. The paper's terms have forms, which the config chooses:

  magnitude_form  "geometric" `magnitude_loss` and "rms" `rms_magnitude_loss` (ours),
                  "mean" `mean_magnitude_loss`, "total_variation" `total_variation_loss`
  quality_form    "distance" `distance_loss` and "ms_ssim_gmsd" `quality_loss` (ours),
                  "ms_ssim" 1 - MS-SSIM (variant "reference"), "aic" `aic_loss` of the trio
                  that y2's class picks
  quality_domain  "perceptual" (the paper's); "pixels" compares x with y and classifies y,
                  to see what the perceptual domain is worth
  attention_form  "l1" (ours), "kl", "correlation": `attention_loss`

The three released objectives are "mean" · 0.1 + "aic", "total_variation" + "aic", and
"mean" · 0.1 + "ms_ssim", all with noise "lmbda" and no other term.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from hvsjnd_jax.metrics import ms_ssim
from hvsjnd_jax.metrics.backbones import Backbones
from hvsjnd_jax.model.hvs_sd import HVSSD
from hvsjnd_jax.model.jnd_map import draw_jnd
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.model.masking import threshold
from hvsjnd_jax.model.priors import Priors, compute_priors
from hvsjnd_jax.noise import inject, inject_at_psnr, random_signs
from hvsjnd_jax.ops.types import RGBImages
from hvsjnd_jax.training.config import (
  HVS_SD_TERMS,
  JNDConfig,
  JNDTerm,
  MagnitudeForm,
  QualityForm,
  RateDistortionConfig,
)
from hvsjnd_jax.training.distortions import draw_copies
from hvsjnd_jax.training.losses import (
  TRAINING_GRADIENT_FLOOR,
  Losses,
  attention_loss,
  departure_loss,
  distance_loss,
  magnitude_loss,
  ordering_loss,
  quality_loss,
  rms_magnitude_loss,
  structure_loss,
  visibility_loss,
)
from hvsjnd_jax.training.released_losses import (
  aic_loss,
  classify,
  mean_magnitude_loss,
  total_variation_loss,
)
from hvsjnd_jax.training.vision_losses import VISION_TERMS, vision_losses

Keys = Key[Array, " b"]

Terms = dict[str, Float[Array, ""]]


def rate_distortion_objective(
  hvs_sd: HVSSD, images: RGBImages, keys: Keys, *, config: RateDistortionConfig
) -> tuple[Array, Terms]:
  """Computes stage 1's objective, lambda · MSE + bits per pixel + w · ordering.

  Uniform noise U(-.5, .5) on the feature stands for rounding. Without it the encoder
  could shrink the feature, and the rate would fall for nothing.

  The ordering term makes HVS-SD lose what vision loses: of two distorted copies of an image,
  the distances in the perceptual domain are to be in the ratio in which three models of vision
  see the distortions (`ordering_loss`). With weight 0 it is not computed.

  Args:
    hvs_sd: The network that is trained.
    images: Crops, sides multiples of 8.
    keys: Sources of the noise and the copies, one for each image.
    config: The weights.

  Returns:
    The total, and the terms "mse", "bpp" and, if it has a weight, "ordering".

  Source: Ballé et al., "End-to-end Optimized Image Compression", 2017; the ordering is ours.
  Deviation: the released training file draws the noise and leaves it unused.

  Examples:
    >>> config = RateDistortionConfig(ordering_weight=0)
    >>> def measure(hvs_sd, images):
    ...   keys = jax.random.split(jax.random.key(0), len(images))
    ...   return rate_distortion_objective(hvs_sd, images, keys, config=config)
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
  total, terms = config.rate_distortion_lambda * mse + bpp, {"mse": mse, "bpp": bpp}
  if config.ordering_weight:
    terms["ordering"] = _measure_ordering(hvs_sd, images, hvs_sd.decoder(feature), keys).mean()
    total += config.ordering_weight * terms["ordering"]
  return total, terms


def _measure_ordering(hvs_sd: HVSSD, images: RGBImages, degraded: RGBImages, keys: Keys) -> Losses:
  copies = draw_copies(jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys), images, copies=2)
  copies = copies.reshape(-1, *images.shape[1:])
  originals, degraded = (jnp.repeat(each, 2, axis=0) for each in (images, degraded))
  seen = vision_losses(copies, originals)
  visibilities = jnp.stack([seen[name] for name in ("butteraugli", "ssimulacra2", "jod")])
  distances = distance_loss(hvs_sd(copies), degraded)
  pairs = (each.reshape(-1, 2) for each in (distances, visibilities.mean(axis=0)))
  return ordering_loss(*pairs)


class _Noise(NamedTuple):
  """The noise of a batch whose amount the map sets, and what it is compared with."""

  images: RGBImages
  jnd: RGBImages
  thresholds: RGBImages  # masking thresholds of the images
  amplitudes: RGBImages  # lmbda · jnd, in thresholds
  target: float


_MAP_TERMS: tuple[JNDTerm, ...] = ("departure", "magnitude", "visibility")

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
  "distance": lambda distorted, reference, _: distance_loss(distorted, reference),
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
  """Computes stage 2's objective: noise that is hidden as well as can be.

  The total is a weighted sum of terms; the module's docstring describes them and their forms.

  Args:
    model: Its generator is trained; differentiate with respect to that alone.
    images: Crops of at least 168 pixels, sides multiples of 8.
    keys: Sources of the noise, one for each image.
    config: Noise, forms and weights.
    backbones: The networks of "aic", which are frozen, as HVS-SD is.

  Returns:
    The total, and the terms whose weight is not 0, unweighted.

  Raises:
    ValueError: If the form "aic" gets no backbones.

  Source: Jin et al., arXiv 2208.07583, for magnitude, quality and attention; their weights are
  not published. The rest is ours. Deviation: GMSD and FSIM train with a floor of 1 gray level
  under their gradient magnitudes, where the published 1e-12 makes noise of the gradient.

  Examples:
    >>> def measure(model, images):
    ...   keys = jax.random.split(jax.random.key(0), len(images))
    ...   return jnd_objective(model, images, keys, config=JNDConfig(quality_weight=1.0))
    >>> total, terms = jax.eval_shape(measure, hvsjnd_jax.load(), jnp.zeros((1, 168, 168, 3)))
    >>> sorted(terms)
    ['butteraugli', 'departure', 'jod', 'peaks', 'quality', 'ssimulacra2', 'structure']
  """
  read_priors = _make_reader(model, config)
  clean = jax.lax.stop_gradient(read_priors(images))
  jnd = draw_jnd(model.generator, images, clean, resolution=config.resolution)
  distorted = _distort(images, jnd, keys, config=config)

  losses: dict[JNDTerm, Losses] = {}
  if any(map(config.weight, VISION_TERMS)):
    losses |= vision_losses(distorted, images)
  if config.weight("structure"):
    losses["structure"] = structure_loss(distorted, images)
  if any(map(config.weight, _MAP_TERMS)):
    losses |= _compare_with_thresholds(images, jnd, model.level, config)
  if any(map(config.weight, HVS_SD_TERMS)):
    noisy = read_priors(distorted)
    assert clean is not None
    assert noisy is not None
    pair = distorted, images
    if config.quality_domain == "perceptual":
      pair = noisy.degraded, clean.degraded
    losses["quality"] = _QUALITY_FORMS[config.quality_form](*pair, backbones)
    losses["attention"] = attention_loss(
      noisy.attention, clean.attention, form=config.attention_form
    )
  return _weigh(losses, config)


def _make_reader(model: JNDModel, config: JNDConfig) -> Callable[[RGBImages], Priors | None]:
  """Makes the function from images to priors; without HVS-SD there are none."""
  hvs_sd = model.hvs_sd
  if hvs_sd is None:
    return lambda images: None
  # Parts of the priors that nothing uses, such as the gradient of the distorted image, cost
  # nothing: the compiler drops them.
  return lambda images: compute_priors(hvs_sd, images, attention_layer=config.attention_layer)


def _compare_with_thresholds(
  images: RGBImages, jnd: RGBImages, level: float, config: JNDConfig
) -> dict[JNDTerm, Losses]:
  thresholds = threshold(images)
  amplitudes = config.lmbda * jnd / thresholds
  noise = _Noise(images, jnd, thresholds, amplitudes, config.magnitude_target)
  return {
    "departure": departure_loss(jnd, thresholds, level=level),
    "magnitude": _MAGNITUDE_FORMS[config.magnitude_form](noise),
    "visibility": visibility_loss(amplitudes, power=config.visibility_power),
  }


def _distort(images: RGBImages, jnd: RGBImages, keys: Keys, *, config: JNDConfig) -> RGBImages:
  """Injects noise of random sign scaled by the JND maps."""
  if config.noise == "lmbda":
    signs = jax.vmap(lambda key: random_signs(key, images.shape[1:3]))(keys)
    return inject(images, jnd, signs, lmbda=config.lmbda)

  def draw(key: Array) -> tuple[Array, Array]:
    sign_key, own_key, psnr_key = jax.random.split(key, 3)
    signs = random_signs(sign_key, images.shape[1:])
    signs = jnp.where(jax.random.bernoulli(own_key, config.own_signs), signs, signs[..., :1])
    psnr_db = jax.random.uniform(psnr_key, minval=config.min_psnr, maxval=config.max_psnr)
    return signs, psnr_db

  signs, psnr_db = jax.vmap(draw)(keys)
  return inject_at_psnr(images, jnd, signs, psnr_db=psnr_db)


def _weigh(losses: dict[JNDTerm, Losses], config: JNDConfig) -> tuple[Array, Terms]:
  """Averages each loss that has a weight over the batch, and sums them by their weights."""
  means: dict[JNDTerm, Array] = {
    name: loss.mean() for name, loss in losses.items() if config.weight(name)
  }
  total = sum(config.weight(name) * mean for name, mean in means.items())
  return jnp.asarray(total), {**means}

"""Draws what a stage's networks make of the run's first crop."""

import jax
import jax.numpy as jnp
import numpy as np

from hvsjnd_jax.data.crops import first_crop
from hvsjnd_jax.data.images import to_uint8
from hvsjnd_jax.data.photo_source import PhotoSource
from hvsjnd_jax.estimator import analyze, degrade
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.noise import inject, inject_at_psnr, random_signs
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.training.config import Stage, TrainConfig
from hvsjnd_jax.viz import sheets


def draw_sheet(model: JNDModel, stage: Stage, config: TrainConfig, photos: PhotoSource) -> Pixels:
  """Draws a sheet of the same crop each time, so that the sheets of a run can be compared."""
  crop_px = config.settings(stage).crop_px
  pixels = first_crop(photos, config.data, crop_px=crop_px, seed=config.seed).pixels
  image = jnp.asarray(pixels[None], jnp.float32) / 255
  if stage == "hvs_sd":
    degraded = to_uint8(np.asarray(degrade(model, image)[0]))
    return sheets.sheet([("image", pixels), ("x2: after degradation", degraded)])
  analysis = analyze(model, image)
  signs = random_signs(jax.random.key(config.seed), pixels.shape[:2])
  if config.jnd.noise == "psnr":  # the scale of the map is open, so that lmbda says nothing
    psnr_db = config.jnd.max_psnr
    every_sign = jnp.broadcast_to(signs[..., None], image.shape)
    distorted = inject_at_psnr(image, analysis.jnd, every_sign, psnr_db=jnp.asarray([psnr_db]))
    note = f"{psnr_db:g} dB in each channel"
  else:
    distorted = inject(image, analysis.jnd, signs, lmbda=config.jnd.lmbda)
    note = f"lmbda {config.jnd.lmbda:g}"
  return sheets.analysis_sheet(
    pixels,
    attention=analysis.priors and np.asarray(analysis.priors.attention[0, ..., 0]),
    jnd=np.asarray(analysis.jnd[0]),
    distorted=np.asarray(distorted[0]),
    note=note,
  )

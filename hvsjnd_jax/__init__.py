"""Just-noticeable-difference (JND) estimation in JAX.

  model = hvsjnd_jax.load()
  jnd = hvsjnd_jax.estimate(model, images)
  signs = hvsjnd_jax.random_signs(jax.random.key(0), images.shape[1:3])
  distorted = hvsjnd_jax.inject(images, jnd, signs, lmbda=10)
  perceived = hvsjnd_jax.degrade(model, images)

Images are float in [0, 1], [B, H, W, 3], RGB, H and W at least 8; `ops.checks` tells what is
refused. `hvsjnd_jax.metrics` holds image-quality metrics, `hvsjnd_jax.baselines` classical JND
models.
"""

from hvsjnd_jax import baselines, metrics
from hvsjnd_jax.estimator import analyze, degrade, estimate
from hvsjnd_jax.model import windows
from hvsjnd_jax.model.jnd_model import Analysis, JNDModel
from hvsjnd_jax.model.windows import plan_window
from hvsjnd_jax.noise import inject, random_signs
from hvsjnd_jax.weights import WeightsError, load

__all__ = [
  "Analysis",
  "JNDModel",
  "WeightsError",
  "analyze",
  "baselines",
  "degrade",
  "estimate",
  "inject",
  "load",
  "metrics",
  "plan_window",
  "random_signs",
  "windows",
]

__version__ = "0.1.0"

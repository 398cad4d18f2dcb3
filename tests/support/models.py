"""Models that no training made."""

import jax
from flax import nnx

from hvsjnd_jax.model.correction import CorrectionNetwork
from hvsjnd_jax.model.jnd_model import JNDModel


def unsettle(model: JNDModel) -> JNDModel:
  """Draws the weights that are 0 at first, those of the correction network's last layer."""
  model = nnx.clone(model)
  assert isinstance(model.generator, CorrectionNetwork)
  kernel = model.generator.leave.kernel
  kernel[...] = 0.02 * jax.random.normal(jax.random.key(0), kernel.shape, kernel[...].dtype)
  return model

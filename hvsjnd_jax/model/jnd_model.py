"""The JND model: both networks, and how their weights are meant to be used."""

from typing import NamedTuple

from flax import nnx
from flax.typing import Dtype

from hvsjnd_jax.model.generator import JNDGenerator, Resolution
from hvsjnd_jax.model.hvs_sd import HVSSD
from hvsjnd_jax.model.priors import AttentionLayer, Priors
from hvsjnd_jax.ops.types import RGBImages


class JNDModel(nnx.Module):
  """Both networks, and how their weights are meant to be used.

  A pytree: pass it through `jax.jit` and `jax.grad` like any array.

  Args:
    resolution: Default of `estimate`; travels with the weights.
    attention: Default of `estimate`; travels with the weights.
    dtype: What the layers compute in, such as bfloat16; None: as the weights, float32.
    rngs: Source of the initial weights.

  Examples:
    >>> sum(leaf.size for leaf in jax.tree.leaves(hvsjnd_jax.load()))
    1811622
  """

  def __init__(
    self,
    *,
    resolution: Resolution = "native",
    attention: AttentionLayer = "reconstruction",
    dtype: Dtype | None = None,
    rngs: nnx.Rngs,
  ):
    self.hvs_sd = HVSSD(dtype=dtype, rngs=rngs)
    self.generator = JNDGenerator(dtype=dtype, rngs=rngs)
    self.resolution: Resolution = resolution
    self.attention: AttentionLayer = attention


class Analysis(NamedTuple):
  """The JND map xj, and the priors it was drawn from.

  Examples:
    >>> Analysis._fields, Priors._fields
    (('jnd', 'priors'), ('degraded', 'attention', 'gradient'))
  """

  jnd: RGBImages
  priors: Priors

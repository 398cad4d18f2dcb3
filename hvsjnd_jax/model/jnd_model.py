"""The JND model: both networks, and the options that their weights were trained for."""

from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from hvsjnd_jax.model.generator import JNDGenerator
from hvsjnd_jax.model.hvs_sd import HVSSD, STRIDE
from hvsjnd_jax.model.jnd_map import Resolution
from hvsjnd_jax.model.priors import AttentionLayer, Priors
from hvsjnd_jax.ops.types import RGBImages

MIN_SIDE_PX = STRIDE  # one cell of HVS-SD's feature


class JNDModel(nnx.Module):
  """Both networks, and the options that their weights were trained for.

  A model is a pytree: pass it through `jax.jit` and `jax.grad` like any array.

  Args:
    resolution: Default of `estimate`; it travels with the weights.
    attention_layer: Default of `estimate`; it travels with the weights.
    dtype: What the layers compute in, such as bfloat16; None means float32, as the weights.
    rngs: Source of the initial weights.

  Raises:
    ValueError: If `dtype` is no type of floats of 16 bits or more.

  Examples:
    >>> sum(leaf.size for leaf in jax.tree.leaves(hvsjnd_jax.load()))
    1811622
  """

  def __init__(
    self,
    *,
    resolution: Resolution = "native",
    attention_layer: AttentionLayer = "reconstruction",
    dtype: Dtype | None = None,
    rngs: nnx.Rngs,
  ):
    _check_dtype(dtype)
    self.hvs_sd = HVSSD(dtype=dtype, rngs=rngs)
    self.generator = JNDGenerator(dtype=dtype, rngs=rngs)
    self.resolution: Resolution = resolution
    self.attention_layer: AttentionLayer = attention_layer

  @property
  def param_dtype(self) -> jnp.dtype:
    """The type of the weights, which images are cast to: convolutions do not mix types."""
    return self.hvs_sd.encoder.conv1.kernel[...].dtype

  def choose_options(
    self, resolution: Resolution | None, attention_layer: AttentionLayer | None
  ) -> tuple[Resolution, AttentionLayer]:
    """Replaces None by the defaults of the weights.

    Raises:
      ValueError: If an option is unknown.
    """
    resolution = resolution or self.resolution
    attention_layer = attention_layer or self.attention_layer
    _check_option("resolution", resolution, Resolution)
    _check_option("attention_layer", attention_layer, AttentionLayer)
    return resolution, attention_layer


def _check_option(name: str, value: str, option: Any) -> None:
  known = get_args(option)
  if value not in known:
    raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")


def _check_dtype(dtype: Dtype | None) -> None:
  known = ("float32", "bfloat16", "float16")
  if jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
    known += ("float64",)
  try:
    name = "float32" if dtype is None else jnp.dtype(dtype).name
  except TypeError:
    name = str(dtype)
  if name not in known:
    raise ValueError(f"dtype must be one of {', '.join(known)} or None; got {name!r}")


class Analysis(NamedTuple):
  """A JND map xj and the priors that it was drawn from.

  Examples:
    >>> Analysis._fields, Priors._fields
    (('jnd', 'priors'), ('degraded', 'attention', 'gradient'))
  """

  jnd: RGBImages
  priors: Priors

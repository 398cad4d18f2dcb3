"""The JND model: its networks, and the options that their weights were trained for."""

from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from hvsjnd_jax.model.correction import CorrectionNetwork
from hvsjnd_jax.model.generator import JNDGenerator
from hvsjnd_jax.model.hvs_sd import HVSSD, STRIDE
from hvsjnd_jax.model.jnd_map import PRIOR_CHANNELS, Resolution
from hvsjnd_jax.model.priors import AttentionLayer, Priors
from hvsjnd_jax.ops.types import RGBImages

MIN_SIDE_PX = STRIDE  # one cell of HVS-SD's feature


# The width of HVS-SD in the paper.
PAPER_CHANNELS = 128


class JNDModel(nnx.Module):
  """HVS-SD and a generator, and the options that their weights were trained for.

  The resolution says which generator it is: the published one draws "reference" and "native"
  maps, a `CorrectionNetwork` draws "fine" ones, and may do so without HVS-SD.

  A model is a pytree: pass it through `jax.jit` and `jax.grad` like any array.

  Args:
    resolution: Default of `estimate`; it travels with the weights.
    attention_layer: Default of `estimate`; it travels with the weights.
    hvs_sd_channels: Width of HVS-SD; None means that there is none, which only "fine" allows.
    generator_channels: Width of the correction network; None for the published generator,
      which has its own.
    level: Factor on "fine" maps, in (0, 1].
    dtype: What the layers compute in, such as bfloat16; None means float32, as the weights.
    rngs: Source of the initial weights.

  Raises:
    ValueError: If the published generator is to do without HVS-SD, or is given a width; if
      "fine" is not; if the level is not above 0 and at most 1; or if `dtype` is no type of floats
      of 16 bits or more.

  Examples:
    >>> sum(leaf.size for leaf in jax.tree.leaves(hvsjnd_jax.load("paper")))
    1811622
  """

  def __init__(
    self,
    *,
    resolution: Resolution = "native",
    attention_layer: AttentionLayer = "reconstruction",
    hvs_sd_channels: int | None = PAPER_CHANNELS,
    generator_channels: int | None = None,
    level: float = 1.0,
    dtype: Dtype | None = None,
    rngs: nnx.Rngs,
  ):
    check_dtype(dtype)
    if not 0 < level <= 1:
      raise ValueError(f"JNDModel: expected a level above 0 and at most 1, got {level}")
    if (resolution == "fine") == (generator_channels is None):
      raise ValueError(
        "JNDModel: expected generator_channels for 'fine' maps alone; got "
        f"{generator_channels} for {resolution!r}"
      )
    if hvs_sd_channels is None:
      if resolution != "fine":
        raise ValueError(f"JNDModel: {resolution!r} maps are drawn from the priors of HVS-SD")
      self.hvs_sd = None
    else:
      self.hvs_sd = HVSSD(hvs_sd_channels, dtype=dtype, rngs=rngs)
    if generator_channels is not None:
      prior_channels = 0 if self.hvs_sd is None else PRIOR_CHANNELS
      self.generator = CorrectionNetwork(
        generator_channels,
        prior_channels=prior_channels,
        level=float(level),
        dtype=dtype,
        rngs=rngs,
      )
    else:
      self.generator = JNDGenerator(dtype=dtype, rngs=rngs)
    self.hvs_sd_channels = hvs_sd_channels
    self.generator_channels = generator_channels
    self.resolution: Resolution = resolution
    self.attention_layer: AttentionLayer = attention_layer

  @property
  def level(self) -> float:
    """The factor on "fine" maps; 1 for the published generator."""
    return self.generator.level if isinstance(self.generator, CorrectionNetwork) else 1.0

  @property
  def param_dtype(self) -> jnp.dtype:
    """The type of the weights, which images are cast to: convolutions do not mix types."""
    return jax.tree.leaves(nnx.state(self.generator))[0].dtype

  def choose_options(
    self, resolution: Resolution | None, attention_layer: AttentionLayer | None
  ) -> tuple[Resolution, AttentionLayer]:
    """Replaces None by the defaults of the weights.

    Raises:
      ValueError: If an option is unknown, the generator does not draw such maps, or there is no
        HVS-SD to read another layer of.
    """
    resolution = resolution or self.resolution
    attention_layer = attention_layer or self.attention_layer
    _check_option("resolution", resolution, get_args(Resolution))
    _check_option("attention_layer", attention_layer, get_args(AttentionLayer))
    if (resolution == "fine") != (self.resolution == "fine"):
      own = "'fine'" if self.resolution == "fine" else "'reference' or 'native'"
      raise ValueError(f"these weights draw maps of resolution {own} alone; got {resolution!r}")
    if self.hvs_sd is None and attention_layer != self.attention_layer:
      raise ValueError(f"these weights have no attention to read; got {attention_layer!r}")
    return resolution, attention_layer

  def require_hvs_sd(self, caller: str) -> HVSSD:
    """Returns HVS-SD.

    Raises:
      ValueError: If the model has none.
    """
    if self.hvs_sd is None:
      raise ValueError(f"{caller}: these weights have no HVS-SD; load others, such as 'default'")
    return self.hvs_sd


def _check_option(name: str, value: str, known: tuple[str, ...]) -> None:
  if value not in known:
    raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")


def check_dtype(dtype: Dtype | None) -> None:
  """Refuses types that layers cannot compute in.

  Raises:
    ValueError: If `dtype` is no type of floats of 16 bits or more.
  """
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
  """A JND map xj and the priors that it was drawn from, which are None without HVS-SD.

  Examples:
    >>> Analysis._fields, Priors._fields
    (('jnd', 'priors'), ('degraded', 'attention', 'gradient'))
  """

  jnd: RGBImages
  priors: Priors | None

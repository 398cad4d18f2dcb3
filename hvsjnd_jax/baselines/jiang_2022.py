"""The top-down model of Jiang et al., 2022, which uses the Karhunen-Loève transform."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from hvsjnd_jax.baselines._common import edge_guard, run
from hvsjnd_jax.ops.types import Planes, RGBImages, RGBImagesLike

_BLOCK_PX = 8

_WEIBULL_SHAPE, _WEIBULL_SCALE = 894.16, 0.99805


def jiang_2022(images: RGBImagesLike) -> RGBImages:
  """Measures what an image can lose of its Karhunen-Loève transform before it looks different.

    |I - K_L K_L^T I| E

  K holds the eigenvectors of the covariance of all 8x8 blocks, the greatest eigenvalue first. P_k
  is the first k components' share of the mean energy of Y = K^T I, whose mean is not subtracted.
  L = ceil(sum_k k f(P_k) / sum_k f(P_k)), k = 1..64, where f is Weibull's density of shape 894.16
  and scale 0.99805. E is 0 near edges, as in `wu_2017`.

  Args, Returns, Raises: As `uniform`.

  Source: Jiang et al., "Toward top-down just noticeable difference estimation of natural
  images", 2022, as in the authors' MATLAB code. Deviations: sides that are not multiples of 8 are
  mirrored up to one, not cropped, and the added pixels count in the statistics. Directions in
  which blocks vary by no more than rounding count as one component, after the others; otherwise
  rounding would decide where an image of fewer than 65 blocks is cut. The map of a flat image
  is 0.

  Examples:
    >>> gray = jnp.full((1, 16, 16, 3), 0.5)
    >>> round(255 * float(jiang_2022(gray).max()), 3)
    0.0
  """
  return run("jiang_2022", _jiang, images)


def _jiang(luma: Planes) -> Planes:
  return jnp.abs(luma - _critical_image(luma)) * edge_guard(luma)


def _critical_image(luma: Planes) -> Planes:
  """Reconstructs the image from its first L components."""
  b, h, w = luma.shape
  margins = ((0, 0), (0, -h % _BLOCK_PX), (0, -w % _BLOCK_PX))
  padded = jnp.pad(luma, margins, mode="symmetric")
  rows, columns = (side // _BLOCK_PX for side in padded.shape[1:])
  grid = padded.reshape(b, rows, _BLOCK_PX, columns, _BLOCK_PX).swapaxes(2, 3)
  blocks = grid.reshape(b, rows * columns, _BLOCK_PX**2)

  mean = blocks.mean(axis=1, keepdims=True)
  centred = blocks - mean
  covariance = _multiply("bni,bnj->bij", centred, centred) / blocks.shape[1]
  values, basis = (array[..., ::-1] for array in jnp.linalg.eigh(covariance))
  components = _multiply("bni,bik->bnk", blocks, basis)
  energy = (components**2).mean(axis=1)
  total = energy.sum(axis=-1, keepdims=True)

  # Rounding chooses the basis of the directions in which blocks do not vary: together they make
  # one component, the last.
  varies = values > 8 * jnp.finfo(luma.dtype).eps * total
  order = jnp.arange(1, _BLOCK_PX**2 + 1, dtype=luma.dtype)[None]
  last = varies.sum(axis=-1, keepdims=True).astype(luma.dtype) + 1
  constant = jnp.where(varies, 0, energy).sum(axis=-1, keepdims=True)
  energy = jnp.where(varies, energy, jnp.where(order == last, constant, 0))
  # A black image has no energy and needs no component.
  shares = jnp.where(total > 0, energy.cumsum(axis=-1) / jnp.where(total > 0, total, 1), 1)
  critical = jnp.ceil((_weibull_weights(shares) * order).sum(axis=-1, keepdims=True))

  kept = jnp.where(varies, order, last) <= critical
  kept = jnp.where(kept[:, None], components, 0)
  grid = _multiply("bnk,bik->bni", kept, basis).reshape(grid.shape)
  return grid.swapaxes(2, 3).reshape(padded.shape)[:, :h, :w]


def _weibull_weights(shares: Float[Array, "b k"]) -> Float[Array, "b k"]:
  """Returns f(P_k) / sum_k f(P_k), through logarithms: f is so narrow a peak that it underflows."""
  log_ratio = jnp.log(jnp.maximum(shares, 1e-6) / _WEIBULL_SCALE)
  log_density = (_WEIBULL_SHAPE - 1) * log_ratio - jnp.exp(_WEIBULL_SHAPE * log_ratio)
  return jax.nn.softmax(log_density, axis=-1)


def _multiply(subscripts: str, a: Array, b: Array) -> Array:
  # The residual would be mostly rounding after the products of few bits that a GPU prefers.
  return jnp.einsum(subscripts, a, b, precision=lax.Precision.HIGHEST)

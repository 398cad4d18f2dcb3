"""Deep image structure and texture similarity. Images are float in [0, 1], NHWC, RGB."""

import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from hvsjnd_jax.metrics._pairs import check_rgb_pair, downsample_to_256
from hvsjnd_jax.metrics.backbones import VGG16
from hvsjnd_jax.ops.types import Images, Scores

_WEIGHTS = Path(__file__).parents[1] / "assets/dists/weights.npz"

_STAGE_CHANNELS = (3, 64, 128, 256, 512, 512)

_C1 = 1e-6
_C2 = 1e-6


def dists(distorted: Images, reference: Images, *, vgg16: VGG16) -> Scores:
  """Deep image structure and texture similarity; lower is better, 0 for equal images.

  Six stages k, the image itself and five of VGG16, are compared in each channel j by their means
  μ, variances σ² and covariances over space:

    1 - sum_k sum_j α_kj (2 μ_d μ_r + c1) / (μ_d² + μ_r² + c1)
                  + β_kj (2 σ_dr + c2) / (σ_d² + σ_r² + c2)

  with c1 = c2 = 1e-6 and published weights α, β >= 0 that add up to 1. It is computed as the equal
  sum of α (μ_d - μ_r)² / (μ_d² + μ_r² + c1) + β var(d - r) / (σ_d² + σ_r² + c2), which does not
  lose a small distance beside the 1. Images are first averaged over f x f pixels,
  f = max(1, round(min(H, W) / 256)), a half rounded to the even number. DISTS is symmetric, and its
  gradients are finite for flat and for equal images.

  Args:
    distorted: Images in [0, 1], [B, H, W, 3].
    reference: Originals, same shape.
    vgg16: The network with ImageNet's weights, from `weights.load_vgg16`. It computes in the
      images' precision.

  Returns:
    Distances in [0, 2], [B]; above 1 only for images that contradict each other.

  Raises:
    TypeError, ValueError: As `psnr`; ValueError also if there are not 3 channels.

  Source: Ding et al., "Image quality assessment: unifying structure and texture similarity",
  2020, https://arxiv.org/abs/2004.07728. Deviation, as in the published JND code: larger images
  are averaged in whole blocks, where Ding et al. interpolate to a shorter side of 256. The two
  agree if that side is 256 or less.

  Examples:
    >>> images, vgg16 = jnp.zeros((2, 16, 16, 3)), nnx.eval_shape(lambda: VGG16(rngs=nnx.Rngs(0)))
    >>> jax.eval_shape(dists, images, images, vgg16=vgg16)
    ShapeDtypeStruct(shape=(2,), dtype=float32)
  """
  distorted, reference = check_rgb_pair("dists", distorted, reference)
  distorted, reference = (
    jnp.stack([downsample_to_256(images[..., c]) for c in range(3)], axis=-1)
    for images in (distorted, reference)
  )
  stages = zip(
    load_weights(),
    (distorted, *vgg16.features(distorted)),
    (reference, *vgg16.features(reference)),
    strict=True,
  )
  distance = jnp.zeros(distorted.shape[0], distorted.dtype)
  for (alpha, beta), d, r in stages:
    mean_d, mean_r = d.mean(axis=(1, 2)), r.mean(axis=(1, 2))
    variances = d.var(axis=(1, 2)) + r.var(axis=(1, 2))
    structure = jnp.square(mean_d - mean_r) / (mean_d**2 + mean_r**2 + _C1)
    texture = (d - r).var(axis=(1, 2)) / (variances + _C2)
    distance += structure @ alpha.astype(d.dtype) + texture @ beta.astype(d.dtype)
  return distance


@functools.cache
def load_weights() -> tuple[tuple[np.ndarray, np.ndarray], ...]:
  """Reads α and β of each stage, scaled so that all together add up to 1."""
  with np.load(_WEIGHTS) as file:
    alpha, beta = (file[name].astype(np.float64) for name in ("alpha", "beta"))
  total = alpha.sum() + beta.sum()
  ends = np.cumsum(_STAGE_CHANNELS)[:-1]
  return tuple(zip(np.split(alpha / total, ends), np.split(beta / total, ends), strict=True))

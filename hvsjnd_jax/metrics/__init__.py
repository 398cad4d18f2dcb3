"""Image-quality metrics: how far a distorted image is from its reference.

Images are float in [0, 1], NHWC, RGB. Every metric takes `distorted, reference` and
returns one score for each image, [B].
"""

from hvsjnd_jax.metrics.gmsd import gmsd
from hvsjnd_jax.metrics.psnr import psnr
from hvsjnd_jax.metrics.ssim import ms_ssim

__all__ = ["gmsd", "ms_ssim", "psnr"]

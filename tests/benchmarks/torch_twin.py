"""The method in eager PyTorch, against which `speed` times this package.

The mathematics, weights and inputs are the same, in PyTorch's plainest form. Images and maps are
float32 in [0, 1], NCHW in either memory format, RGB, with sides that are multiples of 8. JAX is not
imported here, so that a process which runs the twin alone pays for PyTorch alone.
"""

from __future__ import annotations

import copy
import math
import operator
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
  from flax import nnx

  from hvsjnd_jax.training.config import JNDConfig, Stage, TrainConfig

_N = 128
_REPARAM_OFFSET = 2.0**-18
_PEDESTAL = _REPARAM_OFFSET**2
_MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


class LowerBound(torch.autograd.Function):
  """max(value, minimum), whose gradient lets a value at the bound rise again."""

  @staticmethod
  def forward(ctx: Any, value: Tensor, minimum: float) -> Tensor:
    ctx.save_for_backward(value >= minimum)
    return value.clamp(min=minimum)

  @staticmethod
  def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
    ((above,), (gradient,)) = ctx.saved_tensors, gradients
    return torch.where(above | (gradient < 0), gradient, 0), None


class GDN(nn.Module):
  def __init__(self, *, inverse: bool = False):
    super().__init__()
    self.inverse = inverse
    self.beta = nn.Parameter(torch.empty(_N))
    self.gamma = nn.Parameter(torch.empty(_N, _N))

  def forward(self, inputs: Tensor) -> Tensor:
    beta = LowerBound.apply(self.beta, math.sqrt(1e-6 + _PEDESTAL)) ** 2 - _PEDESTAL
    gamma = LowerBound.apply(self.gamma, _REPARAM_OFFSET) ** 2 - _PEDESTAL
    norm = F.conv2d(inputs.square(), gamma[..., None, None], beta)
    return inputs * (norm.sqrt() if self.inverse else norm.rsqrt())


class Bijection(nn.Module):
  def __init__(self, *, last: bool = False):
    super().__init__()
    self.h = nn.Parameter(torch.empty(_N, 1, 1))
    self.b = nn.Parameter(torch.empty(_N, 1, 1))
    self.a = None if last else nn.Parameter(torch.empty(_N, 1, 1))

  def forward(self, values: Tensor) -> Tensor:
    values = values * F.softplus(self.h) + self.b
    if self.a is None:
      return values.sigmoid()
    return values + values.tanh() * self.a.tanh()


class HVSSD(nn.Module):
  def __init__(self):
    super().__init__()

    def down(inputs: int, *, bias: bool = True) -> nn.Module:
      return nn.Conv2d(inputs, _N, 5, stride=2, padding=2, bias=bias)

    def up(outputs: int) -> nn.Module:
      return nn.ConvTranspose2d(_N, outputs, 5, stride=2, padding=2, output_padding=1)

    self.encoder = nn.Sequential(
      OrderedDict[str, nn.Module](
        conv1=down(3), gdn1=GDN(), conv2=down(_N), gdn2=GDN(), conv3=down(_N, bias=False)
      )
    )
    self.decoder = nn.Sequential(
      OrderedDict[str, nn.Module](
        deconv1=up(_N),
        igdn1=GDN(inverse=True),
        deconv2=up(_N),
        igdn2=GDN(inverse=True),
        deconv3=up(3),
      )
    )
    self.bit_estimator = nn.Sequential(
      OrderedDict[str, nn.Module](
        f1=Bijection(), f2=Bijection(), f3=Bijection(), f4=Bijection(last=True)
      )
    )

  def forward(self, images: Tensor) -> Tensor:
    return self.decoder(self.encoder(images))

  def bits_per_pixel(self, features: Tensor) -> Tensor:
    likelihood = self.bit_estimator(features + 0.5) - self.bit_estimator(features - 0.5)
    bits = (-torch.log(likelihood + 1e-10) / math.log(2)).clamp(0, 50)
    return bits.sum(dim=(1, 2, 3)) / (64 * features.shape[2] * features.shape[3])


class Generator(nn.Module):
  def __init__(self):
    super().__init__()

    def conv(inputs: int, outputs: int, stride: int) -> nn.Module:
      return nn.Conv2d(inputs, outputs, 3, stride, padding=1, padding_mode="reflect")

    self.conv1 = conv(7, 32, 1)
    self.conv2 = conv(32, 32, 2)
    self.conv3 = conv(32, 64, 1)
    self.conv4 = conv(64, 64, 2)
    self.conv5 = conv(64, 32, 1)
    self.conv6 = conv(32, 3, 1)

  def forward(self, images: Tensor, attention: Tensor, gradient: Tensor) -> Tensor:
    hidden = torch.cat([images, attention, attention * gradient], dim=1)
    for conv in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5, self.conv6):
      hidden = F.leaky_relu(conv(hidden))
    for _ in range(2):
      hidden = F.interpolate(hidden, scale_factor=2, mode="bilinear")
    return hidden.abs().clamp(0, 1)


class Twin(nn.Module):
  """Both networks, uninitialised and frozen: `fill` them, or load a state dict."""

  def __init__(self):
    super().__init__()
    self.hvs_sd = HVSSD()
    self.generator = Generator()
    self.requires_grad_(False)

  def fill(self, model: nnx.Module) -> Twin:
    """Copies the weights of our model, a JNDModel, and returns the twin."""
    for name, parameter in self.named_parameters():
      ours = operator.attrgetter(name.replace(".weight", ".kernel"))(model)
      weights = torch.from_numpy(np.array(ours[...]))
      if weights.ndim == 4:  # ours are HWIO
        weights = weights.permute(3, 2, 0, 1)
      parameter.copy_(weights.reshape(parameter.shape))
    return self


def estimate(model: Twin, images: Tensor) -> Tensor:
  """Estimates the JND map, with resolution "native" and attention "reconstruction"."""
  _, attention, gradient = compute_priors(model.hvs_sd, images)
  with torch.no_grad():
    return model.generator(images, attention, gradient)


def compute_threshold(images: Tensor) -> Tensor:
  """Computes the masking threshold, in which training measures noise."""

  def local_mean(maps: Tensor) -> Tensor:
    return F.avg_pool2d(maps, 5, 1, 2, count_include_pad=False)

  level = 1 / 255
  luma = 0.299 * images[:, :1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:]
  mean = local_mean(luma)
  variance = (local_mean(luma**2) - mean**2).clamp(min=0)
  contrast = 4 * level * (1 + variance / (4 * level) ** 2) ** 0.47
  light = ((mean + 3.3 * level) / (0.5 + 3.3 * level)) ** -0.34
  own = local_mean(images)
  color = ((own + 6 * level) / (mean + 6 * level)) ** -0.56
  z = (images - own) * (variance + (1.4 * level) ** 2).rsqrt()
  return contrast * light * color * (-2.75 * (z / 2).tanh()).exp()


def compute_priors(hvs_sd: HVSSD, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
  """Computes the perceptual-domain image, attention and input gradient, without a graph."""
  images = images.detach().requires_grad_()
  degraded = hvs_sd(images)
  distortion = (degraded - images).square().mean(dim=(1, 2, 3)).sum()
  (gradient,) = torch.autograd.grad(distortion, images)
  images, degraded = images.detach(), degraded.detach()
  return degraded, compute_attention(degraded, images), _normalize(gradient.relu())


def compute_attention(degraded: Tensor, images: Tensor) -> Tensor:
  """Computes attention in closed form, without a backward pass."""
  weights = 2 * (degraded - images).mean(dim=(2, 3), keepdim=True) / images[0].numel()
  return _normalize((weights * degraded).sum(dim=1, keepdim=True).abs())


def _normalize(maps: Tensor) -> Tensor:
  low, high = maps.amin(dim=(1, 2, 3), keepdim=True), maps.amax(dim=(1, 2, 3), keepdim=True)
  contrast = high - low
  return (maps - low) / torch.where(contrast > 0, contrast, 1)


class Trainer:
  """Trains one stage with clipping, Adam and a moving average of the weights.

  The learning rate is constant, since a schedule would cost no time.
  """

  def __init__(self, model: Twin, config: TrainConfig, stage: Stage):
    self.model, self.config, self.stage = model, config, stage
    self.settings = config.settings(stage)
    network = model.hvs_sd if stage == "hvs_sd" else model.generator
    self.average = list(copy.deepcopy(network).parameters())
    self.params = list(network.requires_grad_().parameters())
    self.optimizer = torch.optim.Adam(self.params, self.settings.learning_rate)
    self.steps = 0

  def draw_noise(self, images: Tensor) -> Tensor:
    """Draws noise: U(-.5, .5) for the feature in stage 1, signs in stage 2."""
    b, _, h, w = images.shape
    if self.stage == "hvs_sd":
      return torch.rand(b, _N, h // 8, w // 8, device=images.device) - 0.5
    return torch.where(torch.rand(b, 1, h, w, device=images.device) >= 0.5, 1.0, -1.0)

  def step(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Makes one update, and returns the loss and the gradient's norm before clipping."""
    if self.stage == "hvs_sd":
      rate_distortion_lambda = self.config.hvs_sd.rate_distortion_lambda
      loss = rate_distortion_objective(self.model.hvs_sd, images, noise, rate_distortion_lambda)
    else:
      loss = jnd_objective(self.model, images, noise, self.config.jnd)
    self.optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(self.params, self.settings.clip_norm)
    self.optimizer.step()
    decay = min(self.settings.ema_decay, (1 + self.steps) / (10 + self.steps))
    with torch.no_grad():
      for average, param in zip(self.average, self.params, strict=True):
        average.lerp_(param, 1 - decay)
    self.steps += 1
    return loss.detach(), norm


def rate_distortion_objective(
  hvs_sd: HVSSD, images: Tensor, noise: Tensor, rate_distortion_lambda: float
) -> Tensor:
  """Computes the objective of stage 1."""
  noisy = hvs_sd.encoder(images) + noise
  mse = (hvs_sd.decoder(noisy) - images).square().mean()
  return rate_distortion_lambda * mse + hvs_sd.bits_per_pixel(noisy).mean()


def jnd_objective(model: Twin, images: Tensor, signs: Tensor, config: JNDConfig) -> Tensor:
  """Computes the objective of stage 2, as configs/paper.py has it."""
  degraded, attention, gradient = compute_priors(model.hvs_sd, images)
  noise = config.lmbda * model.generator(images, attention, gradient)
  distorted = (images + signs * noise).clamp(0, 1)
  noisy = model.hvs_sd(distorted)
  relative = noise / compute_threshold(images)
  quality = (1 - _ms_ssim(noisy, degraded) + _gmsd(noisy, degraded)) / 2
  shift = (compute_attention(noisy, distorted) - attention).abs()
  return (
    config.magnitude_weight * _magnitude_loss(relative, config.magnitude_target)
    + config.quality_weight * quality.mean()
    + config.attention_weight * shift.mean()
    + config.visibility_weight * relative.square().mean()
  )


def _magnitude_loss(noise: Tensor, target: float) -> Tensor:
  typical = (noise + 0.01 / 255).log().mean(dim=(2, 3)).exp()
  return ((typical**2 + target**2) / (2 * typical * target)).log().mean()


def _ms_ssim(distorted: Tensor, reference: Tensor) -> Tensor:
  offsets = torch.arange(-5, 6, device=distorted.device)
  window = torch.exp(-(offsets**2) / (2 * 1.5**2))
  window = window / window.sum()
  score = torch.ones((), device=distorted.device)
  for scale, weight in enumerate(_MS_WEIGHTS):
    if scale > 0:
      padding = [side % 2 for side in distorted.shape[2:]]
      distorted, reference = (
        F.avg_pool2d(images, 2, padding=padding) for images in (distorted, reference)
      )
    luminance, contrast = _ssim_terms(distorted, reference, window)
    term = contrast if scale < len(_MS_WEIGHTS) - 1 else luminance * contrast
    score = score * term.mean(dim=(2, 3)).clamp(min=1e-6) ** weight
  return score.mean(dim=1)


def _ssim_terms(distorted: Tensor, reference: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
  squares = distorted**2 + reference**2
  maps = torch.cat([distorted, reference, squares, distorted * reference], dim=1)
  blurred = _filter(_filter(maps, window[:, None]), window[None])
  mean_d, mean_r, squares, product = blurred.chunk(4, dim=1)
  means = mean_d**2 + mean_r**2
  luminance = (2 * mean_d * mean_r + 0.01**2) / (means + 0.01**2)
  contrast = (2 * (product - mean_d * mean_r) + 0.03**2) / (squares - means + 0.03**2)
  return luminance, contrast


def _gmsd(distorted: Tensor, reference: Tensor) -> Tensor:
  d, r = (_edges(F.avg_pool2d(images, 2)) for images in (distorted, reference))
  difference = (d - r) ** 2 / (d**2 + r**2 + 170 / 255**2)
  return difference.flatten(1).std(dim=1)


def _edges(images: Tensor) -> Tensor:
  horizontal = torch.tensor([[-1.0, 0, 1]], device=images.device).expand(3, 3) / 3
  padded = F.pad(images, (1, 1, 1, 1))
  edges = _filter(padded, horizontal) ** 2 + _filter(padded, horizontal.T) ** 2
  return (edges + 1 / 255**2).sqrt()


def _filter(images: Tensor, window: Tensor) -> Tensor:
  """Filters every channel with the same window, without padding."""
  channels = images.shape[1]
  return F.conv2d(images, window.expand(channels, 1, *window.shape), groups=channels)

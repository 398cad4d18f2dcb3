"""The signal-degradation network and its bit estimator."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hvsjnd_jax.model.hvs_sd import HVSSD, BitEstimator
from hvsjnd_jax.model.jnd_model import JNDModel

# Float64 against float64; P is a difference of two values near 1.
F64 = 1e-9


def test_parameter_count(model: JNDModel):
  assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model.hvs_sd))) == 1_725_571


def test_shapes(small_hvs_sd: HVSSD):
  images = jnp.full((2, 16, 24, 3), 0.5)
  features = small_hvs_sd.encoder(images)
  assert features.shape == (2, 2, 3, 8)
  assert small_hvs_sd.decoder(features).shape == images.shape
  assert small_hvs_sd.bits_per_pixel(features).shape == (2,)


@pytest.mark.usefixtures("x64")
def test_gradients(check_gradient: Callable[..., None], small_hvs_sd: HVSSD):
  def forward(hvs_sd: HVSSD, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    features = hvs_sd.encoder(images)
    return hvs_sd.decoder(features), hvs_sd.bits_per_pixel(features)

  # Off GDN's bound, where the gradient is a rule and not the derivative.
  shifted = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64) + 0.01, small_hvs_sd)
  check_gradient(forward, shifted, np.random.default_rng(0).random((1, 8, 16, 3)), forward=False)


def _spread(channels: int) -> BitEstimator:
  """A bit estimator with parameters far from their start."""
  graph, state = nnx.split(BitEstimator(channels, rngs=nnx.Rngs(0)))
  return nnx.merge(graph, jax.tree.map(lambda leaf: 30 * leaf, state))


def _cumulative_oracle(estimator: BitEstimator, values: np.ndarray) -> np.ndarray:
  for step in (estimator.f1, estimator.f2, estimator.f3):
    h, b, a = (np.asarray(p[...]) for p in (step.h, step.b, step.a) if p is not None)
    t = values * np.log1p(np.exp(h)) + b
    values = t + np.tanh(t) * np.tanh(a)
  last = estimator.f4
  t = values * np.log1p(np.exp(np.asarray(last.h[...]))) + np.asarray(last.b[...])
  return 1 / (1 + np.exp(-t))


@pytest.mark.usefixtures("x64")
def test_bits_against_oracle():
  estimator = _spread(5)
  features = np.random.default_rng(0).normal(0, 3, (2, 3, 4, 5))
  likelihood = _cumulative_oracle(estimator, features + 0.5)
  likelihood -= _cumulative_oracle(estimator, features - 0.5)
  want = np.clip(-np.log2(likelihood + 1e-10), 0, 50).sum(axis=(1, 2, 3))
  np.testing.assert_allclose(estimator(jnp.asarray(features)), want, rtol=F64)


@pytest.mark.usefixtures("x64")
def test_cumulative_is_a_distribution():
  estimator = _spread(16)
  values = jnp.linspace(-400, 400, 4001)[None, None, :, None] * jnp.ones(16)
  cumulative = estimator.cumulative(values)
  assert ((cumulative >= 0) & (cumulative <= 1)).all()
  assert (jnp.diff(cumulative, axis=2) >= 0).all()
  assert cumulative[:, :, 0].max() < 1e-3
  assert cumulative[:, :, -1].min() > 1 - 1e-3


def test_bits_of_impossible_features_are_bounded():
  estimator = _spread(4)
  features = jnp.full((1, 1, 1, 4), 1e6)
  # P = 0, so each costs -log2(1e-10) bits.
  assert estimator(features)[0] == pytest.approx(4 * np.log2(1e10), rel=1e-6)
  assert jnp.isfinite(jax.grad(lambda f: estimator(f).sum())(features)).all()


def test_bits_per_pixel_counts_image_pixels(small_hvs_sd: HVSSD):
  features = jax.random.normal(jax.random.key(0), (2, 3, 4, 8))
  bits = small_hvs_sd.bit_estimator(features)
  np.testing.assert_allclose(small_hvs_sd.bits_per_pixel(features), bits / (24 * 32), rtol=1e-6)

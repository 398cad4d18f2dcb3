"""The whole path against the published implementation's numbers; see tests/goldens/README.md."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert.keymap import PARAMETERS
from hvsjnd_jax import metrics
from hvsjnd_jax.estimator import analyze
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.noise import inject
from tests.support.golden_weights import digest, draw_state

DATA = Path(__file__).parents[1] / "goldens"
PIPELINES = ("chelsea_64x96", "coffee_176", "coffee_256x384")

# Relative to an array's maximum: float32 through eleven convolutions, measured <= 2.7e-6.
PORT = 1e-5
# PSNR is read to two or three decimals.
PORT_DB = 1e-3


@pytest.fixture(scope="module", params=PIPELINES)
def golden(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
  with np.load(DATA / f"pipeline_{request.param}.npz") as file:
    return dict(file)


def test_recipe_draws_the_weights_that_the_goldens_were_made_with(golden: dict[str, np.ndarray]):
  for network, table in PARAMETERS.items():
    shapes = {key: shape for key, (_, shape) in table.items()}
    assert digest(draw_state(int(golden["weights_seed"]), shapes)) == golden[f"{network}_sha256"]


@pytest.mark.usefixtures("optimized")
def test_pipeline(golden: dict[str, np.ndarray], build_golden: Callable[[int], JNDModel]):
  model = build_golden(int(golden["weights_seed"]))
  image = jnp.asarray(golden["image"][None], jnp.float32) / 255
  jnd, priors = analyze(model, image)
  assert priors is not None
  signs = jnp.asarray(golden["noise"], jnp.float32)
  distorted = inject(image, jnd, signs, lmbda=float(golden["lmbda"]))
  feature, recon, image_gradient = _inside(model, image)

  got = {
    "feature": feature,
    "recon": recon,
    "recon_grad": 2 * (recon - image) / image.size,
    "recon_mse": jnp.square(recon - image).mean(),
    "bpp": model.require_hvs_sd("test").bits_per_pixel(feature),
    "image_grad_relu": jax.nn.relu(image_gradient),
    "cam": priors.attention,
    "jnd": jnd,
    "distorted": distorted,
  }
  # The published code's feature was not kept for 256x384.
  assert got.keys() - golden.keys() <= {"feature"}
  for name in got.keys() & golden.keys():
    _assert_close(name, np.asarray(got[name]), golden)

  channels = [metrics.psnr(distorted[..., c : c + 1], image[..., c : c + 1]) for c in range(3)]
  psnr = jnp.concatenate([*channels, metrics.psnr(distorted, image)])
  np.testing.assert_allclose(psnr, golden["psnr"], rtol=0, atol=PORT_DB)

  # The estimator's own priors, against what the goldens were before they were scaled.
  low, high = (reduce(np.asarray(jax.nn.relu(image_gradient))) for reduce in (np.min, np.max))
  scaled = (golden["image_grad_relu"] - low) / (high - low)
  step = int(golden["step"])
  np.testing.assert_allclose(priors.gradient[0, ::step, ::step], scaled, rtol=0, atol=PORT)
  np.testing.assert_allclose(priors.degraded, recon, rtol=0, atol=PORT * np.abs(recon).max())


@jax.jit
def _inside(model: JNDModel, image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Feature, reconstruction, and the distortion's gradient as JAX itself derives it."""

  def distortion(image: jax.Array) -> tuple[jax.Array, Any]:
    feature = model.require_hvs_sd("test").encoder(image)
    recon = model.require_hvs_sd("test").decoder(feature)
    return jnp.square(recon - image).mean(), (feature, recon)

  gradient, (feature, recon) = jax.grad(distortion, has_aux=True)(image)
  return feature, recon, gradient


def _assert_close(name: str, got: np.ndarray, golden: dict[str, np.ndarray]) -> None:
  want, step = golden[name], int(golden["step"])
  if name == "feature":
    got = got[0, :, :, ::step]
  elif want.ndim > 0:
    got = got[0, ::step, ::step]
  got = got.reshape(want.shape)
  atol = PORT * np.abs(want).max()
  np.testing.assert_allclose(got, want, rtol=0, atol=atol, err_msg=name)

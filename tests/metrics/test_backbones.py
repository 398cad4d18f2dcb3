"""VGG16 and ResNet-34, against golden numbers and, where it is installed, PyTorch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hvsjnd_jax.metrics.backbones import VGG16, ResNet34, l2_pool
from tests.support.golden_backbones import build, draw
from tests.support.golden_pairs import PAIRS, read_pair, to_images
from tests.support.golden_weights import digest

DrawImages = Callable[..., jax.Array]

# Relative to the greatest magnitude; measured: 2e-7 for logits, 2e-6 for features.
PORT = 1e-5


def assert_close(got: Any, want: Any) -> None:
  np.testing.assert_allclose(got, want, rtol=0, atol=PORT * np.abs(want).max())


@pytest.mark.parametrize("network", ["vgg16", "classifier"])
@pytest.mark.parametrize("name", PAIRS)
def test_recipe_draws_the_weights_that_the_goldens_were_made_with(name: str, network: str):
  golden = read_pair(name)
  assert digest(draw(network, int(golden["weights_seed"]))) == golden[f"{network}_sha256"]


@pytest.mark.parametrize("name", PAIRS)
def test_logits_are_the_published_code_s(name: str):
  golden = read_pair(name)
  classifier = build("classifier", int(golden["weights_seed"]))
  distorted, _ = to_images(golden)
  features = jax.jit(ResNet34.features)(classifier, distorted)
  assert features.shape == (1, *(-(-side // 32) for side in distorted.shape[1:3]), 512)
  assert_close(classifier.head(features)[0], golden["resnet34_logits"])


def test_features_have_the_shapes_of_their_stages(vgg16: VGG16, draw_images: DrawImages):
  stages = jax.jit(VGG16.features)(vgg16, draw_images(2, 33, 48))
  sides = [(33, 48), (17, 24), (9, 12), (5, 6), (3, 3)]
  widths = (64, 128, 256, 512, 512)
  want = [(2, *side, width) for side, width in zip(sides, widths, strict=True)]
  assert [stage.shape for stage in stages] == want
  assert all((stage >= 0).all() for stage in stages)


@pytest.mark.parametrize(("h", "w"), [(8, 6), (7, 9), (1, 2)])
def test_l2_pool_is_the_root_of_the_windows_mean_square(h: int, w: int):
  maps = np.random.default_rng(0).standard_normal((2, h, w, 3)).astype(np.float32)
  window = np.outer((1, 2, 1), (1, 2, 1))[..., None] / 16
  squares = np.pad(maps**2, ((0, 0), (1, 1), (1, 1), (0, 0)))
  want = np.asarray(
    [
      [
        [(window * image[i : i + 3, j : j + 3]).sum(axis=(0, 1)) for j in range(0, w, 2)]
        for i in range(0, h, 2)
      ]
      for image in squares
    ]
  )
  np.testing.assert_allclose(l2_pool(jnp.asarray(maps)), np.sqrt(want), rtol=1e-5)


def test_l2_pool_has_a_finite_gradient_at_zero():
  gradient = jax.grad(lambda maps: l2_pool(maps).sum())(jnp.zeros((1, 4, 4, 1)))
  np.testing.assert_array_equal(gradient, 0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_networks_compute_in_the_precision_of_the_images(
  vgg16: VGG16, classifier: ResNet34, dtype: Any
):
  """The weights being float32."""
  images = jax.ShapeDtypeStruct((1, 32, 32, 3), dtype)
  for outputs in jax.eval_shape(vgg16.features, images), jax.eval_shape(classifier, images):
    assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {jnp.dtype(dtype)}


def test_a_batch_is_its_images_one_by_one(
  vgg16: VGG16, classifier: ResNet34, draw_images: DrawImages
):
  images = draw_images(2, 40, 32)

  @jax.jit
  def run(images: jax.Array) -> list[jax.Array]:
    return [classifier(images), *vgg16.features(images)]

  both, alone = run(images), [run(images[i : i + 1]) for i in range(2)]
  for k, outputs in enumerate(both):
    assert_close(outputs, np.concatenate([one[k] for one in alone]))


def test_the_number_of_classes_can_be_chosen(draw_images: DrawImages):
  logits = jax.eval_shape(lambda x: ResNet34(3, rngs=nnx.Rngs(0))(x), draw_images(1, 32, 32))
  assert logits.shape == (1, 3)


def test_vgg16_is_torchvision_s_but_for_the_pooling(draw_images: DrawImages):
  torch = pytest.importorskip("torch")
  images = draw_images(1, 37, 50)
  state = {key: torch.from_numpy(array) for key, array in draw("vgg16", 1).items()}
  hidden = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
  mean, deviation = (
    torch.tensor(values).view(1, 3, 1, 1)
    for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
  )
  hidden = (hidden - mean) / deviation
  window = torch.outer(*[torch.tensor([0.5, 1.0, 0.5])] * 2)
  window = (window / window.sum()).view(1, 1, 3, 3)
  place, stages = 0, []
  for block, depth in enumerate((2, 2, 3, 3, 3)):
    if block > 0:
      c = hidden.shape[1]
      kernel = window.expand(c, 1, 3, 3)
      hidden = torch.nn.functional.conv2d(hidden**2, kernel, stride=2, padding=1, groups=c)
      hidden = (hidden + 1e-12).sqrt()
      place += 1
    for _ in range(depth):
      weight, bias = state[f"features.{place}.weight"], state[f"features.{place}.bias"]
      hidden = torch.nn.functional.conv2d(hidden, weight, bias, padding=1).relu()
      place += 2
    stages.append(hidden.permute(0, 2, 3, 1).numpy())
  for got, want in zip(build("vgg16", 1).features(images), stages, strict=True):
    assert_close(got, want)

"""The objectives of both training stages."""

from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hvsjnd_jax.estimator import analyze, inject, random_signs
from hvsjnd_jax.metrics.backbones import VGG16, Backbones, ResNet34
from hvsjnd_jax.model.hvs_sd import HVSSD
from hvsjnd_jax.model.jnd_model import JNDModel
from hvsjnd_jax.training import losses, objectives, released_losses
from hvsjnd_jax.training.config import AttentionForm, JNDConfig, RateDistortionConfig
from tests.support.golden_backbones import build
from tests.support.golden_pairs import PAIRS, read_pair, to_images

DrawImages = Callable[..., jax.Array]
FlatImages = Callable[[int], jax.Array]

# Weights that are all different, so that none can stand for another.
CONFIG = JNDConfig(
  magnitude_weight=2.0, quality_weight=3.0, attention_weight=5.0, visibility_weight=7.0
)

# The floor under the logarithm, 4e-5, beside amplitudes of 0.02 and more.
FLOOR = 5e-3
# A weighted sum of a few float32 terms.
SUM = 1e-5


def _noise(*amplitudes: float) -> jax.Array:
  """One image of even noise, with an amplitude for each channel."""
  return jnp.broadcast_to(jnp.asarray(amplitudes, jnp.float32), (1, 8, 8, 3))


@pytest.mark.parametrize("target", [0.02, 0.3])
def test_magnitude_loss_is_zero_at_the_target(target: float):
  loss = losses.magnitude_loss(_noise(target, target, target), target=target)
  np.testing.assert_allclose(loss, [0], atol=FLOOR)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_magnitude_loss_counts_every_channel(channel: int):
  amplitudes = [0.1, 0.1, 0.1]
  amplitudes[channel] = 0.2
  loss = losses.magnitude_loss(_noise(*amplitudes), target=0.1)
  # log((N^2 + T^2) / 2NT) = log(5 / 4), in one channel of three.
  np.testing.assert_allclose(loss, [np.log(5 / 4) / 3], rtol=FLOOR)


@pytest.mark.parametrize("factor", [1.5, 4.0])
def test_magnitude_loss_is_symmetric_in_log(factor: float):
  above, below = (
    losses.magnitude_loss(_noise(n, n, n), target=0.1) for n in (0.1 * factor, 0.1 / factor)
  )
  np.testing.assert_allclose(above, below, rtol=FLOOR)
  assert above[0] > 0


def test_magnitude_loss_punishes_noise_in_one_channel():
  spread = losses.magnitude_loss(_noise(0.1, 0.1, 0.1), target=0.1)
  one = losses.magnitude_loss(_noise(0.0, 0.1 * 3**0.5, 0.0), target=0.1)
  assert one[0] > spread[0] + 0.1


def test_magnitude_loss_of_no_noise_is_finite():
  value, gradient = jax.value_and_grad(
    lambda noise: losses.magnitude_loss(noise, target=0.02).sum()
  )(_noise(0, 0, 0))
  assert jnp.isfinite(value)
  assert jnp.isfinite(gradient).all()


def test_magnitude_loss_is_not_met_by_peaks():
  peaks = jnp.full((1, 8, 8, 3), 1e-3).at[:, ::4, ::4].set(1.6)
  assert peaks.mean() == pytest.approx(0.1, rel=0.05)
  even, peaked = (
    losses.magnitude_loss(noise, target=0.1)[0] for noise in (_noise(*[0.1] * 3), peaks)
  )
  assert peaked > even + 0.1


def test_rms_magnitude_is_that_of_gray_levels():
  """Noise of one energy in gray levels has one magnitude, wherever it is."""
  thresholds = jnp.asarray([[0.01, 0.02], [0.03, 0.04]])[None, ..., None] * jnp.ones(3)
  unit = jnp.sqrt(jnp.mean(jnp.square(thresholds[..., 0])))
  even = 0.5 * jnp.ones_like(thresholds)
  one_pixel = jnp.zeros_like(thresholds).at[:, 0, 0].set(0.5 * 2 * unit / 0.01)
  for noise in (even, one_pixel):
    equal = losses.rms_magnitude_loss(noise, thresholds, target=0.5)
    np.testing.assert_allclose(equal, [0], atol=FLOOR)
    twice = losses.rms_magnitude_loss(2 * noise, thresholds, target=0.5)
    np.testing.assert_allclose(twice, [np.log(5 / 4)], rtol=FLOOR)


def test_rms_magnitude_of_no_noise_is_finite():
  thresholds = 0.01 * jnp.ones((1, 4, 4, 3))
  value, gradient = jax.value_and_grad(
    lambda noise: losses.rms_magnitude_loss(noise, thresholds, target=0.5).sum()
  )(jnp.zeros_like(thresholds))
  assert jnp.isfinite(value)
  assert jnp.isfinite(gradient).all()


def test_visibility_loss_is_least_for_even_noise():
  """Among maps of one geometric mean, as `magnitude_loss` asks for."""
  uneven = jnp.asarray([[0.5, 1.0], [1.0, 2.0]])[None, ..., None]
  assert losses.visibility_loss(jnp.ones_like(uneven))[0] == 1
  np.testing.assert_allclose(losses.visibility_loss(uneven), [6.25 / 4], rtol=SUM)
  sixth = losses.visibility_loss(uneven, power=6)
  np.testing.assert_allclose(sixth, [(2 + 2**6 + 2**-6) / 4], rtol=SUM)


def test_quality_loss_is_zero_for_equal_images(draw_images: DrawImages):
  images = draw_images(1, 168, 168)
  both = jnp.concatenate([images, images**2]), jnp.concatenate([images, images])
  equal, darker = jax.jit(losses.quality_loss)(*both)
  np.testing.assert_allclose(equal, 0, atol=SUM)
  assert darker > 0.01


@pytest.mark.parametrize("detail", [0.0, 0.2])
def test_mean_magnitude_loss_compares_the_map_with_the_image_s_detail(detail: float):
  # A ramp of `detail` a pixel across: Prewitt's difference spans two pixels, or one where
  # the border is repeated.
  ramp = detail * jnp.arange(5.0)[None, None, :, None] * jnp.ones((1, 4, 1, 3))
  edges = released_losses.edge_magnitude(ramp)
  np.testing.assert_allclose(edges[0, :, 1:-1], max(2 * detail, 1e-6), rtol=SUM)
  np.testing.assert_allclose(edges[0, :, [0, -1]], max(detail, 1e-6), rtol=SUM)
  amount = 3 * float(edges.mean())
  for mean in (0.0, 0.3, 1.0):
    m = 0.1 * 3 * mean
    want = np.log((amount**2 + m**2 + 0.001) / (2 * amount * m + 0.001))
    loss = released_losses.mean_magnitude_loss(jnp.full((1, 4, 5, 3), mean), ramp)
    np.testing.assert_allclose(loss, [want], rtol=1e-4)
  equal = released_losses.mean_magnitude_loss(jnp.full((1, 4, 5, 3), amount / 0.3), ramp)
  np.testing.assert_allclose(equal, [0], atol=1e-9)


def test_total_variation_loss_is_the_released_formula(draw_images: DrawImages):
  images = draw_images(2, 8, 9)
  jnd = 0.1 * draw_images(2, 8, 9, seed=1)
  rows, columns = np.asarray([1, 1, 1]) / 3, np.asarray([1, 0, -1])
  padded = np.pad(np.asarray(images, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
  x, y = np.zeros(images.shape), np.zeros(images.shape)
  for i in range(3):
    for j in range(3):
      part = padded[:, i : i + 8, j : j + 9]
      x += rows[i] * columns[j] * part
      y += columns[i] * rows[j] * part
  variation = np.hypot(x, y).sum(axis=(1, 2, 3))
  t1, t2 = 1 / (variation + 1), 1 / (np.asarray(jnd).sum(axis=(1, 2, 3)) + 1)
  want = np.log((t1**2 + t2**2 + 0.001) / (2 * t1 * t2 + 0.001))
  np.testing.assert_allclose(released_losses.total_variation_loss(jnd, images), want, rtol=1e-4)


ATTENTION_FORMS: tuple[AttentionForm, ...] = get_args(AttentionForm)
MAGNITUDE_LOSSES = (released_losses.mean_magnitude_loss, released_losses.total_variation_loss)


@pytest.mark.parametrize("loss", MAGNITUDE_LOSSES)
def test_gradient_of_the_released_magnitude_losses(
  loss: Callable[..., jax.Array], draw_images: DrawImages, check_gradient: Callable[..., None]
):
  images, jnd = np.asarray(draw_images(2, 4, 4)), np.asarray(0.1 * draw_images(2, 4, 4, seed=1))
  with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
    check_gradient(loss, jnd, images)


@pytest.mark.parametrize("loss", MAGNITUDE_LOSSES)
def test_released_magnitude_losses_of_nothing_are_finite(loss: Callable[..., jax.Array]):
  zero = jnp.zeros((1, 4, 4, 3))
  for leaf in jax.value_and_grad(lambda jnd, x: loss(jnd, x).sum(), argnums=(0, 1))(zero, zero):
    assert jnp.isfinite(jnp.asarray(leaf)).all()


@pytest.fixture(scope="module")
def attention_maps() -> tuple[jax.Array, jax.Array]:
  rng = np.random.default_rng(0)
  a, b = rng.random((2, 3, 6, 7, 1), np.float32)
  return jnp.asarray(a), jnp.asarray(b)


def test_attention_losses_are_their_formulas(attention_maps: tuple[jax.Array, jax.Array]):
  a, b = (np.asarray(maps, np.float64).reshape(3, -1) for maps in attention_maps)
  p, q = ((m + 1 / 255) / (m + 1 / 255).sum(axis=1, keepdims=True) for m in (a, b))
  want = {
    "l1": np.abs(a - b).mean(axis=1),
    "kl": (q * np.log(q / p)).sum(axis=1),
    "correlation": [1 - np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)],
  }
  assert want.keys() == set(ATTENTION_FORMS)
  for form in ATTENTION_FORMS:
    got = losses.attention_loss(*attention_maps, form=form)
    np.testing.assert_allclose(got, want[form], rtol=1e-4, err_msg=form)  # e beside variances
  np.testing.assert_allclose(losses.attention_loss(*attention_maps), want["l1"], rtol=1e-4)


@pytest.mark.parametrize("form", ATTENTION_FORMS)
def test_attention_loss_of_equal_maps_is_zero(
  form: AttentionForm, attention_maps: tuple[jax.Array, jax.Array]
):
  flat = jnp.ones((3, 6, 7, 1)) * jnp.asarray([0.0, 0.5, 1.0])[:, None, None, None]
  for maps in (attention_maps[0], flat):
    np.testing.assert_allclose(losses.attention_loss(maps, maps, form=form), 0, atol=1e-6)
  for pair in ((flat, flat), (flat, attention_maps[0]), (attention_maps[0], flat)):
    gradient = jax.grad(lambda *ab: losses.attention_loss(*ab, form=form).sum(), argnums=(0, 1))
    assert all(jnp.isfinite(leaf).all() for leaf in gradient(*pair))


@pytest.mark.parametrize("form", ["kl", "correlation"])
def test_gradient_of_the_attention_loss(
  form: AttentionForm,
  attention_maps: tuple[jax.Array, jax.Array],
  check_gradient: Callable[..., None],
):
  with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
    check_gradient(
      lambda a, b: losses.attention_loss(a, b, form=form), *map(np.asarray, attention_maps)
    )


RunAIC = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


@pytest.fixture(scope="module")
def run_aic(vgg16: VGG16) -> RunAIC:
  """Losses, and the gradient of their sum with respect to the distorted images."""

  @jax.jit
  def run(distorted: jax.Array, reference: jax.Array, classes: jax.Array) -> Any:
    def total(distorted: jax.Array) -> tuple[jax.Array, jax.Array]:
      loss = released_losses.aic_loss(distorted, reference, classes, vgg16=vgg16)
      return loss.sum(), loss

    gradient, loss = jax.grad(total, has_aux=True)(distorted)
    return loss, gradient

  return run


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("name", PAIRS)
def test_aic_is_the_published_code_s(name: str):
  golden = read_pair(name)
  vgg16 = build("vgg16", int(golden["weights_seed"]))
  # One batch of all classes: no image's choice touches another's.
  distorted, reference = (images.repeat(5, axis=0) for images in to_images(golden))
  loss = jax.jit(released_losses.aic_loss)(distorted, reference, jnp.arange(5), vgg16=vgg16)
  for kind, got in enumerate(loss):
    # SSIM's variances, as differences of squares, cost it three digits: 5e-5 of its score.
    atol = 5e-5 / 3 if kind in (1, 4) else 1e-6
    np.testing.assert_allclose(got, golden[f"aic_{kind}"], rtol=0, atol=atol)


def test_aic_of_equal_and_flat_images(
  run_aic: RunAIC, draw_images: DrawImages, flat_images: FlatImages
):
  flat = flat_images(168)
  reference = jnp.concatenate([draw_images(2, 168, 168), flat])
  classes = jnp.arange(5)
  loss, gradient = run_aic(reference, reference, classes)
  np.testing.assert_allclose(loss, 0, atol=1e-6)
  assert jnp.isfinite(gradient).all()
  for leaf in run_aic(reference[::-1], reference, classes):
    assert jnp.isfinite(leaf).all()


def test_aic_refuses_classes_that_are_none(vgg16: VGG16):
  images = jnp.zeros((2, 168, 168, 3))
  with pytest.raises(TypeError, match="aic_loss: expected integer classes, got float32"):
    released_losses.aic_loss(images, images, jnp.zeros(2), vgg16=vgg16)
  with pytest.raises(ValueError, match=r"aic_loss: expected a class for each of 2 images, got \(3"):
    released_losses.aic_loss(images, images, jnp.zeros(3, jnp.int32), vgg16=vgg16)


def test_class_is_the_greatest_logit_and_carries_no_gradient(
  classifier: ResNet34, draw_images: DrawImages
):
  images = draw_images(2, 40, 40)
  got = jax.jit(released_losses.classify)(classifier, images)
  np.testing.assert_array_equal(got, jax.jit(ResNet34.__call__)(classifier, images).argmax(axis=-1))

  def of_class(images: jax.Array) -> jax.Array:
    return released_losses.classify(classifier, images).astype(jnp.float32).sum()

  np.testing.assert_array_equal(jax.jit(jax.grad(of_class))(images), 0)
  # Nothing was computed for it: no more convolutions than forward.
  forward, backward = (
    str(jax.make_jaxpr(function)(images)).count("conv_general_dilated[")
    for function in (of_class, jax.grad(of_class))
  )
  assert forward == backward == 36


def draw_keys(*seeds: int) -> jax.Array:
  return jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))


RunRateDistortion = Callable[[jax.Array, jax.Array], tuple[jax.Array, objectives.Terms]]


@pytest.fixture(scope="module")
def run_rate_distortion(small_hvs_sd: HVSSD) -> RunRateDistortion:
  @jax.jit
  def run(images: jax.Array, keys: jax.Array) -> tuple[jax.Array, objectives.Terms]:
    config = RateDistortionConfig(rate_distortion_lambda=128.0)
    return objectives.rate_distortion_objective(small_hvs_sd, images, keys, config=config)

  return run


def test_rate_distortion_objective(run_rate_distortion: RunRateDistortion, draw_images: DrawImages):
  images = draw_images(2, 16, 24)
  total, terms = run_rate_distortion(images, draw_keys(0, 1))
  assert terms.keys() == {"mse", "bpp"}
  assert total.shape == terms["mse"].shape == terms["bpp"].shape == ()
  assert jnp.isfinite(total)
  np.testing.assert_allclose(total, 128 * terms["mse"] + terms["bpp"], rtol=SUM)

  # The noise is used, in the distortion and in the rate, and comes from the keys alone.
  _, again = run_rate_distortion(images, draw_keys(0, 1))
  for keys in (draw_keys(0, 2), draw_keys(2, 1), draw_keys(1, 0)):
    _, other = run_rate_distortion(images, keys)
    for name, value in terms.items():
      assert again[name] == value
      assert other[name] != value


def test_rate_distortion_of_a_batch_is_the_mean_of_its_images(
  run_rate_distortion: RunRateDistortion, draw_images: DrawImages
):
  images, keys = draw_images(3, 16, 24), draw_keys(5, 6, 7)
  batch = run_rate_distortion(images, keys)
  alone = [run_rate_distortion(images[i : i + 1], keys[i : i + 1]) for i in range(3)]
  assert_is_mean(batch, alone)


def assert_is_mean(batch: tuple, alone: list[tuple]) -> None:
  total, terms = batch
  np.testing.assert_allclose(total, np.mean([one for one, _ in alone]), rtol=SUM)
  for name, value in terms.items():
    np.testing.assert_allclose(value, np.mean([one[name] for _, one in alone]), rtol=SUM)


RunJND = Callable[[jax.Array, jax.Array], tuple]


@pytest.fixture(scope="module")
def run_jnd_objective(model: JNDModel) -> RunJND:
  """(Total, terms) and the generator's gradient."""
  graph, generator, frozen = nnx.split(model, nnx.PathContains("generator"), ...)

  @jax.jit
  def run(images: jax.Array, keys: jax.Array) -> tuple:
    def objective(generator: nnx.State) -> tuple[jax.Array, objectives.Terms]:
      merged = nnx.merge(graph, generator, frozen)
      return objectives.jnd_objective(merged, images, keys, config=CONFIG)

    return jax.value_and_grad(objective, has_aux=True)(generator)

  return run


def test_jnd_objective(run_jnd_objective: RunJND, draw_images: DrawImages):
  images = draw_images(1, 168, 168)
  (total, terms), gradient = run_jnd_objective(images, draw_keys(0))
  assert terms.keys() == {"magnitude", "quality", "attention", "visibility"}
  want = sum(getattr(CONFIG, f"{name}_weight") * value for name, value in terms.items())
  np.testing.assert_allclose(total, want, rtol=SUM)
  for value in (total, *terms.values()):
    assert value.shape == ()
    assert value > 0
  for leaf in jax.tree.leaves(gradient):
    assert jnp.isfinite(leaf).all()
    assert (leaf != 0).any()

  # The signs come from the key, and matter where the distorted image does.
  (_, other), _ = run_jnd_objective(images, draw_keys(1))
  assert {name for name, value in terms.items() if other[name] != value} == {
    "quality",
    "attention",
  }


def test_jnd_objective_of_a_batch_is_the_mean_of_its_images(
  run_jnd_objective: RunJND, draw_images: DrawImages
):
  images, keys = draw_images(2, 168, 168), draw_keys(5, 6)
  batch, _ = run_jnd_objective(images, keys)
  alone = [run_jnd_objective(images[i : i + 1], keys[i : i + 1])[0] for i in range(2)]
  assert_is_mean(batch, alone)


@pytest.mark.parametrize("index", [0, 1, 2], ids=["black", "grey", "white"])
def test_jnd_objective_on_flat_images_is_finite(
  run_jnd_objective: RunJND, flat_images: FlatImages, index: int
):
  image = flat_images(168)[index : index + 1]
  for leaf in jax.tree.leaves(run_jnd_objective(image, draw_keys(0))):
    assert jnp.isfinite(leaf).all()


def test_released_objective(
  model: JNDModel, vgg16: VGG16, classifier: ResNet34, draw_images: DrawImages
):
  """The first released form; each term is the one that its name says."""
  config = JNDConfig(
    magnitude_form="mean", quality_form="aic", attention_form="kl", magnitude_weight=0.1
  )
  images, keys = draw_images(1, 168, 168), draw_keys(0)
  backbones = Backbones(vgg16, classifier)
  graph, generator, frozen = nnx.split(model, nnx.PathContains("generator"), ...)

  def objective(generator: nnx.State, frozen: Any) -> tuple[jax.Array, objectives.Terms]:
    frozen, backbones = frozen
    merged = nnx.merge(graph, generator, frozen)
    return objectives.jnd_objective(merged, images, keys, config=config, backbones=backbones)

  run = jax.jit(jax.value_and_grad(objective, has_aux=True))
  (total, terms), gradient = run(generator, (frozen, backbones))
  want = sum(getattr(config, f"{name}_weight") * value for name, value in terms.items())
  np.testing.assert_allclose(total, want, rtol=SUM)
  for leaf in jax.tree.leaves(gradient):
    assert jnp.isfinite(leaf).all()
    assert (leaf != 0).any()

  analysis = analyze(model, images, resolution=config.resolution, attention=config.attention_layer)
  signs = jax.vmap(lambda key: random_signs(key, (168, 168)))(keys)
  distorted = inject(images, analysis.jnd, signs, lmbda=config.lmbda)
  noisy = analyze(model, distorted, attention=config.attention_layer).priors
  clean = analysis.priors
  quality = jax.jit(released_losses.aic_loss)(
    noisy.degraded,
    clean.degraded,
    released_losses.classify(classifier, noisy.degraded),
    vgg16=vgg16,
    gradient_floor=1.0,
  )
  others = {
    "magnitude": released_losses.mean_magnitude_loss(analysis.jnd, images),
    "quality": quality,
    "attention": losses.attention_loss(noisy.attention, clean.attention, form="kl"),
  }
  for name, value in others.items():
    np.testing.assert_allclose(terms[name], value[0], rtol=1e-3, err_msg=name)


def test_quality_of_pixels(model: JNDModel, draw_images: DrawImages):
  """The distorted image itself is compared, not what the perceptual domain makes of it."""
  images, keys = draw_images(1, 168, 168), draw_keys(0)
  config = JNDConfig(quality_domain="pixels")
  _, terms = jax.jit(lambda: objectives.jnd_objective(model, images, keys, config=config))()
  jnd = analyze(model, images, resolution=config.resolution, attention=config.attention_layer).jnd
  signs = random_signs(keys[0], (168, 168))
  wanted = losses.quality_loss(inject(images, jnd, signs, lmbda=config.lmbda), images)
  np.testing.assert_allclose(terms["quality"], wanted[0], rtol=1e-3)


def test_aic_objective_needs_its_backbones(model: JNDModel, draw_images: DrawImages):
  config = JNDConfig(quality_form="aic")
  with pytest.raises(ValueError, match=r"'aic' needs backbones: see weights\.load_vgg16"):
    jax.eval_shape(
      lambda images: objectives.jnd_objective(model, images, draw_keys(0), config=config),
      draw_images(1, 168, 168),
    )

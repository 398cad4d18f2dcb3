"""The classical models once more, in NumPy and SciPy, float64, as directly as they can be said.

All are functions of luma on 0..255, [H, W], in gray levels. SciPy's mode "reflect" repeats the
outermost pixel.
"""

import itertools
import math

import numpy as np
from scipy import ndimage, sparse
from skimage import feature, morphology

Luma = np.ndarray


def gaussian(image: Luma, radius: int, sigma: float) -> Luma:
  return ndimage.gaussian_filter(image, sigma, radius=radius)


def background(luma: Luma, mode: str = "reflect") -> Luma:
  weights = np.ones((5, 5))
  weights[1:4, 1:4] = 2
  weights[2, 2] = 0
  return ndimage.correlate(luma, weights / 32, mode=mode)


def adaptation(background: Luma) -> Luma:
  dark, light = 17 * (1 - np.sqrt(background / 127)) + 3, 3 / 128 * (background - 127) + 3
  return np.where(background <= 127, dark, light)


def lift(background: Luma) -> Luma:
  return np.where(background <= 127, np.round(32 + background * 95 / 127), background)


def gradient(luma: Luma) -> Luma:
  g1 = np.outer([0, 1, 0, -1, 0], [1, 3, 8, 3, 1])
  g2 = np.zeros((5, 5))
  g2[0, 2], g2[1, 1:3], g2[2, :2] = 1, (8, 3), (1, 3)
  g2 -= g2[::-1, ::-1]
  g3 = np.zeros((5, 5))
  g3[0, 2], g3[1, 2:4], g3[2, 3:] = 1, (3, 8), (3, 1)
  g3 -= g3[::-1, ::-1]
  return np.max([np.abs(ndimage.correlate(luma, g)) / 16 for g in (g1, g2, g3, g1.T)], axis=0)


def canny(luma: Luma, high: float) -> np.ndarray:
  """scikit-image's, whose thresholds are not relative."""
  blurred = ndimage.gaussian_filter(luma, np.sqrt(2))
  peak = np.hypot(ndimage.sobel(blurred, axis=0), ndimage.sobel(blurred, axis=1)).max()
  return feature.canny(luma, np.sqrt(2), 0.4 * high * peak, high * peak, mode="reflect")


def guard(luma: Luma) -> Luma:
  found = canny(luma, min(60 / gradient(luma).max(), 0.8))
  return gaussian(1.0 - ndimage.binary_dilation(found, morphology.disk(3)), 2, 0.8)


def add(a: Luma, b: Luma) -> Luma:
  return np.maximum(a, b) + 0.7 * np.minimum(a, b)


def chou_li(luma: Luma) -> Luma:
  b = background(luma)
  masking = gradient(luma) * (1e-4 * b + 0.115) + (0.5 - 0.01 * b)
  return np.maximum(masking, adaptation(b))


def yang(luma: Luma) -> Luma:
  weight = gaussian(1 - 0.9 * canny(luma, 0.5), 3, 0.8)
  return add(adaptation(background(luma)), 0.117 * gradient(luma) * weight)


def wu_2017(luma: Luma) -> Luma:
  h, w = luma.shape
  b = background(luma)
  la = 0.7 * adaptation(lift(b))

  spread = np.zeros((h, w))
  for y in range(2, h - 2):
    for x in range(2, w - 2):
      spread[y, x] = luma[y - 2 : y + 3, x - 2 : x + 3].std()
  masking = 1.84 * spread**2.4 / (spread**2 + 676)

  kernel = np.asarray([[-1, 0, 1]] * 3) / 3
  gh, gv = ndimage.correlate(luma, kernel), ndimage.correlate(luma, kernel.T)
  degrees = np.round(np.degrees(np.arctan(gv / np.where(gh == 0, 1e-300, gh))))
  bins = np.floor(np.where(degrees < 0, degrees + 180, degrees) / 12 + 0.5)
  valid = np.hypot(gh, gv) >= 5
  bins[~valid] = 16
  count = np.ones((h, w))
  for y in range(1, h - 1):
    for x in range(1, w - 1):
      if valid[y, x]:
        count[y, x] = len(set(bins[y - 1 : y + 2, x - 1 : x + 2].ravel()))
  count = gaussian(count, 1, 1)
  pattern = spread * 0.3 * count**2.7 / (count**2 + 1) * guard(luma)
  return add(la, np.maximum(masking, pattern))


def liu(luma: Luma) -> Luma:
  u, _ = find_structure(luma, steps=300, ratio=30)
  masking = 0.117 * (1 * gradient(u) + 3 * gradient(luma - u))
  return add(adaptation(background(luma)), masking)


def differences(shape: tuple[int, ...]) -> sparse.csr_array:
  """The matrix of forward differences, down and then to the right, 0 at the end of a side."""
  n = math.prod(shape)
  index = np.arange(n).reshape(shape)
  before = np.concatenate([index[:-1].ravel(), index[:, :-1].ravel()])
  after = np.concatenate([index[1:].ravel(), index[:, 1:].ravel()])
  rows = np.concatenate([index[:-1].ravel(), n + index[:, :-1].ravel()])
  values = np.repeat([1.0, -1.0], len(rows))
  places = np.tile(rows, 2), np.concatenate([after, before])
  return sparse.csr_array((values, places), shape=(2 * n, n))


def find_structure(
  luma: Luma, *, steps: int, ratio: float, fidelity: float = 0.8
) -> tuple[Luma, np.ndarray]:
  """Condat's Algorithm 3.1, over-relaxed by 1.9, for min |D u|_1 + fidelity |u - luma|_1.

  Returns u, and the dual field.
  """
  d = differences(luma.shape)
  x = data = luma.ravel()
  y = np.zeros(2 * luma.size)
  tau, sigma = ratio / np.sqrt(8), 1 / ratio / np.sqrt(8)
  for _ in range(steps):
    gap = x - tau * (d.T @ y) - data
    proposed = data + np.sign(gap) * np.maximum(np.abs(gap) - tau * fidelity, 0)
    field = (y + sigma * (d @ (2 * proposed - x))).reshape(2, -1)
    field = (field / np.maximum(1, np.linalg.norm(field, axis=0))).ravel()
    x, y = x + 1.9 * (proposed - x), y + 1.9 * (field - y)
  return x.reshape(luma.shape), y


def wu_2013(luma: Luma) -> Luma:
  windows = np.lib.stride_tricks.sliding_window_view(np.pad(luma, 3, mode="symmetric"), (7, 7))
  deviation = windows.std(axis=(2, 3))
  ordered = predict(luma, deviation)

  b = background(ordered)
  d = 80 * np.log10(1 + gradient(ordered) / 80) / np.log10(4)
  masking = np.abs(d * (1e-4 * b + 0.115) + 0.5 - 0.01 * b)
  j_o = add(adaptation(lift(b)), masking)

  residual = np.abs(luma - ordered)
  smoothed = gaussian(residual, 3, 7 / 3)
  j_d = np.where(deviation < 10, np.minimum(residual, smoothed), residual)
  near = ndimage.binary_dilation(canny(luma, 0.7), morphology.disk(2))
  j_d = j_d * gaussian(1 - 0.8 * near, 2, 0.8)

  total = add(j_o, j_d)
  inside = np.zeros(luma.shape, bool)
  inside[3:-3, 3:-3] = True
  return np.where(inside, total, 0)


def predict(luma: Luma, deviation: Luma) -> Luma:
  """All 440 weights at once."""
  h, w = luma.shape
  m = np.maximum(adaptation(lift(background(luma))), 8)
  s = np.where(deviation > m, m * np.sqrt(m / np.maximum(deviation, 1e-9)), m)
  padded = np.pad(luma, 13, mode="symmetric")
  patches = np.lib.stride_tricks.sliding_window_view(padded, (7, 7))  # centred at 3 - 13 = -10
  own = patches[10 : 10 + h, 10 : 10 + w]
  exponents, values = [], []
  for i, j in itertools.product(range(21), repeat=2):
    if (i, j) != (10, 10):
      other = patches[i : i + h, j : j + w]
      exponents.append(-((own - other) ** 2).mean(axis=(2, 3)) / s**2)
      values.append(other[:, :, 3, 3])
  exponents = np.stack([*exponents, np.max(exponents, axis=0)])
  weights = np.exp(exponents - exponents.max(axis=0))
  return (weights * np.stack([*values, luma])).sum(axis=0) / weights.sum(axis=0)


def contrast(luma: Luma) -> Luma:
  m = background(luma, "constant")
  la = np.where(m <= 127, 17 * (1 - np.sqrt(m / 127 + 1e-5)), 3 / 128 * (m - 127) + 3)
  c = np.hypot(*(ndimage.sobel(luma, axis=axis, mode="constant") for axis in (0, 1)))
  cm = 0.117 * 16 * c**2.4 / (c**2 + 26**2)
  return np.maximum(0, la + cm - 0.3 * np.minimum(la, cm))


def jiang(luma: Luma) -> Luma:
  h, w = luma.shape
  padded = np.pad(luma, ((0, -h % 8), (0, -w % 8)), mode="symmetric")
  corners = [(y, x) for y in range(0, len(padded), 8) for x in range(0, padded.shape[1], 8)]
  blocks = np.stack([padded[y : y + 8, x : x + 8].ravel() for y, x in corners], axis=1)
  values, vectors = np.linalg.eigh(np.cov(blocks, bias=True))
  vectors = vectors[:, np.argsort(-values)]
  components = vectors.T @ blocks
  shares = np.cumsum((components**2).mean(axis=1))
  shares /= shares[-1]
  b, e = 894.16, 0.99805
  logs = np.log(b / e) + (b - 1) * np.log(shares / e) - (shares / e) ** b
  density = np.exp(logs - logs.max())
  last = int(np.ceil((density * np.arange(1, 65)).sum() / density.sum()))
  assert 1 < last < 64  # else nothing is tested
  kept = vectors[:, :last] @ components[:last]
  critical = np.zeros_like(padded)
  for (y, x), block in zip(corners, kept.T, strict=True):
    critical[y : y + 8, x : x + 8] = block.reshape(8, 8)
  return np.abs(luma - critical[:h, :w]) * guard(luma)


ORACLES = {
  "chou_li_1995": chou_li,
  "yang_2005": yang,
  "liu_2010": liu,
  "wu_2013": wu_2013,
  "wu_2017": wu_2017,
  "contrast_heuristic": contrast,
  "jiang_2022": jiang,
}

"""Draws the method in one figure, docs/method.png, from the default weights.

  pip install '.[docs]'
  python docs/draw_method.py

Every panel is computed on the whole of scikit-image's `chelsea` (CC0), and shows a part of it.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import skimage.data
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

import hvsjnd_jax
from hvsjnd_jax.data.images import to_uint8
from hvsjnd_jax.metrics import psnr
from hvsjnd_jax.model import jnd_map, priors
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.viz.sheets import jet, visible_jnd

LMBDA = 10
PART = np.s_[66:186, 110:290]  # the part of the photograph that is shown: the eyes

# All lengths are in inches, from the bottom left.
WIDTH, HEIGHT = 12.0, 7.98
DPI = 150
PANEL = (1.8, 1.2)
LEFT, MARGIN = 0.45, 0.22  # where each row's first panel begins, and the arrow that leads to it
# For each row, the bottom of its panels, and the bottom and top of its band.
ROWS = ((5.72, 5.3, 7.92), (3.2, 2.78, 5.22), (0.7, 0.06, 2.7))

INK, GRAY, FILL, TRAINING = "#222222", "#666666", "#d5dbe3", "#a34700"
DASHES = (0, (4, 2))
BANDS = ("#f4f4f4", "#eaf1f9", "#f4f4f4")

Point = tuple[float, float]
Panels = dict[str, tuple[str, Pixels]]


def compute() -> Panels:
  """Computes the title and picture of each panel."""
  image = jnp.asarray(skimage.data.chelsea()[None], jnp.float32) / 255
  model = hvsjnd_jax.load()
  jnd, seen = hvsjnd_jax.analyze(model, image)
  assert seen is not None
  assert model.hvs_sd is not None
  masked = model.level * jnd_map.masking_map(image)
  signs = hvsjnd_jax.random_signs(jax.random.key(0), image.shape[1:3])
  distorted = hvsjnd_jax.inject(image, jnd, signs, lmbda=LMBDA)
  noisy = priors.compute_priors(model.hvs_sd, distorted, attention_layer=model.attention_layer)

  def cut(maps: jax.Array) -> np.ndarray:
    return np.asarray(maps[0])[PART]

  def brighten(maps: jax.Array) -> tuple[Pixels, float]:
    return visible_jnd(cut(maps))

  gradient, _ = brighten(seen.gradient)
  correction_picture, correction_white = brighten(jnd / masked)
  masked_picture, masked_white = brighten(masked)
  jnd_picture, jnd_white = brighten(jnd)
  decibels = float(psnr(distorted, image)[0])
  return {
    "x": ("photograph $x$", to_uint8(cut(image))),
    "x2": ("perceptual domain $x_2$", to_uint8(cut(seen.degraded))),
    "xc": ("attention $x_c$:\nGrad-CAM at $x_2$", jet(cut(seen.attention)[..., 0])),
    "xg": ("input gradient $x_g$:\n$\\max(dD/dx,\\, 0)$", gradient),
    "c": (f"correction $e^{{\\,c}}$\n(white: {correction_white:.2f})", correction_picture),
    "t": (
      f"masking threshold $L \\cdot T(x)$\n(white: {255 * masked_white:.2f} gray levels)",
      masked_picture,
    ),
    "xj": (f"JND map $x_j$\n(white: {255 * jnd_white:.2f} gray levels)", jnd_picture),
    "r": (
      "random signs\n$r = \\pm 1$",
      to_uint8(cut((signs[None, ..., None] + 1) / 2)).repeat(3, axis=-1),
    ),
    "y": (
      f"$y = x + \\lambda \\cdot r \\cdot x_j$\n($\\lambda = {LMBDA}$: {decibels:.1f} dB)",
      to_uint8(cut(distorted)),
    ),
    "y2": ("$y_2$", to_uint8(cut(noisy.degraded))),
    "yc": ("$y_c$", jet(cut(noisy.attention)[..., 0])),
  }


class Canvas:
  """Panels, words and arrows on one pair of axes in inches."""

  def __init__(self) -> None:
    mpl.rcParams.update({"font.family": "DejaVu Sans", "mathtext.fontset": "dejavusans"})
    self.figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
    self.axes = self.figure.add_axes((0, 0, 1, 1))
    self.axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    self.axes.axis("off")

  def write(self, x: float, y: float, text: str, **style: Any) -> None:
    style = {"fontsize": 9, "color": INK, "ha": "left", "va": "bottom"} | style
    self.axes.text(x, y, text, **style)

  def show(self, x: float, y: float, panel: tuple[str, Pixels]) -> None:
    """Draws a picture with its title above and its bottom left corner at (x, y)."""
    title, pixels = panel
    width, height = PANEL
    self.axes.imshow(pixels, extent=(x, x + width, y, y + height), aspect="auto", zorder=2)
    self.axes.add_patch(Rectangle((x, y), width, height, fill=False, ec=INK, lw=0.8, zorder=3))
    self.write(x, y + height + 0.05, title, linespacing=1.15)

  def box(self, left: float, bottom: float, right: float, top: float, **style: Any) -> None:
    style = {"facecolor": "white", "edgecolor": INK, "linewidth": 0.9} | style
    shape = "round,pad=0,rounding_size=0.08"
    self.axes.add_patch(FancyBboxPatch((left, bottom), right - left, top - bottom, shape, **style))

  def line(self, *points: Point, training: bool = False) -> None:
    self.axes.plot(*zip(*points, strict=True), **_stroke(training), zorder=1)

  def arrow(self, *points: Point, training: bool = False, head: str = "-|>") -> None:
    """Draws a line through the points, with a head at the last."""
    *_, before, end = points
    self.line(*points[:-1], training=training)
    style = {"arrowstyle": head, "mutation_scale": 11, "shrinkA": 0, "shrinkB": 0}
    self.axes.add_patch(FancyArrowPatch(before, end, **style, **_stroke(training), zorder=4))


def _stroke(training: bool) -> dict[str, Any]:
  colour, dashes = (TRAINING, DASHES) if training else (INK, "-")
  return {"color": colour, "linewidth": 1.4, "linestyle": dashes}


def draw(panels: Panels) -> Figure:
  """Draws the figure: three rows, each read from left to right."""
  canvas = Canvas()
  width, height = PANEL
  heads = (
    "1   What vision loses: HVS-SD, and two priors read off it",
    "2   How much each pixel bears: the masking threshold, corrected by a network",
    "3   Noise that hides",
  )
  for head, colour, (_, bottom, top) in zip(heads, BANDS, ROWS, strict=True):
    canvas.box(0.06, bottom, WIDTH - 0.06, top, facecolor=colour, edgecolor="none")
    canvas.write(LEFT, top - 0.29, head, fontsize=10.5, weight="bold")

  # Row 1: x, HVS-SD, x2, D, xc, xg.
  floor, _, _ = ROWS[0]
  middle = floor + height / 2
  x, network, x2, xc, xg = LEFT, 2.63, 4.81, 7.76, 9.94
  for name, left in (("x", x), ("x2", x2), ("xc", xc), ("xg", xg)):
    canvas.show(left, floor, panels[name])
  canvas.arrow((x + width, middle), (network, middle))
  _draw_hvs_sd(canvas, network, floor, network + width)
  canvas.arrow((network + width, middle), (x2, middle))
  canvas.arrow((x2 + width, middle), (x2 + width + 0.14, middle))
  distance = (x2 + width + 0.14, xc - 0.14)
  canvas.box(distance[0], middle - 0.26, distance[1], middle + 0.26)
  centre = sum(distance) / 2
  canvas.write(centre, middle, "$D$ = mean\n$(x_2 - x)^2$", ha="center", va="center", fontsize=8.5)
  over = floor + height + 0.5
  canvas.write(centre - 0.08, middle + 0.62, "back", ha="right", va="center", color=GRAY)
  for left in (xc, xg):
    end = left + width - 0.15
    canvas.arrow((centre, middle + 0.26), (centre, over), (end, over), (end, floor + height))

  _lead_on(canvas, 0, (x, x2, xc, xg), "$x,\\; x_c,\\; \\sqrt{x_g},\\; (x_2 - x)\\,/\\,T$", 2.6)

  # Row 2: network, exp(c), T, xj, r.
  floor, _, _ = ROWS[1]
  middle = floor + height / 2
  network, correction, threshold, jnd, signs = LEFT, 2.75, 5.05, 7.4, 9.94
  _draw_correction_network(canvas, network, floor, network + width)
  canvas.arrow((network + width, middle), (correction, middle))
  start, end, under = threshold + width / 2, network + width / 2, floor - 0.11
  canvas.arrow((start, floor), (start, under), (end, under), (end, floor))
  canvas.write(network + width + 0.25, under + 0.03, "$\\log\\,T$", ha="center", fontsize=9.5)
  for name, left in (("c", correction), ("t", threshold), ("xj", jnd), ("r", signs)):
    canvas.show(left, floor, panels[name])
  for symbol, centre in (("×", threshold - 0.25), ("=", jnd - 0.275)):
    canvas.write(centre, middle, symbol, fontsize=18, ha="center", va="center")

  _lead_on(canvas, 1, (jnd, signs), "$\\lambda \\cdot r \\cdot x_j$", 9.25)

  # Row 3: y; in training the models of vision, HVS-SD, y2, yc.
  floor, _, _ = ROWS[2]
  canvas.show(LEFT, floor, panels["y"])
  _draw_training(canvas, panels, floor)
  return canvas.figure


def _lead_on(
  canvas: Canvas, row: int, panels: tuple[float, ...], word: str, word_left: float
) -> None:
  """Draws the arrow from panels, given by their left sides, to the start of the next row."""
  floor, (end, _, _) = ROWS[row][0], ROWS[row + 1]
  middle, bus = end + PANEL[1] / 2, floor - 0.26
  centres = [left + PANEL[0] / 2 for left in panels]
  for centre in centres:
    canvas.line((centre, floor), (centre, bus))
  canvas.arrow((centres[-1], bus), (MARGIN, bus), (MARGIN, middle), (LEFT, middle))
  canvas.write(word_left, bus + 0.03, word, fontsize=9.5)


def _draw_hvs_sd(canvas: Canvas, left: float, floor: float, right: float) -> None:
  height = PANEL[1]
  middle, centre = floor + height / 2, (left + right) / 2
  canvas.box(left, floor, right, floor + height)
  caption = "HVS-SD, trained to compress,\nand to order distortions\nas vision does"
  canvas.write(left, floor + height + 0.05, caption, linespacing=1.15)
  for outer, inner, word in (
    (left + 0.1, centre - 0.1, "encoder"),
    (right - 0.1, centre + 0.1, "decoder"),
  ):
    canvas.axes.add_patch(
      Polygon(
        [
          (outer, middle - 0.48),
          (outer, middle + 0.48),
          (inner, middle + 0.2),
          (inner, middle - 0.2),
        ],
        facecolor=FILL,
        edgecolor=INK,
        linewidth=0.7,
      )
    )
    canvas.write((outer + inner) / 2, middle, word, ha="center", va="center", fontsize=8)


def _draw_correction_network(canvas: Canvas, left: float, floor: float, right: float) -> None:
  height = PANEL[1]
  canvas.box(left, floor, right, floor + height)
  canvas.write(left, floor + height + 0.05, "correction network $N$:\ntwo dilated convolutions")
  for i, size in enumerate((0.76, 0.46, 0.46, 0.76)):
    canvas.axes.add_patch(
      Rectangle(
        (left + 0.32 + 0.33 * i, floor + 0.72 - size / 2),
        0.17,
        size,
        facecolor=FILL,
        edgecolor=INK,
        linewidth=0.7,
      )
    )
  words = "cells of 2x2, and back"
  canvas.write((left + right) / 2, floor + 0.08, words, ha="center", fontsize=8)


def _draw_training(canvas: Canvas, panels: Panels, floor: float) -> None:
  """Draws what is compared while the generator is trained, with dashed lines."""
  width, height = PANEL
  middle = floor + height / 2
  models, network, y2, yc = 3.1, 6.15, 7.65, 9.85
  _, bottom, top = ROWS[2]
  canvas.box(
    *(2.62, bottom + 0.08, WIDTH - 0.16, top - 0.08),
    facecolor="#fdf3e8",
    edgecolor=TRAINING,
    linestyle=DASHES,
  )
  canvas.write(2.78, top - 0.32, "In training only", weight="bold", color=TRAINING, fontsize=10)

  canvas.arrow((LEFT + width, middle), (models, middle), training=True)
  canvas.box(models, floor, models + 2.3, floor + height)
  canvas.write(models, floor + height + 0.05, "the default weights\ncompare $y$ with $x$ by")
  canvas.write(
    models + 0.15,
    middle,
    "Butteraugli, and its peaks\nSSIMULACRA 2\nColorVideoVDP\nstructure: MS-SSIM, GMSD",
    va="center",
    linespacing=1.45,
  )

  branch, under = models - 0.2, floor - 0.3
  centre = network + 0.5
  canvas.line((branch, middle), (branch, under), training=True)
  canvas.arrow((branch, under), (centre, under), (centre, middle - 0.35), training=True)
  canvas.box(network, middle - 0.35, network + 1.0, middle + 0.35)
  canvas.write(centre, middle, "HVS-SD,\nfrozen", ha="center", va="center", linespacing=1.3)
  words = 'the weights "paper":\nmagnitude, visibility,\nquality, attention'
  canvas.write(network, middle + 0.4, words, linespacing=1.15)
  canvas.arrow((network + 1.0, middle), (y2, middle), training=True)
  canvas.arrow((y2 + width, middle), (yc, middle), training=True)
  for name, left, other, word in (
    ("y2", y2, "$x_2$", "quality"),
    ("yc", yc, "$x_c$", "attention"),
  ):
    canvas.show(left, floor, panels[name])
    centre = left + width / 2
    canvas.arrow((centre, floor), (centre, floor - 0.3), training=True, head="<|-|>")
    canvas.write(centre, floor - 0.5, other, ha="center", fontsize=10)
    canvas.write(centre + 0.1, floor - 0.2, word, va="center", color=TRAINING)


def main() -> None:
  parser = argparse.ArgumentParser(description="Draw the method in one figure.")
  default = Path(__file__).with_name("method.png")
  parser.add_argument("file", nargs="?", type=Path, default=default, help="default: %(default)s")
  file = parser.parse_args().file
  draw(compute()).savefig(file)
  print(f"{file} written")


if __name__ == "__main__":
  main()

"""Draws where models of vision see a difference in one photograph, docs/vision_maps.png.

  pip install '.[docs]'
  python docs/draw_vision.py

The photograph is scikit-image's `chelsea` (CC0), its left half with noise and its right half as a
JPEG file. The maps' scales are those of `python -m hvsjnd_jax.metrics --maps`.
"""

import argparse
import io
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import skimage.data
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from PIL import Image

from hvsjnd_jax.metrics import butteraugli, butteraugli_map, cvvdp, cvvdp_map, ssimulacra2
from hvsjnd_jax.ops.types import Pixels
from hvsjnd_jax.viz.sheets import jet

SIGMA = 8  # of the noise, in gray levels
QUALITY = 20  # of the JPEG file
STEPS = 16  # of a map's colours: with all of them the file is twice as large
PART = np.s_[12:288, 18:432]  # what is shown, pixel by pixel

# All lengths are in inches.
WIDTH, HEIGHT = 8.86, 7.02
DPI = 100
PANEL = (4.14, 2.76)
LEFT, RIGHT = 0.1, 4.62
BOTTOMS = (3.75, 0.42)
INK = "#222222"

Panel = tuple[str, np.ndarray, int]  # title, map and full scale


def distort(pixels: Pixels) -> Pixels:
  """Adds noise to the left half, and codes the right one as JPEG."""
  noise = np.random.default_rng(0).normal(0, SIGMA, pixels.shape)
  noisy = np.clip(np.round(pixels + noise), 0, 255).astype(np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
  coded = np.asarray(Image.open(file))
  middle = pixels.shape[1] // 2
  return np.concatenate([noisy[:, :middle], coded[:, middle:]], axis=1)


def compute(distorted: Pixels, reference: Pixels) -> tuple[float, list[Panel]]:
  """Computes SSIMULACRA 2's score, and the panels of the others."""
  pair = [jnp.asarray(pixels[None], jnp.float32) / 255 for pixels in (distorted, reference)]

  @jax.jit
  def run(d: jax.Array, r: jax.Array) -> list[jax.Array]:
    fhd = "standard_fhd"
    return [
      ssimulacra2(d, r)[0],
      butteraugli(d, r)[0],
      butteraugli_map(d, r)[0],
      *(cvvdp(d, r)[0], cvvdp_map(d, r)[0]),
      *(cvvdp(d, r, display=fhd)[0], cvvdp_map(d, r, display=fhd)[0]),
    ]

  s2, distance, distances, jod, lost, jod_fhd, lost_fhd = map(np.asarray, run(*pair))
  return float(s2), [
    (f"Butteraugli 0.7: 3-norm {distance:.2f}", distances, 4),
    (f"ColorVideoVDP, 4k display: {jod:.2f} JOD", lost, 2),
    (f"ColorVideoVDP, full-HD display: {jod_fhd:.2f} JOD", lost_fhd, 2),
  ]


def draw(distorted: Pixels, score: float, maps: list[Panel]) -> Figure:
  """Lays the photograph and the three maps out, each map with its scale."""
  mpl.rcParams["font.family"] = "DejaVu Sans"
  figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
  places = [(x, y) for y in BOTTOMS for x in (LEFT, RIGHT)]
  title = f"Left: noise of {SIGMA} gray levels; right: JPEG of quality {QUALITY}.\n"
  _show(figure, places[0], f"{title}SSIMULACRA 2: {score:.1f} (no map)", distorted)
  for place, (title, values, full) in zip(places[1:], maps, strict=True):
    _show(figure, place, title, _colour(values / full))
    unit = "distance; 1 is just noticeable" if full == 4 else "JOD lost here"
    _draw_scale(figure, place, full, unit)
  return figure


def _show(figure: Figure, place: tuple[float, float], title: str, pixels: Pixels) -> None:
  axes = figure.add_axes(_relative(*place, *PANEL))
  axes.imshow(pixels[PART], aspect="auto", interpolation="none")
  axes.set_xticks([])
  axes.set_yticks([])
  axes.set_title(title, loc="left", fontsize=10, color=INK, pad=4)


def _draw_scale(figure: Figure, place: tuple[float, float], full: int, unit: str) -> None:
  x, y = place
  axes = figure.add_axes(_relative(x, y - 0.17, 1.9, 0.11))
  colours = _colour(np.linspace(0, 1, 256)[None])[0] / 255
  mappable = ScalarMappable(Normalize(0, full), ListedColormap(colours))
  bar = figure.colorbar(mappable, cax=axes, orientation="horizontal", ticks=range(full + 1))
  bar.ax.tick_params(labelsize=8, length=2, pad=1)
  axes.text(1.04, 0.5, unit, transform=axes.transAxes, fontsize=8, color=INK, va="center")


def _colour(values: np.ndarray) -> Pixels:
  return jet(np.round(np.clip(values, 0, 1) * STEPS) / STEPS)


def _relative(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
  return x / WIDTH, y / HEIGHT, width / WIDTH, height / HEIGHT


def save(figure: Figure, file: Path) -> None:
  """Writes the figure in as few bytes as PNG can."""
  drawn = io.BytesIO()
  figure.savefig(drawn)
  Image.open(drawn).convert("RGB").save(file, "PNG", optimize=True)


def main() -> None:
  parser = argparse.ArgumentParser(description="Draw the maps of models of vision.")
  default = Path(__file__).with_name("vision_maps.png")
  parser.add_argument("file", nargs="?", type=Path, default=default, help="default: %(default)s")
  file = parser.parse_args().file
  reference = skimage.data.chelsea()
  distorted = distort(reference)
  save(draw(distorted, *compute(distorted, reference)), file)
  print(f"{file} written")


if __name__ == "__main__":
  main()

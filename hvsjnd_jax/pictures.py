"""Pictures of what the method sees: colour maps and the side-by-side sheet.

Inputs are float arrays in [0, 1], [H, W, 3] or [H, W]; outputs are uint8 RGB.
"""

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from hvsjnd_jax.images import Pixels, to_uint8

_PANEL_PX = 560  # a panel's longer side
_CAPTION_PX = 34
_MARGIN_PX = 12
_FONT_PX = 18
_PAPER = (255, 255, 255)
_INK = (20, 20, 20)


def jet(values: Float[np.ndarray, "h w"]) -> Pixels:
  """Colours values in [0, 1] from blue over green to red, as the published code draws attention."""
  red, green, blue = (1.5 - np.abs(4 * values - centre) for centre in (3, 2, 1))
  return to_uint8(np.stack([red, green, blue], axis=-1))


def visible_jnd(jnd: Float[np.ndarray, "h w 3"]) -> tuple[Pixels, float]:
  """Brightens a JND map until it can be seen.

  Args:
    jnd: The map; its values are a few thousandths.

  Returns:
    The map as a picture, and the value drawn as full intensity: the 99.5th percentile.
  """
  white = max(float(np.percentile(jnd, 99.5)), 1e-6)
  return to_uint8(jnd / white), white


def analysis_sheet(
  pixels: Pixels,
  *,
  attention: Float[np.ndarray, "h w"],
  jnd: Float[np.ndarray, "h w 3"],
  distorted: Float[np.ndarray, "h w 3"],
  note: str,
) -> Pixels:
  """The sheet of one image: itself, its attention, its JND map, and its distorted copy.

  Args:
    pixels: The image, uint8.
    attention: The attention prior.
    jnd: The map.
    distorted: The image with the noise added.
    note: Of the distorted copy, such as lmbda and PSNR.
  """
  brightened, white = visible_jnd(jnd)
  return sheet(
    [
      ("image", pixels),
      ("attention: where HVS-SD looks", jet(attention)),
      (f"JND map, brightened: white is {255 * white:.2f} gray levels", brightened),
      (f"distorted, {note}", to_uint8(distorted)),
    ]
  )


def sheet(panels: list[tuple[str, Pixels]]) -> Pixels:
  """Lays captioned panels of one size side by side, two in a row.

  Args:
    panels: Caption and picture of each.

  Returns:
    The sheet; large pictures are reduced to fit, small ones enlarged a whole number of times.
  """
  height, width = panels[0][1].shape[:2]
  scale = _PANEL_PX / max(height, width)
  if scale > 1:  # whole pixels, so that small pictures show them as they are
    scale = int(scale)
  size = (max(1, round(width * scale)), max(1, round(height * scale)))
  font = ImageFont.load_default(_FONT_PX)
  text_width = max(round(font.getlength(caption)) for caption, _ in panels)
  cell = (max(size[0], text_width) + _MARGIN_PX, size[1] + _CAPTION_PX + _MARGIN_PX)
  rows = -(-len(panels) // 2)
  canvas = Image.new("RGB", (2 * cell[0] + _MARGIN_PX, rows * cell[1] + _MARGIN_PX), _PAPER)
  draw = ImageDraw.Draw(canvas)
  for index, (caption, pixels) in enumerate(panels):
    left = _MARGIN_PX + index % 2 * cell[0]
    top = _MARGIN_PX + index // 2 * cell[1]
    draw.text((left, top + 4), caption, fill=_INK, font=font)
    resampling = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    picture = Image.fromarray(pixels).resize(size, resampling)
    canvas.paste(picture, (left, top + _CAPTION_PX))
  return np.asarray(canvas)

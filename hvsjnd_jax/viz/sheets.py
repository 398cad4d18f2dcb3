"""Colour maps, and sheets of pictures side by side.

Inputs are float arrays in [0, 1], [H, W, 3] or [H, W]; outputs are uint8 RGB.
"""

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from hvsjnd_jax.data.images import to_uint8
from hvsjnd_jax.ops.types import Pixels

_PANEL_PX = 560  # a panel's longer side
_CAPTION_PX = 34
_MARGIN_PX = 12
_FONT_PX = 18

_PAPER = (255, 255, 255)
_INK = (20, 20, 20)


def jet(values: Float[np.ndarray, "h w"]) -> Pixels:
  """Colours values from blue through green to red, as the published code draws attention.

  Args:
    values: A map in [0, 1].

  Returns:
    The map as a picture, [H, W, 3].

  Examples:
    >>> jet(np.array([[0.0, 0.5, 1.0]])).tolist()
    [[[0, 0, 128], [128, 255, 128], [128, 0, 0]]]
  """
  red, green, blue = (1.5 - np.abs(4 * values - centre) for centre in (3, 2, 1))
  return to_uint8(np.stack([red, green, blue], axis=-1))


def visible_jnd(jnd: Float[np.ndarray, "h w 3"]) -> tuple[Pixels, float]:
  """Brightens a JND map until it is visible.

  Args:
    jnd: The map, whose values are a few thousandths.

  Returns:
    The map as a picture, and the value that is drawn as white: the 99.5th percentile.

  Examples:
    >>> picture, white = visible_jnd(np.full((8, 8, 3), 0.01))
    >>> int(picture.min()), white
    (255, 0.01)
  """
  white = max(float(np.percentile(jnd, 99.5)), 1e-6)
  return to_uint8(jnd / white), white


def analysis_sheet(
  pixels: Pixels,
  *,
  attention: Float[np.ndarray, "h w"] | None,
  jnd: Float[np.ndarray, "h w 3"],
  distorted: Float[np.ndarray, "h w 3"],
  note: str,
) -> Pixels:
  """Draws an image, its attention, its JND map and its distorted copy.

  Args:
    pixels: The image, uint8.
    attention: The attention prior; None where there is none to draw.
    jnd: The JND map.
    distorted: The image with noise added.
    note: What the distorted copy's caption says of it, such as lmbda and PSNR.

  Returns:
    The sheet, [rows, columns, 3].

  Examples:
    >>> zeros = np.zeros((8, 8, 3))
    >>> maps = {"attention": zeros[..., 0], "jnd": zeros, "distorted": zeros}
    >>> analysis_sheet(zeros.astype(np.uint8), **maps, note="lmbda 1").shape
    (1224, 1156, 3)
  """
  brightened, white = visible_jnd(jnd)
  looks = [] if attention is None else [("attention of HVS-SD: blue 0, red 1", jet(attention))]
  return sheet(
    [
      ("image", pixels),
      *looks,
      (f"JND map, brightened: white is {255 * white:.2f} gray levels", brightened),
      (f"distorted, {note}", to_uint8(distorted)),
    ]
  )


def sheet(
  panels: list[tuple[str, Pixels]], *, columns: int = 2, panel_px: int = _PANEL_PX
) -> Pixels:
  """Lays captioned panels side by side.

  Args:
    panels: The caption and the picture of each panel.
    columns: The number of panels in a row.
    panel_px: The longer side of a panel. Larger pictures are reduced to it; smaller ones are
      enlarged a whole number of times, so as not to exceed it.

  Returns:
    The sheet, [rows, columns, 3].

  Examples:
    >>> sheet([("", np.zeros((8, 8, 3), np.uint8))] * 2, panel_px=16).shape
    (74, 68, 3)
  """
  font = ImageFont.load_default(_FONT_PX)
  pictures = [_fit(pixels, panel_px) for _, pixels in panels]
  width = max(
    *(picture.width for picture in pictures),
    *(round(font.getlength(caption)) for caption, _ in panels),
  )
  cell = (
    width + _MARGIN_PX,
    max(picture.height for picture in pictures) + _CAPTION_PX + _MARGIN_PX,
  )
  rows = -(-len(panels) // columns)
  canvas = Image.new("RGB", (columns * cell[0] + _MARGIN_PX, rows * cell[1] + _MARGIN_PX), _PAPER)
  draw = ImageDraw.Draw(canvas)
  for index, ((caption, _), picture) in enumerate(zip(panels, pictures, strict=True)):
    left = _MARGIN_PX + index % columns * cell[0]
    top = _MARGIN_PX + index // columns * cell[1]
    draw.text((left, top + 4), caption, fill=_INK, font=font)
    canvas.paste(picture, (left, top + _CAPTION_PX))
  return np.asarray(canvas)


def _fit(pixels: Pixels, panel_px: int) -> Image.Image:
  height, width = pixels.shape[:2]
  scale = panel_px / max(height, width)
  if scale > 1:  # whole pixels, so that small pictures show them as they are
    scale = int(scale)
  size = (max(1, round(width * scale)), max(1, round(height * scale)))
  resampling = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
  return Image.fromarray(pixels).resize(size, resampling)

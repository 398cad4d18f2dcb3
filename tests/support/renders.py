"""Pictures that are no photographs, drawn by this project: a screenshot, a drawing, and others."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from hvsjnd_jax.ops.types import Pixels

_TEXT = (
  "Noise is hard to see where vision would lose it anyway.",
  "So a network first learns what vision loses. Two priors",
  "are read off that loss, and from these and the image a",
  "small generator predicts how much noise each pixel hides.",
  "",
  "def inject(images, jnd, signs, *, lmbda):",
  "    return (images + lmbda * signs * jnd).clip(0, 1)",
)


def render_screenshot(height: int = 384, width: int = 512) -> Pixels:
  """Draws a window with text on a flat white background, a title bar, icons and a cursor."""
  picture = Image.new("RGB", (width, height), (255, 255, 255))
  draw = ImageDraw.Draw(picture)
  draw.rectangle((0, 0, width, 28), fill=(44, 62, 80))
  draw.text((12, 6), "method.md - viewer", font=ImageFont.load_default(14), fill=(236, 240, 241))
  draw.rectangle((0, 28, 110, height), fill=(245, 246, 247))
  for i, color in enumerate([(231, 76, 60), (46, 204, 113), (52, 152, 219), (241, 196, 15)]):
    draw.rounded_rectangle((16, 44 + 52 * i, 52, 80 + 52 * i), 6, fill=color)
    draw.text((60, 54 + 52 * i), f"item {i}", font=ImageFont.load_default(11), fill=(90, 90, 90))
  for i, line in enumerate(_TEXT):
    draw.text((126, 48 + 24 * i), line, font=ImageFont.load_default(13), fill=(20, 20, 20))
  draw.rectangle((126, 236, width - 24, height - 24), fill=(30, 30, 46))
  for i, line in enumerate(_TEXT[:4]):
    draw.text((138, 250 + 24 * i), line, font=ImageFont.load_default(12), fill=(166, 227, 161))
  return np.asarray(picture)


def render_drawing(height: int = 384, width: int = 512) -> Pixels:
  """Draws flat shapes with black outlines, as a comic has them."""
  picture = Image.new("RGB", (4 * width, 4 * height), (135, 206, 235))
  draw = ImageDraw.Draw(picture)
  draw.rectangle((0, 2.6 * height, 4 * width, 4 * height), fill=(120, 190, 90))
  draw.ellipse((3.1 * width, 0.2 * height, 3.7 * width, height), fill=(255, 221, 87))
  draw.polygon(
    [(0.6 * width, 1.6 * height), (1.4 * width, 0.8 * height), (2.2 * width, 1.6 * height)],
    fill=(178, 34, 34),
    outline=(0, 0, 0),
    width=12,
  )
  box = (0.8 * width, 1.6 * height, 2 * width, 3 * height)
  draw.rectangle(box, fill=(250, 235, 215), outline=(0, 0, 0), width=12)
  door = (1.25 * width, 2.2 * height, 1.6 * width, 3 * height)
  draw.rectangle(door, fill=(139, 90, 43), outline=(0, 0, 0), width=12)
  for i in range(5):
    left = (2.3 + 0.3 * i) * width
    crown = (left, (1.9 + 0.1 * (i % 2)) * height, left + 0.3 * width, 2.7 * height)
    draw.ellipse(crown, fill=(34, 139 - 15 * i, 34), outline=(0, 0, 0), width=10)
  return np.asarray(picture.resize((width, height), Image.Resampling.BOX))


def render_ramps(height: int = 384, width: int = 512) -> Pixels:
  """Draws four smooth ramps: gray, dark gray, a sky, and colours."""
  x = np.linspace(0, 1, width)[None, :, None]
  y = np.linspace(0, 1, height // 4)[:, None, None]
  level = np.ones((height // 4, 1, 3))
  gray = 255 * x * level
  dark = 40 * x * level
  sky = (1 - y) * (70, 130, 200) + y * (200, 225, 250) + 0 * x
  colors = 127.5 * (1 + np.cos(2 * np.pi * (x - (0, 1 / 3, 2 / 3)))) * level
  return np.concatenate([gray, dark, sky, colors]).round().astype(np.uint8)


def render_night(height: int = 384, width: int = 512) -> Pixels:
  """Draws a dark street with lamps, their glow, and lit windows."""
  rng = np.random.default_rng(0)
  y, x = np.mgrid[:height, :width]
  light = np.full((height, width, 3), (6.0, 8.0, 16.0))
  for left in range(20, width, 90):
    top = rng.integers(height // 4, height // 2)
    light[top:, left : left + 70] = 4 + 3 * rng.random(3)
    for row in range(top + 10, height - 60, 22):
      for column in range(left + 6, left + 60, 16):
        if rng.random() < 0.3:
          light[row : row + 12, column : column + 9] = (220, 180, 90)
  for column in (90, 260, 430):
    distance = np.hypot(x - column, y - 250)
    light += np.exp(-distance / 30)[..., None] * (255, 200, 120)
  picture = Image.fromarray(light.clip(0, 255).astype(np.uint8))
  blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.7)), np.float64)
  noise = rng.normal(0, 1.2, (height, width, 1))
  return (blurred + noise).clip(0, 255).round().astype(np.uint8)


RENDERS = {
  "screenshot": render_screenshot,
  "drawing": render_drawing,
  "ramps": render_ramps,
  "night": render_night,
}

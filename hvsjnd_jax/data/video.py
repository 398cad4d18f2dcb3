"""The frames of a video, read one after the other through the ffmpeg program."""

import shutil
import subprocess
from pathlib import Path
from typing import IO

import numpy as np

from hvsjnd_jax.data.images import ImageError, Picture
from hvsjnd_jax.ops.types import Pixels

EXTENSIONS = frozenset(
  (
    *(".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg"),
    *(".mpg", ".mts", ".mxf", ".ogv", ".webm", ".wmv", ".y4m"),
  )
)


class Video:
  """A video's frames by number, upright, 8-bit RGB, as ffmpeg converts them.

  Frames are decoded in their order, and none is kept: to read an earlier one starts anew.

  Args:
    path: The video.

  Raises:
    ImageError: If ffmpeg is not installed, or cannot read it.
  """

  def __init__(self, path: Path):
    self._path = path
    self._process: subprocess.Popen[bytes] | None = None
    self._next = 0
    self._length = self._count()
    if not self._length:
      raise ImageError("ffmpeg finds no frames in it")
    try:
      height, width, _ = self.read(0).pixels.shape
    finally:
      self.close()  # or there would be a process for every video
    self.size = height, width

  def __len__(self) -> int:
    return self._length

  def read(self, index: int) -> Picture:
    """Reads a frame; raises `ImageError` if ffmpeg cannot decode it."""
    if self._process is None or index < self._next:
      self.close()
      self._process = subprocess.Popen(
        self._command("-c:v", "ppm", "-pix_fmt", "rgb24", "-f", "image2pipe", "pipe:1"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
      )
    assert self._process.stdout is not None
    while True:
      frame = _read_ppm(self._process.stdout)
      self._next += 1
      if frame is None:
        raise ImageError("ffmpeg cannot decode this frame")
      if self._next > index:
        if self._next == self._length:
          self.close()
        return Picture(frame)

  def close(self) -> None:
    """Ends ffmpeg, if it runs."""
    if self._process is not None:
      assert self._process.stdout is not None
      self._process.stdout.close()
      self._process.kill()
      self._process.wait()
    self._process, self._next = None, 0

  __del__ = close

  def _count(self) -> int:
    """Counts the frames as they will be read: by decoding all of them."""
    done = subprocess.run(
      self._command("-f", "null", "-progress", "pipe:1", "pipe:2"),
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      errors="replace",
    )
    counts = [line for line in done.stdout.splitlines() if line.startswith("frame=")]
    if done.returncode or not counts:
      reason = (done.stderr.strip().splitlines() or ["no frames"])[-1]
      raise ImageError(f"ffmpeg cannot read it: {reason}")
    return int(counts[-1].removeprefix("frame="))

  def _command(self, *output: str) -> list[str]:
    program = shutil.which("ffmpeg")
    if program is None:
      raise ImageError(
        "a video, whose frames the ffmpeg program reads, and it is not installed; install it (apt "
        "install ffmpeg, brew install ffmpeg), or give the frames as images"
      )
    source = ("-i", f"file:{self._path}", "-map", "0:v:0", "-fps_mode", "passthrough")
    return [program, "-nostdin", "-v", "error", *source, *output]


def _read_ppm(stream: IO[bytes]) -> Pixels | None:
  """Reads one picture as ffmpeg writes it; None at the end, or if it is cut short."""
  magic, size, largest = (stream.readline() for _ in range(3))
  if magic != b"P6\n" or largest != b"255\n":
    return None
  width, height = map(int, size.split())
  data = stream.read(width * height * 3)
  if len(data) < width * height * 3:
    return None
  return np.frombuffer(data, np.uint8).reshape(height, width, 3)

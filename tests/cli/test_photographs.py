"""What `--path` may name: patterns, a list on standard input, and videos."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvsjnd_jax.cli.command import UsageError
from hvsjnd_jax.cli.photographs import find_photographs
from hvsjnd_jax.data.video import Video
from tests.support.evaluating import photos, report, run

__all__ = ["photos", "report", "run"]  # fixtures

# Y'CbCr of 8 bits and limited range has 219 levels of gray.
FFMPEG_LEVELS = 2

# Five frames of 10x8 pixels, frame i of the value i; says what ffmpeg says.
FFMPEG = f"""#!{sys.executable}
import sys
words = sys.argv[1:]
source = words[words.index("-i") + 1]
if not source.startswith("file:") or b"video" not in open(source[5:], "rb").read():
  sys.exit("[mov] moov atom not found\\nInvalid data found when processing input")
if "null" in words:
  print("frame=2\\nprogress=continue\\nframe=5\\nprogress=end")
else:
  for i in range(5):
    sys.stdout.buffer.write(b"P6\\n10 8\\n255\\n" + bytes([i]) * 240)
"""


@pytest.fixture
def video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  program = tmp_path / "bin/ffmpeg"
  program.parent.mkdir()
  program.write_text(FFMPEG)
  program.chmod(0o755)
  monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
  (tmp_path / "clip.MP4").write_bytes(b"a video")
  return tmp_path / "clip.MP4"


def list_names(*paths: object) -> list[str]:
  return [path.name for path in find_photographs([Path(str(path)) for path in paths]).paths]


def test_pattern_is_expanded_as_by_a_shell(photos: Path):
  assert list_names(photos / "*.png") == ["b.png"]
  assert list_names(photos / "**/*.png") == ["c.png", "b.png"]
  assert list_names(photos / "[bd].*", photos / "b.png") == ["b.png", "d.bmp"]
  (photos / "b.png").rename(photos / "[b].png")
  assert list_names(photos / "[b].png") == ["[b].png"], "a name comes first"
  with pytest.raises(UsageError, match=r"--path .*/\*\.jpg: nothing matches"):
    list_names(photos / "*.jpg")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
def test_list_on_standard_input(photos: Path, monkeypatch: pytest.MonkeyPatch, end: str):
  odd = photos / os.fsdecode(b"\xff.png")
  (photos / "b.png").rename(odd)
  data = b"".join(os.fsencode(path) + end.encode() for path in (odd, photos / "d.bmp"))
  monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
  assert list_names("-", photos / "a") == [odd.name, "d.bmp", "c.png"]


@pytest.mark.parametrize("stdin", [io.TextIOWrapper(io.BytesIO()), None])
def test_no_list(monkeypatch: pytest.MonkeyPatch, stdin: io.TextIOWrapper | None):
  monkeypatch.setattr(sys, "stdin", stdin)
  with pytest.raises(UsageError, match="expected paths on standard input, one a line, got none"):
    list_names("-")


def test_frames_of_a_video(video: Path, photos: Path):
  found = find_photographs([photos / "b.png", video])
  assert [str(path.relative_to(photos.parent)) for path in found.paths] == [
    "photos/b.png",
    *(f"clip.MP4/00000{i}" for i in range(5)),
  ]
  for index in (1, 2, 4, 0, 3):
    path = found.paths[1 + index]
    assert found.read_size(path) == (8, 10)
    np.testing.assert_array_equal(found.read(path).pixels, np.full((8, 10, 3), index))
  assert found.read_size(found.paths[0]) == (16, 24)


def test_video_is_evaluated_and_gone_on_with(report: Callable[..., dict[str, Any]], video: Path):
  arguments = ("--path", video, "--jsonl", "out.jsonl", "--save", "out", "--outputs", "jnd.npy")
  result = report(*arguments)
  assert [image["path"] for image in result["images"]] == [f"{video}/00000{i}" for i in range(5)]
  assert sorted(path.name for path in Path("out").iterdir())[0] == "000000_jnd.npy"
  whole = Path("out.jsonl").read_text()
  Path("out.jsonl").write_text("".join(whole.splitlines(keepends=True)[:3]))
  assert report(*arguments) == result
  assert Path("out.jsonl").read_text() == whole
  assert json.loads(whole.splitlines()[1])["height"] == 8


def test_damaged_video_is_named_and_the_others_evaluated(
  video: Path, report: Callable[..., dict[str, Any]]
):
  broken = video.with_name("broken.mp4")
  broken.write_bytes(b"nothing")
  result = report("--path", broken, video, status=1)
  assert len(result["images"]) == 5
  reason = "ffmpeg cannot read it: Invalid data found when processing input"
  assert result["errors"] == [{"path": str(broken), "error": reason}]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("depth", ["yuv420p", "yuv420p10le"])
def test_frames_are_those_that_ffmpeg_wrote(tmp_path: Path, depth: str):
  """Real ffmpeg, without loss but for its conversion to and from Y'CbCr."""
  frames = np.repeat(np.arange(40, 220, 20, dtype=np.uint8), 16 * 24 * 3).reshape(-1, 16, 24, 3)
  clip = tmp_path / "clip.mkv"
  source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "24x16", "-i", "-")
  command = ["ffmpeg", "-v", "error", *source, "-c:v", "ffv1", "-pix_fmt", depth, str(clip)]
  subprocess.run(command, input=frames.tobytes(), check=True)
  video = Video(clip)
  assert (len(video), video.size) == (len(frames), (16, 24))
  for index, frame in enumerate(frames):
    found = video.read(index).pixels
    np.testing.assert_allclose(found.astype(int), frame, atol=FFMPEG_LEVELS)


def test_video_that_ends_early(video: Path, monkeypatch: pytest.MonkeyPatch, run: Any, capsys: Any):
  monkeypatch.setattr(Video, "_count", lambda _: 6)
  assert run("--path", video) == 1
  assert f"eval: {video}/000005: ffmpeg cannot decode this frame\n" in capsys.readouterr().err


def test_report_does_not_replace_the_video(video: Path, run: Any, capsys: Any):
  assert run("--path", video, "--json", video) == 2
  assert "one of the files to read; choose another" in capsys.readouterr().err
  assert video.read_bytes() == b"a video"


def test_no_ffmpeg(video: Path, monkeypatch: pytest.MonkeyPatch, run: Any, capsys: Any):
  monkeypatch.setenv("PATH", str(video.parent))
  assert run("--path", video) == 1
  assert capsys.readouterr().err == (
    f"eval: {video}: a video, whose frames the ffmpeg program reads, and it is not installed; "
    "install it (apt install ffmpeg, brew install ffmpeg), or give the frames as images\n"
    "eval: 1 of 1 file could not be used\n"
  )


def test_files_that_are_passed_over_are_named(
  report: Callable[..., dict[str, Any]], photos: Path, capsys: pytest.CaptureFixture[str]
):
  for name in ("1.xmp", "2.xmp", "a/3.xmp", "4.xmp"):
    (photos / name).touch()
  skipped = report("--path", photos)["skipped"]
  names = ("1.xmp", "2.xmp", "4.xmp", "a/3.xmp", "notes.txt")
  assert skipped == [str(photos / name) for name in names]
  first = ", ".join(skipped[:3])
  line = f"Files skipped, having no image's extension: 5 ({first}, and 2 more)\n"
  assert capsys.readouterr().out.startswith(line)

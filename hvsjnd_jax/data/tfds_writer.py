"""Writes photographs as a TensorFlow dataset (array_record), without TensorFlow."""

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from tqdm import tqdm

from hvsjnd_jax.data.atomic import move_folder, scratch_folder
from hvsjnd_jax.data.images import ImageError, encode_png, read_picture


class Built(NamedTuple):
  """What is to be said of photographs that were written, or were not.

  Attributes:
    errors: Those that could not be read, each with the reason.
    remarks: What was remarkable about reading others.
  """

  errors: list[tuple[Path, ImageError]]
  remarks: list[tuple[Path, str]]


def build_dataset(paths: Sequence[Path], *, root: Path, out: Path) -> Built:
  """Writes photographs as a dataset with one split, "train", whole or not at all.

  Each example holds "image", upright sRGB, and "file", the path below `root`. TFDS shuffles the
  examples by their names.

  Args:
    paths: The photographs.
    root: A folder above all of them.
    out: The folder to write, which must not exist.

  Returns:
    What is to be said of the photographs. If none could be read, no folder is written.
  """
  with scratch_folder(out) as scratch:
    builder = _Photographs(paths, root, data_dir=str(scratch), file_format="array_record")
    tfds.disable_progress_bar()  # the bar below counts photographs
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces a download
      builder.download_and_prepare()
    if len(builder.errors) < len(paths):
      move_folder(Path(builder.data_dir), out)
  return Built(builder.errors, builder.remarks)


class _Photographs(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version("1.0.0")
  name = "photographs"

  def __init__(self, paths: Sequence[Path], root: Path, **options: Any):
    self._paths, self._root = paths, root
    self.errors: list[tuple[Path, ImageError]] = []
    self.remarks: list[tuple[Path, str]] = []
    super().__init__(**options)

  def _info(self) -> tfds.core.DatasetInfo:
    image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
    features = tfds.features.FeaturesDict({"image": image, "file": tfds.features.Text()})
    return tfds.core.DatasetInfo(builder=self, features=features)

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    del dl_manager
    return {"train": self._generate_examples()}

  def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in tqdm(self._paths, unit="image", disable=None):  # None shows no bar in a pipe
      try:
        picture = read_picture(path)
      except ImageError as error:
        self.errors.append((path, error.detach()))
        continue
      self.remarks += ((path, remark) for remark in picture.remarks)
      png = io.BytesIO()  # encoded here, because TFDS would need TensorFlow to do it
      encode_png(png, picture.pixels)
      png.seek(0)
      name = os.fsencode(path.relative_to(self._root)).decode(errors="backslashreplace")
      yield name, {"image": png, "file": name}

"""Settings of the photographs and crops, and the checks that all settings share."""

import dataclasses
import functools
import math
from typing import Any, Literal, get_args, get_origin


@dataclasses.dataclass(slots=True)
class DataConfig:
  """Where the photographs are and how crops are cut from them.

  Each photograph gives one crop an epoch, cut crop_px/scale wide and resized (bicubic).
  Deviation: the published code cuts 4·H·W/176² crops from each.
  """

  # Set exactly one of these three.
  images: str = ""  # a folder, searched recursively, or one of tiles (`data build --tiles`)
  tfds: str = ""  # a TensorFlow dataset: its name, or the folder that holds it prepared
  synthetic: int = 0  # a number of random pictures, to try the trainer out
  tfds_split: str = "train"
  min_scale: float = 0.6
  max_scale: float = 1.0
  threads: int = 2  # of each process or worker, which read and cut crops ahead of the step
  workers: int = 0  # processes that do so beside each training one; 0: it does so itself

  def validate(self, path: str, *, photographs: bool = True) -> None:
    """Checks every setting.

    Args:
      path: What the messages call this part of the settings, such as "config.data".
      photographs: Whether their source must be named.

    Raises:
      ValueError: Naming the setting, what it must be, and what it is.
    """
    check = functools.partial(check_setting, self, path)
    sources = sum(map(bool, (self.images, self.tfds, self.synthetic)))
    check("synthetic", self.synthetic >= 0, "at least 0")
    check(
      "images",
      sources == 1 or not photographs,
      "a folder of photographs (or data.tfds a dataset, or data.synthetic a number; one of "
      "the three)",
    )
    check("min_scale", 0 < self.min_scale < math.inf, "above 0 and finite")
    check("max_scale", self.min_scale <= self.max_scale < math.inf, "at least min_scale")
    check("threads", self.threads >= 1, "at least 1")
    check("workers", self.workers >= 0, "at least 0")


def check_setting(settings: Any, path: str, name: str, holds: bool, wanted: str) -> None:
  """Raises a ValueError that names a setting and its value, unless the check `holds`."""
  if not holds:
    raise ValueError(f"{path}.{name} must be {wanted}, got {getattr(settings, name)!r}")


def check_choices(settings: Any, path: str) -> None:
  """Checks every setting of a dataclass whose type is a Literal."""
  for field in dataclasses.fields(settings):
    if get_origin(field.type) is Literal:
      choices = get_args(field.type)
      wanted = " or ".join(map(repr, choices))
      check_setting(settings, path, field.name, getattr(settings, field.name) in choices, wanted)

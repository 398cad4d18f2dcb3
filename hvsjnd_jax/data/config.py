"""Where training photographs are and how crops are cut from them."""

import dataclasses


@dataclasses.dataclass(slots=True)
class DataConfig:
  """Where the photographs are and how crops are cut from them.

  Each photograph gives one crop an epoch, cut crop_px/scale wide and resized (bicubic).
  Deviation: the published code cuts 4·H·W/176² crops from each.
  """

  # One of the three: a folder, walked recursively; a TensorFlow dataset, by its name or by
  # the folder that it was prepared in (`python -m hvsjnd_jax.data build`); or so many
  # pictures drawn at random, to try the trainer out.
  images: str = ""
  tfds: str = ""
  synthetic: int = 0
  tfds_split: str = "train"
  min_scale: float = 0.6
  max_scale: float = 1.0
  threads: int = 2  # of each process, that read and cut ahead of the step

"""Classical JND models, as yardsticks for a learnt one.

Images are float32 or float64 in [0, 1], [B, H, W, 3], RGB, with sides of at least 8 pixels. JND
maps have the same shape and type: gray levels / 255, at most 1. All models look at luma,
0.299 R + 0.587 G + 0.114 B, and give the three channels the same map, as comparisons of JND models
do. Values beyond [0, 1] are clipped. All models are pure functions, compiled at the first call for
each size; `jax.jit` and `jax.vmap` work on them. Gradients by `jax.grad` are of no use, since the
models make hard decisions, and take roots of 0.

Filters see the image mirrored past its edges, unless a docstring says otherwise.

`BASELINES` lists the models by name, for the commands and for tests. Models of transform
coefficients (Zhang et al., 2005; Wei and Ngan, 2009; Bae and Kim, 2016) are left out: they bound
the noise of each DCT coefficient in a block, and so give no map of pixels to compare.

In the equations, on 0..255, b is the background luminance, the mean of 5x5 pixels with weight 1 on
the outer ring, 2 on the inner one and 0 at the centre; G is the greatest of four directional
gradients over 5x5 pixels; and

  LA(b) = 17 (1 - sqrt(b / 127)) + 3 up to b = 127, 3 (b - 127) / 128 + 3 above
  A (+) M = A + M - 0.3 min(A, M), the nonlinear additivity model of masking (NAMM)
"""

from collections.abc import Callable
from typing import NamedTuple

from hvsjnd_jax.baselines._common import SMALLEST_PX
from hvsjnd_jax.baselines.jiang_2022 import jiang_2022
from hvsjnd_jax.baselines.liu_2010 import liu_2010
from hvsjnd_jax.baselines.spatial import chou_li_1995, contrast_heuristic, uniform, yang_2005
from hvsjnd_jax.baselines.wu_2013 import wu_2013
from hvsjnd_jax.baselines.wu_2017 import wu_2017
from hvsjnd_jax.ops.types import RGBImages, RGBImagesLike

__all__ = [
  "BASELINES",
  "SMALLEST_PX",
  "Baseline",
  "chou_li_1995",
  "contrast_heuristic",
  "jiang_2022",
  "liu_2010",
  "uniform",
  "wu_2013",
  "wu_2017",
  "yang_2005",
]


class Baseline(NamedTuple):
  """Describes a model.

  Attributes:
    function: The model itself, from images to JND maps.
    title: Its name in tables and figures.
    year: The year of its source; None if it has none.

  Examples:
    >>> BASELINES["yang_2005"].title, BASELINES["yang_2005"].year
    ('Yang et al. (NAMM)', 2005)
  """

  function: Callable[[RGBImagesLike], RGBImages]
  title: str
  year: int | None


BASELINES: dict[str, Baseline] = {
  "uniform": Baseline(uniform, "Uniform", None),
  "chou_li_1995": Baseline(chou_li_1995, "Chou & Li", 1995),
  "yang_2005": Baseline(yang_2005, "Yang et al. (NAMM)", 2005),
  "liu_2010": Baseline(liu_2010, "Liu et al. (total variation)", 2010),
  "wu_2013": Baseline(wu_2013, "Wu et al. (free energy)", 2013),
  "wu_2017": Baseline(wu_2017, "Wu et al. (pattern complexity)", 2017),
  "contrast_heuristic": Baseline(contrast_heuristic, "Contrast heuristic", 2023),
  "jiang_2022": Baseline(jiang_2022, "Jiang et al. (KLT)", 2022),
}

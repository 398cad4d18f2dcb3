"""The arrays that the package speaks of, one name each.

Images are NHWC, RGB, float in [0, 1] unless a name says otherwise.
"""

import numpy as np
from jaxtyping import Array, Float, UInt8

Images = Float[Array, "b h w c"]
RGBImages = Float[Array, "b h w 3"]
RGBImagesLike = Float[Array | np.ndarray, "b h w 3"]
# Every channel of every image on its own: rows of one channel lie together in memory.
Planes = Float[Array, "n h w"]
Scores = Float[Array, " b"]  # one for each image
Pixels = UInt8[np.ndarray, "h w 3"]  # one 8-bit image, on the host

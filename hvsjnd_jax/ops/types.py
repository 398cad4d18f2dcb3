"""The arrays that the package speaks of, one name each.

Images are NHWC, RGB, float in [0, 1] unless a name says otherwise.
"""

from typing import TypeVar

import numpy as np
from jaxtyping import Array, Float, UInt8, UInt16

Images = Float[Array, "b h w c"]
RGBImages = Float[Array, "b h w 3"]
RGBImagesLike = Float[Array | np.ndarray, "b h w 3"]
# Every channel of every image on its own: rows of one channel lie together in memory.
Planes = Float[Array, "n h w"]
Scores = Float[Array, " b"]  # one for each image
Pixels = UInt8[np.ndarray, "h w 3"]  # one 8-bit image, on the host
DeepPixels = UInt16[np.ndarray, "h w 3"]  # one 16-bit image, on the host
# Images of 8 or 16 bits, or of floats, for functions that compute on the host what they can.
HostImages = UInt8[np.ndarray, "b h w 3"] | UInt16[np.ndarray, "b h w 3"] | RGBImagesLike

# For functions that return a NumPy array when given one, and a JAX array when given one.
AnyArray = TypeVar("AnyArray", Array, np.ndarray)

"""The built-in test image, by which weights and exports are checked (`cbir_tf.models.golden`)."""

from __future__ import annotations

import numpy as np


def golden_image(height: int, width: int) -> np.ndarray:
    """Two slopes and a chequered one: uint8 RGB (height, width, 3), from integers alone."""
    y, x = np.mgrid[:height, :width]
    red = 255 * x // max(width - 1, 1)
    green = 255 * y // max(height - 1, 1)
    blue = 64 * (x // 4 % 2) + 127 * (y // 8 % 2) + 64 * ((x + 2 * y) // 16 % 2)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)

"""Arrays of pixels as PIL images, for thumbnails and grids."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def as_picture(image: np.ndarray) -> Image.Image:
    """An RGB picture from uint8 pixels, transparent pixels on white.

    Args:
        image: uint8, (H, W) or (H, W, 1) gray, (H, W, 3) RGB, or (H, W, 4) RGBA.

    Raises:
        ValueError: another shape or dtype, or no pixels.
    """
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    known = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if not known or pixels.dtype != np.uint8 or not pixels.size:
        raise ValueError(
            "an image must be uint8 pixels (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), "
            f"got {pixels.dtype} {np.shape(image)}"
        )
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def within(picture: Image.Image, side: int) -> Image.Image:
    """The picture scaled down so that no side exceeds `side` pixels, with its aspect ratio."""
    longest = max(picture.size)
    if longest <= side:
        return picture
    width, height = (max(1, round(each * side / longest)) for each in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def thumbnail(image: np.ndarray, side: int = 64) -> bytes:
    """A small JPEG of an image, no side longer than `side` pixels, with its aspect ratio.

    Args:
        image: uint8, (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), of any size.
        side: pixels.
    """
    buffer = io.BytesIO()
    within(as_picture(image), side).save(buffer, "JPEG", quality=80, optimize=True)
    return buffer.getvalue()

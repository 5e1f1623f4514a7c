"""How much memory decoding a picture takes, known before it is decoded, and giving it back."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

from PIL import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.WebPImagePlugin import WebPImageFile

MOST_MEMORY = 2**31
"""Bytes that decoding one picture may take, unless less is given."""
LARGE_BLOCK = 8 * 2**20

_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2}
"""Of a pixel in Pillow's memory, by mode; 4 in all others, RGB too."""
_WEBP_BYTES = 20
"""Of a pixel: libwebp's two canvases and what it decodes into, Pillow's copy and its picture."""
_COEFFICIENT_BYTES = 2


def decoding_memory(image: ImageFile.ImageFile) -> int:
    """Bytes that decoding takes at most, of a picture whose head has been read.

    A JPEG whose scans each hold a part of the picture, as every progressive one, is kept whole as
    coefficients, also where it is decoded small (`JpegImageFile.draft`).

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (400, 200)).save(file, "JPEG", progressive=True, subsampling=0)
        >>> picture = JpegImageFile(io.BytesIO(file.getvalue()))
        >>> decoding_memory(picture) == 400 * 200 * (4 + 3 * 2)
        True
        >>> _ = picture.draft("RGB", (50, 25))
        >>> decoding_memory(picture) == 50 * 25 * 4 + 400 * 200 * 3 * 2
        True
    """
    width, height = image.size
    if isinstance(image, WebPImageFile):
        return width * height * _WEBP_BYTES
    pixels = width * height * _BYTES.get(image.mode, 4)
    return pixels + _coefficients(image) if isinstance(image, JpegImageFile) else pixels


def _coefficients(image: JpegImageFile) -> int:
    """Bytes of the coefficients that libjpeg keeps of the whole picture; 0: it keeps none."""
    if not (image.info.get("progressive") or _first_scan(image) < len(image.layer)):
        return 0
    scale = image.decoderconfig[0] if image.decoderconfig else 1
    most = max(across * down for _, across, down, _ in image.layer)
    shares = sum(across * down / most for _, across, down, _ in image.layer)
    width, height = image.size
    return round(width * scale * height * scale * shares * _COEFFICIENT_BYTES)


def _first_scan(image: JpegImageFile) -> int:
    """Colour components in the first scan, whose head is the last that has been read."""
    file = image.fp
    if file is None:
        return 0
    place, components = file.tell(), len(image.layer)
    # The head ends with two bytes for each component, and three; its length stands before them.
    for count in range(1, components + 1):
        file.seek(place - 6 - 2 * count)
        if file.read(3) == bytes((0, 6 + 2 * count, count)):
            components = count
            break
    file.seek(place)
    return components


@cache
def return_large_blocks() -> None:
    """From now on give blocks of memory of this process back to the system when they are freed.

    The GNU C library keeps freed blocks of up to 32 MB for later ones: after a few large pictures a
    process would hold hundreds of megabytes for good. Elsewhere this does nothing.
    """
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL(None).mallopt(-3, LARGE_BLOCK)  # M_MMAP_THRESHOLD, which also ends its growth
    except (OSError, AttributeError):  # another C library
        return

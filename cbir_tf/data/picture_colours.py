"""Pictures of any kind of colour, depth and transparency as RGB of 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

BACKGROUND = (255, 255, 255)
"""What shows through transparent pixels."""
LARGE = 16_000_000
"""Pixels above which a picture is converted piece by piece, and scaled down on the way."""
DEPTHS = (8, 10, 12, 14, 16, 24, 32)
_PIECE = 2_000_000  # pixels
_NEARLY_ONE = 1.01


def to_rgb(
    image: Image.Image,
    at_least: tuple[int, int] | None = None,
    low: Image.Image | None = None,
) -> Image.Image:
    """A picture in RGB, transparency on white.

    Samples of more than 8 bits keep their highest. Data of 8, 10, 12 or 14 bits in samples of 16,
    as cameras and scanners write them, are known by what they leave empty and come out as bright
    as they are; and numbers with a fraction in 0..1 fill 0..255.

    Args:
        image: a picture in any mode of Pillow.
        at_least: width and height that are enough: a picture of more than `LARGE` pixels is
            averaged over squares so far that both are still twice that. None: full size.
        low: the low bytes, where the samples of `image` are the high bytes of 16 bits.

    Example:
        >>> twelve_bits = Image.fromarray(np.array([[0, 2048, 4095]], np.uint16))
        >>> np.asarray(to_rgb(twelve_bits))[0, :, 0].tolist()
        [0, 128, 255]
    """
    factor = _factor(image.size, at_least)
    if low is None and image.mode == "RGB" and not image.has_transparency_data:
        return image if factor == 1 else image.reduce(factor)
    convert = _conversion(image, low)
    width, height = image.size
    if width * height <= LARGE:
        return convert(image, low)
    result = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    rows = max(1, _PIECE // width // factor) * factor
    for top, piece, low_piece in _pieces(image, low, rows):
        colour = convert(piece, low_piece)
        result.paste(colour if factor == 1 else colour.reduce(factor), (0, top // factor))
    return result


def _factor(size: tuple[int, int], at_least: tuple[int, int] | None) -> int:
    if at_least is None or size[0] * size[1] <= LARGE:
        return 1
    return max(1, min(size[0] // (2 * at_least[0]), size[1] // (2 * at_least[1])))


def _pieces(
    image: Image.Image, low: Image.Image | None, rows: int
) -> Iterator[tuple[int, Image.Image, Image.Image | None]]:
    """Strips of both over the whole width, each with the row it begins at."""
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(image.height, top + rows))
        yield top, image.crop(box), None if low is None else low.crop(box)


Conversion = Callable[[Image.Image, Image.Image | None], Image.Image]


def _conversion(image: Image.Image, low: Image.Image | None) -> Conversion:
    """What makes RGB of this picture, or of a piece of it."""
    if low is None and image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return lambda piece, _: _opaque(piece)
    bands = "L" if low is None else image.getbands()
    colours = len(bands) - ("A" in bands)
    to_bytes = _scaling(image, low, slice(0, colours))
    alpha_to_bytes = _scaling(image, low, slice(colours, None)) if "A" in bands else None
    key = image.info.get("transparency")

    def convert(piece: Image.Image, low_piece: Image.Image | None) -> Image.Image:
        samples = _samples(piece, low_piece)
        pixels = to_bytes(samples[..., :colours])
        if alpha_to_bytes is not None:
            pixels = np.concatenate([pixels, alpha_to_bytes(samples[..., colours:])], axis=-1)
        elif isinstance(key, (int, tuple)):  # the colour that stands for transparency
            pixels[(samples == np.array(key)).all(axis=-1)] = BACKGROUND[0]
        return _opaque(Image.fromarray(pixels[..., 0] if len(bands) == 1 else pixels))

    return convert


def _scaling(
    image: Image.Image, low: Image.Image | None, bands: slice
) -> Callable[[np.ndarray], np.ndarray]:
    """From samples to bytes, alike for the whole picture."""
    largest, bits, unlike = 0.0, 0, 0
    for _, piece, low_piece in _pieces(image, low, max(1, _PIECE // image.width)):
        samples = _samples(piece, low_piece)[..., bands]
        largest = max(largest, float(np.nan_to_num(samples).max()))
        if samples.dtype == np.uint16:
            bits |= int(np.bitwise_or.reduce(samples, axis=None))
            unlike |= int(np.bitwise_or.reduce((samples >> 8) ^ (samples & 255), axis=None))
    if image.mode == "F" and largest <= _NEARLY_ONE:
        return lambda samples: _as_bytes(samples * 255 + 0.5)
    depth = next((each for each in DEPTHS if largest < 2**each), DEPTHS[-1])
    # Multiples of 16, or of 257: a dark picture that was scaled up to 16 bits from fewer.
    if image.mode not in ("I", "F") and (not bits & 15 or not unlike):
        depth = 16
    return lambda samples: _as_bytes(samples / 2 ** (depth - 8))


def _as_bytes(values: np.ndarray) -> np.ndarray:
    clipped: np.ndarray = np.clip(np.nan_to_num(values), 0, 255)
    return clipped.astype(np.uint8)


def _samples(image: Image.Image, low: Image.Image | None) -> np.ndarray:
    """(H, W, C) uint16, int32 or float32."""
    samples: np.ndarray = np.asarray(image)
    if low is not None:
        samples = samples.astype(np.uint16) << 8 | np.asarray(low)
        return samples
    samples = samples[..., np.newaxis]
    return samples if image.mode in ("I", "F") else samples.astype(np.uint16)


def _opaque(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, BACKGROUND)
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")

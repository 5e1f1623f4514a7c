"""Pictures to pixels: the one decoder of training, extraction, search and serving."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from cbir_tf.data.picture_colours import to_rgb
from cbir_tf.data.picture_memory import MOST_MEMORY, decoding_memory
from cbir_tf.errors import UserError

CROPS = 3  # of a photo, of which each has about three quarters where it is 4:3
MOST_PIXELS = 250_000_000
"""Telephones make photos of 200 megapixels; what bounds others is `MOST_MEMORY`."""
PADDING = (128, 128, 128)
"""The bars of a letterboxed picture."""

# Opened by class and not by Image.open, which would warn before the size could be refused here.
_FORMATS: dict[bytes, type[ImageFile.ImageFile]] = {
    rb"\xff\xd8\xff": JpegImageFile,
    rb"\x89PNG\r\n\x1a\n": PngImageFile,
    rb"RIFF....WEBP": WebPImageFile,
    rb"BM": BmpImageFile,
    rb"GIF8[79]a": GifImageFile,
}
"""What a file begins with, as a regular expression, to its reader."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the transposition that undoes it."""


class ImageError(UserError):
    """A picture cannot be decoded.

    Attributes:
        reason: what is wrong with it, without its name.
    """

    def __init__(self, source: Path | bytes, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{source if isinstance(source, Path) else 'image data'}: {reason}")


class TooLargeError(ImageError):
    """A picture has more pixels than are decoded, or decoding it would take too much memory."""


def decode_image(
    source: Path | bytes,
    size: tuple[int, int],
    resize: str,
    most_pixels: int = MOST_PIXELS,
    most_memory: int = MOST_MEMORY,
) -> np.ndarray:
    """Decode a JPEG, PNG, WebP, BMP or GIF (its first frame) and bring it to one size.

    The content decides the format, never the file's name. EXIF orientation is applied;
    transparency shows white; gray, palette, 16-bit and CMYK become RGB, CMYK JPEGs being inverted
    as in Adobe's programs and browsers, and data of 8 to 14 bits in samples of 16 as bright as they
    are (`cbir_tf.data.picture_colours`); colour profiles are ignored. Scaling is bilinear with
    antialiasing; a large JPEG is decoded at the smallest scale that still covers `size`, and of
    other pictures of more than 16 megapixels squares are averaged first. Safe to call from several
    threads.

    Args:
        source: a file, or its content.
        size: height and width in pixels.
        resize: stretch, letterbox or crop, as `config_data.Data.resize` explains them; or crops:
            three crops side by side, each a third as wide, from the beginning, the middle and the
            end of the longer side.
        most_pixels: limit; a picture of more is refused before it is decoded.
        most_memory: limit in bytes of what decoding takes, known before it begins.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        ImageError: missing, empty, truncated, damaged or too large, or not a picture in one of
            these formats.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (40, 20), "red").save(file, "PNG")
        >>> pixels = decode_image(file.getvalue(), size=(8, 16), resize="stretch")
        >>> pixels.shape, pixels.dtype.name, pixels[0, 0].tolist()
        ((8, 16, 3), 'uint8', [255, 0, 0])
    """
    image = open_image(source, _least(size[::-1], resize), most_pixels, most_memory)
    return np.array(_RESIZE[resize](image, size[::-1]))


def resized_pixels(
    pixels: np.ndarray | Image.Image, size: tuple[int, int], resize: str
) -> np.ndarray:
    """Bring decoded pixels to one size, as `decode_image` does.

    Args:
        pixels: uint8 (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) gray, or an image of Pillow.
        size: height and width in pixels.
        resize: as for `decode_image`.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        UserError: pixels of another shape or type.

    Example:
        >>> resized_pixels(np.zeros((8, 4, 3), np.uint8), (2, 2), "stretch").shape
        (2, 2, 3)
    """
    if isinstance(pixels, np.ndarray):
        shaped = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
        if pixels.dtype != np.uint8 or not shaped or not pixels.size:
            raise UserError(
                f"pixels are {pixels.dtype} {pixels.shape}; give uint8 of shape (H, W, 3), in RGB"
            )
        pixels = Image.fromarray(pixels)
    upright = ImageOps.exif_transpose(pixels)
    return np.array(_RESIZE[resize](to_rgb(upright, _least(size[::-1], resize)), size[::-1]))


def decode_original(source: Path | bytes, longest: int | None = None) -> np.ndarray:
    """Decode a picture without changing its proportions, for grids and thumbnails.

    Args:
        source: a file, or its content.
        longest: most pixels of the longer side; smaller pictures are not enlarged.

    Returns:
        (height, width, 3) uint8, RGB, decoded as by `decode_image`.

    Raises:
        ImageError: as `decode_image`.
    """
    if longest is None:
        return np.array(open_image(source))
    image = open_image(source, at_least=(longest, longest))
    if max(image.size) > longest:
        image = _contain(image, (longest, longest))
    return np.array(image)


def open_image(
    source: Path | bytes,
    at_least: tuple[int, int] | None = None,
    most_pixels: int = MOST_PIXELS,
    most_memory: int = MOST_MEMORY,
) -> Image.Image:
    """A picture upright and in RGB.

    Args:
        source: a file, or its content.
        at_least: width and height that are enough; a JPEG of twice that or more is decoded at a
            half, a quarter or an eighth of its size, and others as by `to_rgb`. None: full size.
        most_pixels: as for `decode_image`.
        most_memory: as for `decode_image`.

    Raises:
        ImageError: as `decode_image`.
    """
    with _opened(source, most_pixels) as image:
        if at_least and isinstance(image, JpegImageFile):
            image.draft("RGB", _lying(at_least, image))
        _check_memory(source, image, most_memory)
        rawmode = image.tile[0].args if isinstance(image, PngImageFile) and image.tile else None
        image.load()
        high: Image.Image = image
        low = None
        if rawmode in _LOW_BYTES and _needs_low_bytes(image):
            high, low = _high_and_low(source, image, str(rawmode))
        colour = to_rgb(high, at_least and _lying(at_least, image), low)
        upright = _UPRIGHT.get(_orientation(image))
        return colour if upright is None else colour.transpose(upright)


def picture_size(source: Path | bytes) -> tuple[int, int]:
    """Width and height in pixels of a picture held upright, without decoding it.

    Raises:
        ImageError: as `decode_image`, but for what is wrong beyond the file's head.
    """
    with _opened(source) as image:
        if isinstance(image, PngImageFile):  # which is decoded to look for an orientation behind it
            _check_memory(source, image, MOST_MEMORY)
        return _lying(image.size, image)


def media_type(head: bytes) -> str | None:
    """What kind of picture a file is that begins so, as image/jpeg; None: none that is known."""
    reader = _reader(head)
    return None if reader is None else f"image/{str(reader.format).lower()}"


def _reader(head: bytes) -> type[ImageFile.ImageFile] | None:
    matching = (each for start, each in _FORMATS.items() if re.match(start, head, re.DOTALL))
    return next(matching, None)


@contextmanager
def _opened(source: Path | bytes, most_pixels: int = MOST_PIXELS) -> Iterator[ImageFile.ImageFile]:
    """A picture whose head has been read; what is raised in the block becomes an ImageError."""
    with ExitStack() as stack:
        try:
            file = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
            head = stack.enter_context(file).read(16)
            file.seek(0)
        except FileNotFoundError:
            raise ImageError(source, "no such file") from None
        except OSError as error:
            raise ImageError(source, f"cannot be read: {error.strerror or error}") from None
        if not head:
            raise ImageError(source, "the file is empty")
        reader = _reader(head)
        if reader is None:
            raise ImageError(source, "not a JPEG, PNG, WebP, BMP or GIF picture")
        # Pillow's readers raise whatever a damaged file makes them stumble over.
        try:
            image = reader(file)
            width, height = image.size
            if width * height > most_pixels:
                raise Image.DecompressionBombError
            yield image
        except ImageError:
            raise
        except Image.DecompressionBombError:
            reason = f"more than {most_pixels / 1e6:g} megapixels; scale it down"
            raise TooLargeError(source, reason) from None
        except MemoryError:
            reason = "there is not enough memory to decode it; scale it down"
            raise TooLargeError(source, reason) from None
        except Exception as error:
            reason = _one_line(error)
            if re.search("unsupported|cannot handle", reason, re.IGNORECASE):
                kind = f"{reader.format} of a kind that cannot be read ({reason})"
                raise ImageError(source, f"{kind}; save it as a plain JPEG or PNG") from None
            raise ImageError(source, f"damaged or cut short ({reason})") from None


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or the EXIF data are damaged."""
    try:
        orientation: int = image.getexif().get(ExifTags.Base.Orientation, 1)
        return orientation
    except Exception:
        # As with the pixels, anything can be raised; here the picture is good without it.
        return 1


def _lying(size: tuple[int, int], image: Image.Image) -> tuple[int, int]:
    """Width and height of an upright picture as its file has them."""
    return size[::-1] if _orientation(image) >= 5 else size


def _check_memory(source: Path | bytes, image: ImageFile.ImageFile, most_memory: int) -> None:
    """Refuse a picture that takes too much memory.

    Raises:
        TooLargeError: it does.
    """
    needed = decoding_memory(image)
    if needed > most_memory:
        reason = (
            f"decoding its {image.width} x {image.height} pixels takes {needed / 1e6:.0f} MB of "
            f"memory, and {most_memory / 1e6:.0f} MB are the most; scale it down"
        )
        raise TooLargeError(source, reason)


_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}
"""What Pillow takes the high bytes of a PNG's 16-bit samples by, to what takes the low ones.

Read as RGBA, gray with alpha has all four bytes.
"""
_DARK = 64  # the high byte of what 14 bits do not reach


def _needs_low_bytes(image: Image.Image) -> bool:
    """Whether the high bytes do not tell what 16-bit samples show."""
    extrema = np.array(image.getextrema())  # (4, 2) for RGBA
    return bool(extrema[:3].max() < _DARK) or isinstance(image.info.get("transparency"), tuple)


def _high_and_low(
    source: Path | bytes, image: Image.Image, rawmode: str
) -> tuple[Image.Image, Image.Image]:
    """The high and the low bytes of a PNG's 16-bit samples, as two pictures."""
    with _opened(source) as again:
        again.tile = [again.tile[0]._replace(args=_LOW_BYTES[rawmode])]
        again.load()
        if rawmode != "LA;16B":
            return image, again
        gray, gray_low, alpha, alpha_low = again.split()
        return Image.merge("LA", (gray, alpha)), Image.merge("LA", (gray_low, alpha_low))


def _least(size: tuple[int, int], resize: str) -> tuple[int, int]:
    """Width and height that a picture must have to be brought to `size` without enlarging it."""
    return (size[0] // CROPS, size[1]) if resize == "crops" else size


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _stretch(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR)


def _contain(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scaled to the largest size of the same proportions within `size`."""
    scale = min(size[0] / image.width, size[1] / image.height)
    return _stretch(
        image, (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    )


def _letterbox(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    inner = _contain(image, size)
    framed = Image.new("RGB", size, PADDING)
    framed.paste(inner, ((size[0] - inner.width) // 2, (size[1] - inner.height) // 2))
    return framed


def _crop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return ImageOps.fit(image, size, Image.Resampling.BILINEAR)


def _crops(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    width = size[0] // CROPS
    joined = Image.new("RGB", size)
    for number in range(CROPS):
        place = number / (CROPS - 1)
        one = ImageOps.fit(
            image, (width, size[1]), Image.Resampling.BILINEAR, centering=(place, place)
        )
        joined.paste(one, (number * width, 0))
    return joined


_RESIZE: dict[str, Callable[[Image.Image, tuple[int, int]], Image.Image]] = {
    "stretch": _stretch,
    "letterbox": _letterbox,
    "crop": _crop,
    "crops": _crops,
}

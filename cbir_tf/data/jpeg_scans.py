"""How many times over a JPEG describes its pixels, counted before it is decoded.

A progressive JPEG comes in scans, each of which refines every pixel; ten are usual. Nothing in the
format keeps a file from holding hundreds of them, each next to empty and each as much work for a
decoder as a whole picture (libjpeg-turbo, Two Issues with the JPEG Standard).
"""

from __future__ import annotations

from collections.abc import Iterator

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def count_scans(content: bytes) -> int:
    """Scans of a JPEG; 0 where there is none, and for what is no JPEG.

    Pictures within the file's head, such as a camera's thumbnail, do not count.

    Args:
        content: the encoded picture.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (8, 8)).save(file, "JPEG", progressive=True)
        >>> count_scans(file.getvalue())
        10
    """
    for marker, start in _segments(content):
        if marker == _START_OF_SCAN:
            # In a scan's data 0xFF is always followed by 0 or by the number of a restart marker.
            return content.count(bytes([0xFF, _START_OF_SCAN]), start - 2)
    return 0


def jpeg_size(content: bytes) -> tuple[int, int]:
    """Width and height of a JPEG in pixels, as its file has them; zeros where it has none.

    Args:
        content: the encoded picture.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (40, 20)).save(file, "JPEG")
        >>> jpeg_size(file.getvalue())
        (40, 20)
    """
    for marker, start in _segments(content):
        if marker in _FRAMES:
            height, width = content[start + 3 : start + 5], content[start + 5 : start + 7]
            return int.from_bytes(width), int.from_bytes(height)
    return 0, 0


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """The markers up to the first scan's, and where what follows each begins: at its length.

    What stands between two segments is passed over, as decoders do.
    """
    position = 2 if content.startswith(b"\xff\xd8") else len(content)
    while (position := content.find(b"\xff", position)) >= 0:
        position += 1
        marker = content[position] if position < len(content) else _END_OF_IMAGE
        if marker in (0x00, 0xFF):  # no marker, or a byte before one
            continue
        position += 1
        yield marker, position
        if marker in (_START_OF_SCAN, _END_OF_IMAGE):
            return
        if marker not in _WITHOUT_LENGTH:
            position += max(2, int.from_bytes(content[position : position + 2]))

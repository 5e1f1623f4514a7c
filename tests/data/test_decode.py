"""Every kind of picture becomes the same upright RGB pixels, or one plain line of complaint."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cbir_tf.data.decode import (
    ImageError,
    decode_image,
    decode_original,
    open_image,
    picture_size,
)

RED = (200, 30, 40)
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "BMP": {}}


def encoded(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def noise(height: int, width: int, channels: tuple[int, ...] = (3,)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, *channels), np.uint8)


def photo(height: int, width: int) -> np.ndarray:
    """Smooth colours, which JPEG keeps nearly unchanged."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [x, y, (1 + np.sin(6 * x + 4 * y)) / 2]
    return (255 * np.stack(waves, axis=-1)).round().astype(np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and has none of them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        digest = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", digest)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


# --- formats and colours ------------------------------------------------------------------------


@pytest.mark.parametrize("format_", LOSSLESS)
def test_lossless_formats_give_their_pixels(format_):
    pixels = noise(9, 13)
    content = encoded(Image.fromarray(pixels), format_, **LOSSLESS[format_])
    np.testing.assert_array_equal(decode_original(content), pixels)
    np.testing.assert_array_equal(decode_image(content, (9, 13), "stretch"), pixels)


def test_jpeg_gives_its_colours_nearly():
    pixels = photo(40, 60)
    decoded = decode_original(encoded(Image.fromarray(pixels), "JPEG", quality=95))
    assert np.abs(decoded.astype(int) - pixels).mean() < 3


def test_the_first_frame_of_an_animated_gif_is_taken():
    frames = [Image.new("RGB", (8, 6), colour) for colour in (RED, (0, 0, 255), (0, 255, 0))]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(content)).n_frames == 3
    np.testing.assert_array_equal(decode_original(content), np.full((6, 8, 3), RED))


def test_the_first_frame_of_an_animated_webp_is_taken():
    frames = [Image.new("RGB", (8, 6), colour) for colour in (RED, (0, 0, 255))]
    content = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(decode_original(content), np.full((6, 8, 3), RED))


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "BMP"])
def test_gray_becomes_three_equal_channels(format_):
    gray = np.full((10, 12), 77, np.uint8)
    decoded = decode_original(encoded(Image.fromarray(gray), format_))
    np.testing.assert_array_equal(decoded, np.full((10, 12, 3), 77))


def test_black_and_white_becomes_0_and_255():
    bits = noise(7, 9, ()) > 127
    decoded = decode_original(encoded(Image.fromarray(bits), "PNG"))
    np.testing.assert_array_equal(decoded, np.repeat(bits[..., None] * 255, 3, axis=-1))


def test_a_palette_becomes_its_colours():
    palette = noise(1, 256)[0]
    index = noise(11, 5, ())
    image = Image.fromarray(index, "P")
    image.putpalette(palette.tobytes())
    np.testing.assert_array_equal(decode_original(encoded(image)), palette[index])


def test_16_bit_gray_keeps_its_high_byte():
    values = np.random.default_rng(1).integers(0, 65536, (6, 7)).astype(np.uint16)
    decoded = decode_original(encoded(Image.fromarray(values), "PNG"))
    np.testing.assert_array_equal(decoded, np.repeat((values // 256)[..., None], 3, axis=-1))


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_transparency_shows_white(format_):
    pixels = noise(8, 8, (4,))
    pixels[:4, :, 3] = 0
    pixels[4:6, :, 3] = 255
    options = {"lossless": True, "exact": True} if format_ == "WEBP" else {}
    decoded = decode_original(encoded(Image.fromarray(pixels, "RGBA"), format_, **options))
    alpha = pixels[..., 3:] / 255
    expected = pixels[..., :3] * alpha + 255 * (1 - alpha)
    np.testing.assert_allclose(decoded, expected, atol=1)
    assert (decoded[:4] == 255).all()


def test_a_transparent_palette_entry_shows_white():
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    decoded = decode_original(encoded(image, "PNG", transparency=0))
    np.testing.assert_array_equal(decoded, [[[255] * 3, [40, 50, 60]], [[40, 50, 60], [255] * 3]])


@pytest.mark.parametrize(
    ("inks", "colour"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((0, 255, 255, 0), (255, 0, 0)),
        ((255, 255, 0, 0), (0, 0, 255)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0, 0, 0, 128), (127, 127, 127)),
    ],
)
def test_inverted_cmyk_of_adobe_becomes_the_colours_of_its_inks(inks, colour):
    content = encoded(Image.new("CMYK", (16, 16), inks), "JPEG", quality=100)
    assert b"Adobe" in content
    np.testing.assert_allclose(decode_original(content)[8, 8], colour, atol=2)


def test_the_content_decides_and_not_the_name(tmp_path: Path):
    pixels = noise(5, 6)
    path = tmp_path / "really a png.jpg"
    path.write_bytes(encoded(Image.fromarray(pixels), "PNG"))
    np.testing.assert_array_equal(decode_original(path), pixels)


# --- orientation --------------------------------------------------------------------------------

UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p.transpose(1, 0, 2)[:, ::-1],
    7: lambda p: p.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda p: p.transpose(1, 0, 2)[::-1],
}
"""From the EXIF standard: what row 0 and column 0 of the stored picture show."""


def with_orientation(pixels: np.ndarray, orientation: int, format_: str, **options) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(pixels), format_, exif=exif, **options)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_orientation_is_applied(orientation, format_):
    pixels = noise(4, 7)
    content = with_orientation(pixels, orientation, format_, **LOSSLESS[format_])
    np.testing.assert_array_equal(decode_original(content), UPRIGHT[orientation](pixels))


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_large_turned_jpeg_is_decoded_small_and_upright(orientation):
    pixels = photo(320, 640)
    content = with_orientation(pixels, orientation, "JPEG", quality=95)
    upright = UPRIGHT[orientation](pixels)
    size = (40, 80) if upright.shape[0] < upright.shape[1] else (80, 40)
    expected = upright.reshape(size[0], 8, size[1], 8, 3).mean(axis=(1, 3))
    decoded = decode_image(content, size, "stretch")
    assert np.abs(decoded - expected).max() < 12
    assert open_image(content, at_least=size[::-1]).size == size[::-1]


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_the_size_is_that_of_the_upright_picture(orientation, format_):
    content = with_orientation(noise(4, 7), orientation, format_)
    assert picture_size(content) == UPRIGHT[orientation](noise(4, 7)).shape[1::-1]


def test_the_size_is_read_without_decoding_and_refused_if_there_is_none():
    assert picture_size(png_header(300, 200)) == (300, 200)
    with pytest.raises(ImageError, match="damaged"):
        open_image(png_header(300, 200))
    for content in (b"", b"no picture", b"\xff\xd8\xff123", png_header(30_000, 30_000)):
        with pytest.raises(ImageError):
            picture_size(content)


def test_damaged_exif_leaves_a_good_picture():
    pixels = noise(4, 7)
    content = encoded(Image.fromarray(pixels), "PNG", exif=b"Exif\0\0no such thing as this")
    np.testing.assert_array_equal(decode_original(content), pixels)


# --- sizes --------------------------------------------------------------------------------------


def scaled(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """TensorFlow's antialiased bilinear scaling."""
    return tf.image.resize(pixels, (height, width), antialias=True).numpy()


@pytest.mark.parametrize("size", [(10, 10), (33, 21), (64, 80), (7, 50)])
def test_stretch_is_antialiased_bilinear_scaling(size):
    pixels = noise(32, 40)
    decoded = decode_image(encoded(Image.fromarray(pixels)), size, "stretch")
    np.testing.assert_allclose(decoded, scaled(pixels, *size), atol=1.01)


def test_letterbox_keeps_proportions_between_gray_bars():
    pixels = noise(20, 60)
    decoded = decode_image(encoded(Image.fromarray(pixels)), (30, 30), "letterbox")
    np.testing.assert_allclose(decoded[10:20], scaled(pixels, 10, 30), atol=1.01)
    assert (decoded[:10] == 128).all() and (decoded[20:] == 128).all()


def test_crop_covers_and_cuts_the_centre():
    pixels = noise(20, 60)
    decoded = decode_image(encoded(Image.fromarray(pixels)), (20, 20), "crop")
    np.testing.assert_array_equal(decoded, pixels[:, 20:40])
    decoded = decode_image(encoded(Image.fromarray(pixels)), (10, 10), "crop")
    np.testing.assert_allclose(decoded, scaled(pixels, 10, 30)[:, 10:20], atol=1.01)


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1)])
def test_extreme_proportions_are_no_trouble(resize, shape):
    content = encoded(Image.new("RGB", shape, RED))
    decoded = decode_image(content, (16, 24), resize)
    assert decoded.shape == (16, 24, 3) and decoded.dtype == np.uint8
    assert (decoded == RED).all(axis=-1).any()


def test_a_thumbnail_keeps_proportions_and_is_never_enlarged():
    content = encoded(Image.fromarray(noise(30, 90)))
    assert decode_original(content, longest=45).shape == (15, 45, 3)
    assert decode_original(content, longest=500).shape == (30, 90, 3)
    assert decode_original(content).shape == (30, 90, 3)


def test_threads_and_bytes_and_paths_give_the_same_pixels(tmp_path: Path):
    contents = [
        encoded(Image.fromarray(photo(90 + each, 120)), "JPEG", quality=80) for each in range(12)
    ]
    paths = [tmp_path / f"{each}.jpg" for each in range(12)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    one_by_one = [decode_image(content, (32, 32), "crop") for content in contents]
    with ThreadPoolExecutor(8) as threads:
        at_once = list(threads.map(lambda path: decode_image(path, (32, 32), "crop"), paths))
    np.testing.assert_array_equal(at_once, one_by_one)


# --- errors -------------------------------------------------------------------------------------


def refusal(source: Path | bytes) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError) as caught:
            decode_image(source, (32, 32), "stretch")
    message = str(caught.value)
    assert "\n" not in message and caught.value.reason in message
    return message


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path: Path):
    assert refusal(tmp_path / "none.jpg") == f"{tmp_path / 'none.jpg'}: no such file"
    assert refusal(tmp_path).startswith(f"{tmp_path}: cannot be read")


def test_an_empty_file_is_refused(tmp_path: Path):
    path = tmp_path / "empty.jpg"
    path.touch()
    assert refusal(path) == f"{path}: the file is empty"
    assert refusal(b"") == "image data: the file is empty"


@pytest.mark.parametrize(
    "content",
    [
        b"hello, I am a text file",
        b"GIF",
        b"\x89PNG",
        encoded(Image.new("RGB", (8, 8)), "TIFF"),
        encoded(Image.new("RGB", (8, 8)), "PPM"),
        b"RIFF\x24\x00\x00\x00WAVEfmt ",
    ],
)
def test_a_file_of_no_known_image_format_is_refused(content):
    assert refusal(content) == "image data: not a JPEG, PNG, WebP, BMP or GIF picture"


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.15, 0.5, 0.9])
def test_a_file_cut_short_is_refused(format_, share):
    content = encoded(Image.fromarray(noise(64, 64)), format_)
    assert "damaged or cut short" in refusal(content[: int(share * len(content))])


@pytest.mark.parametrize("size", [(30_000, 30_000), (12_000, 10_000), (10_001, 10_000)])
def test_too_many_pixels_are_refused_from_the_header(size):
    bitmap = b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, *size, 1, 24, 0, 0, 0, 0, 0, 0)
    # 30 bytes are enough to know the size; decoding them would be an error of another kind.
    for content in (png_header(*size), bitmap):
        assert "more than 100 megapixels" in refusal(content)


@pytest.mark.parametrize("size", [(16_000, 16_000), (9_000, 12_000)])
def test_a_webp_of_too_many_pixels_is_refused(size):
    canvas = b"".join((each - 1).to_bytes(3, "little") for each in size)
    frame = encoded(Image.new("RGB", (16, 16)), "WEBP")[12:]
    content = b"WEBPVP8X" + struct.pack("<II", 10, 0) + canvas + frame
    refusal(b"RIFF" + struct.pack("<I", len(content)) + content)


@settings(max_examples=150, deadline=None)
@given(
    format_=st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "GIF"]),
    keep=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
)
def test_a_damaged_file_is_decoded_or_refused_and_nothing_else(format_, keep, changes):
    content = bytearray(encoded(Image.fromarray(noise(24, 24)), format_))
    for place, value in changes:
        content[int(place * len(content))] = value
    try:
        decoded = decode_image(bytes(content[: int(keep * len(content))]), (16, 16), "crop")
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert decoded.shape == (16, 16, 3) and decoded.dtype == np.uint8

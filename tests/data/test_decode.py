"""Every kind of picture becomes the same upright RGB pixels, or one plain line of complaint."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from cbir_tf.data import picture_colours
from cbir_tf.data.decode import (
    ImageError,
    decode_image,
    decode_original,
    open_image,
    picture_size,
    resized_pixels,
)

RED = (200, 30, 40)
PROFILES = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
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


def png_of_16_bits(samples: np.ndarray, interlaced: bool = False, before: bytes = b"") -> bytes:
    """A PNG of (H, W) gray, or of (H, W, 2 to 4) gray and alpha, RGB or RGBA samples."""
    height, width = samples.shape[:2]
    colour = {2: 0, 3: {2: 4, 3: 2, 4: 6}[samples.shape[-1] if samples.ndim == 3 else 3]}
    header = struct.pack(">IIBBBBB", width, height, 16, colour[samples.ndim], 0, 0, interlaced)
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2),
                  (0, 1, 2, 2), (1, 0, 2, 1)]  # fmt: skip
        parts = [samples[top::down, left::right] for top, left, down, right in passes]
    else:
        parts = [samples]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for part in parts for row in part
                    if row.size)  # fmt: skip
    chunks = [(b"IHDR", header), (b"tRNS", before), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks if content or kind == b"IEND"
    )  # fmt: skip


@pytest.mark.parametrize("channels", [(), (2,), (3,), (4,)])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_fewer_bits_in_a_16_bit_png_come_out_as_bright_as_they_are(bits, channels, interlaced):
    samples = np.random.default_rng(2).integers(0, 2**bits, (9, 8, *channels)).astype(np.uint16)
    samples[0, 0] = 2**bits - 1
    if channels in ((2,), (4,)):
        samples[..., -1] = 65535
    colours = samples[..., :1] if channels == (2,) else samples[..., :3] if channels else samples
    if not channels:
        colours = samples[..., None]
    expected = np.broadcast_to(colours >> (bits - 8), (9, 8, 3))
    np.testing.assert_array_equal(decode_original(png_of_16_bits(samples, interlaced)), expected)


@pytest.mark.parametrize("factor", [256, 257, 16])
def test_a_dark_picture_that_was_scaled_up_to_16_bits_stays_dark(factor):
    samples = (np.arange(72).reshape(9, 8) % 15 * factor).astype(np.uint16)
    decoded = decode_original(png_of_16_bits(samples))
    np.testing.assert_array_equal(decoded[..., 0], samples >> 8)


def test_a_transparent_colour_of_16_bits_shows_white():
    gray = np.full((4, 5), 3000, np.uint16)
    gray[0] = 100
    decoded = decode_original(png_of_16_bits(gray, before=struct.pack(">H", 100)))
    assert (decoded[0] == 255).all() and (decoded[1:] == 3000 >> 4).all()
    colour = np.full((4, 5, 3), 30_000, np.uint16)
    colour[0] = 1000, 1001, 1002
    decoded = decode_original(png_of_16_bits(colour, before=struct.pack(">HHH", 1000, 1001, 1002)))
    assert (decoded[0] == 255).all() and (decoded[1:] == 30_000 >> 8).all()


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 100.4, 255]], np.float32), [0, 100, 255]),
        (np.array([[np.nan, -1, 65535]], np.float32), [0, 0, 255]),
        (np.array([[0, 2048, 4095]], np.int32), [0, 128, 255]),
        (np.array([[-5, 2**30, 2**31 - 1]], np.int32), [0, 64, 127]),
        (np.array([[0, 2048, 4095]], np.uint16), [0, 128, 255]),
    ],
)
def test_an_image_of_deeper_samples_is_searched_as_it_looks(samples, expected):
    pixels = resized_pixels(Image.fromarray(samples), (1, 3), "stretch")
    np.testing.assert_array_equal(pixels[0], np.repeat(np.array(expected)[:, None], 3, axis=1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_an_image_of_any_mode_becomes_rgb(mode):
    image = Image.fromarray(photo(20, 30)).convert("L" if mode in ("LA", "1") else "RGB")
    image = image.convert("P").convert("PA") if mode == "PA" else (
        ImageCms.profileToProfile(image, *PROFILES, outputMode="LAB") if mode == "LAB"
        else image.convert(mode))  # fmt: skip
    pixels = resized_pixels(image, (20, 30), "stretch")
    reference = image.convert("RGB") if mode not in ("LA", "PA", "RGBA") else (
        image.convert("RGBA").convert("RGB"))  # fmt: skip
    np.testing.assert_allclose(pixels, np.asarray(reference), atol=1)


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


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "P", "I;16", "16-bit RGB"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_very_large_picture_is_averaged_piece_by_piece(kind, orientation, monkeypatch):
    monkeypatch.setattr(picture_colours, "LARGE", 5000)
    monkeypatch.setattr(picture_colours, "_PIECE", 1000)
    image = Image.fromarray(photo(104, 208)).convert(kind if kind in ("RGBA", "P") else "RGB")
    if kind == "RGBA":
        image.putalpha(Image.fromarray(photo(104, 208)[..., 1]))
    if kind == "I;16":
        image = Image.fromarray(photo(104, 208)[..., 0].astype(np.uint16) << 4)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(image, exif=exif)
    if kind == "16-bit RGB":
        content = png_of_16_bits(photo(104, 208).astype(np.uint16) << 4 | 5)
    size = (12, 24) if orientation == 1 or kind == "16-bit RGB" else (24, 12)
    pieced = decode_image(content, size, "stretch")
    full = open_image(content)
    assert max(open_image(content, at_least=size[::-1]).size) <= max(size) * 4 + 4
    whole = np.asarray(full.resize(size[::-1], Image.Resampling.BILINEAR))
    assert np.abs(pieced.astype(int) - whole).mean() < 2
    monkeypatch.setattr(picture_colours, "LARGE", 10**9)
    np.testing.assert_array_equal(open_image(content), full)


def test_a_photo_of_108_megapixels_is_read(tmp_path):
    content = encoded(Image.new("RGB", (12_000, 9_000), RED), "JPEG")
    assert picture_size(content) == (12_000, 9_000)
    decoded = decode_image(content, (32, 32), "stretch")
    np.testing.assert_allclose(decoded, np.full((32, 32, 3), RED), atol=2)


MEMORY = """
import io, sys, threading
from PIL import Image
from cbir_tf.data.decode import ImageError, decode_image
from cbir_tf.data.picture_memory import return_large_blocks

def memory(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1000

return_large_blocks()
contents = [open(each, "rb").read() for each in sys.argv[1:]]
decode_image(contents[0], (64, 64), "crop")
before = memory("VmRSS")

def decode():
    for content in contents[1:]:
        try:
            decode_image(content, (64, 64), "crop", most_memory=2**29)
        except ImageError:
            pass

threads = [threading.Thread(target=decode) for _ in range(2)]
for each in threads: each.start()
for each in threads: each.join()
print(before, memory("VmHWM"), memory("VmRSS"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")
def test_memory_is_bounded_and_returns(tmp_path):
    png = encoded(Image.new("RGB", (5000, 5000)), "PNG", compress_level=1)
    contents = [
        encoded(Image.new("RGB", (50, 50))),
        webp(7000, 7000),
        png,
        encoded(Image.new("RGBA", (3000, 3000)), "PNG", compress_level=1),
        encoded(Image.new("RGB", (5000, 5000)), "JPEG"),
        png[:-40],
        encoded(Image.new("P", (5000, 5000)), "GIF"),
        webp(2000, 2000),
    ]
    paths = [tmp_path / str(number) for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    command = [sys.executable, "-c", MEMORY, *map(str, paths)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    before, peak, after = map(float, printed.split())
    assert after < 1.2 * before
    assert peak < before + 500  # the WebP alone would take 980


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


def refusal(source: Path | bytes, **limits: int) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError) as caught:
            decode_image(source, (32, 32), "stretch", **limits)
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


def test_a_sound_picture_of_a_rare_kind_is_not_called_damaged():
    jpeg = bytearray(encoded(Image.fromarray(noise(16, 16)), "JPEG"))
    jpeg[jpeg.index(b"\xff\xc0") + 4] = 12  # bits a sample
    bitmap = bytearray(encoded(Image.fromarray(noise(16, 16)), "BMP"))
    bitmap[30] = 4  # a JPEG within, as printers take it
    for content in (bytes(jpeg), bytes(bitmap)):
        message = refusal(content)
        assert "of a kind that cannot be read" in message and "damaged" not in message


@pytest.mark.parametrize("size", [(30_000, 30_000), (25_001, 10_000)])
def test_too_many_pixels_are_refused_from_the_header(size):
    bitmap = b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, *size, 1, 24, 0, 0, 0, 0, 0, 0)
    # 30 bytes are enough to know the size; decoding them would be an error of another kind.
    for content in (png_header(*size), bitmap):
        assert "more than 250 megapixels" in refusal(content)


def webp(width: int, height: int) -> bytes:
    """A WebP of one colour and of any size, in 40 bytes."""
    content = bytearray(encoded(Image.new("RGB", (16, 16), RED), "WEBP", lossless=True))
    assert content[12:16] == b"VP8L"
    (bits,) = struct.unpack_from("<I", content, 21)
    bits = bits >> 28 << 28 | height - 1 << 14 | width - 1
    struct.pack_into("<I", content, 21, bits)
    return bytes(content)


@pytest.mark.parametrize("content", [png_header(16_000, 15_000), webp(7000, 7000)])
def test_a_picture_that_takes_too_much_memory_is_refused_for_that(content):
    assert (decode_image(webp(700, 600), (8, 8), "crop") == RED).all()
    message = refusal(content, most_memory=2**29)
    assert "MB of memory" in message and "scale it down" in message and "damaged" not in message


def test_a_webp_of_too_many_pixels_is_refused():
    assert "damaged" not in refusal(webp(16_000, 16_000))


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

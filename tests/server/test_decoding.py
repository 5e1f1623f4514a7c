"""Pictures from anyone are decoded in processes that are ended when they take too long."""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from cbir_tf.config.data import Data
from cbir_tf.config.server import Server
from cbir_tf.data.jpeg_scans import count_scans, jpeg_size
from cbir_tf.server.errors import InvalidQueryError, PictureTooLargeError, UnavailableError
from cbir_tf.server.pipeline.decoding import Decoders, is_light
from tests.attacks.attacks import flat_png, flat_webp, scanned

DATA = Data.model_validate({"source": "folder", "path": ".", "image_size": 32})


def encoded(kind: str, side: int = 64, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side // 2), "red").save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    decoders = Decoders(DATA, Server(decode_timeout=10, max_megapixels=20))
    yield decoders
    decoders.close()


@pytest.mark.parametrize(
    ("options", "scans"), [({}, 1), ({"progressive": True}, 10), ({"restart_marker_rows": 1}, 1)]
)
def test_scans_are_counted_as_the_file_has_them(options, scans):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 70, 3), np.uint8))
    file = io.BytesIO()
    thumbnail = b"Exif\0\0" + encoded("JPEG", progressive=True)  # within the head: does not count
    noise.save(file, "JPEG", quality=95, exif=thumbnail, **options)
    assert count_scans(file.getvalue()) == scans and jpeg_size(file.getvalue()) == (70, 90)


def test_repeated_scans_are_counted():
    assert count_scans(scanned(64, 150)) == 150 and jpeg_size(scanned(64, 150)) == (64, 64)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"GIF89a", b"\xff" * 99])
def test_what_is_no_jpeg_has_no_scans(content):
    assert count_scans(content) == 0 and jpeg_size(content) == (0, 0)


@pytest.mark.parametrize("end", range(2, 600, 7))
def test_a_jpeg_cut_anywhere_is_looked_at_without_an_error(end):
    whole = encoded("JPEG", progressive=True)
    assert 0 <= count_scans(whole[:end]) <= 10 and len(jpeg_size(whole[:end])) == 2


@pytest.mark.parametrize(
    ("picture", "light"),
    [
        (encoded("JPEG"), True),
        (encoded("JPEG", 6000), True),  # 18 megapixels
        (encoded("JPEG", 6000, progressive=True), False),
        (encoded("PNG"), True),
        (flat_png(4500), False),
        (flat_webp(7000), False),
        (encoded("GIF"), True),
        (b"nothing", True),
    ],
)
def test_pictures_that_take_long_are_known_by_their_heads(picture, light):
    assert is_light(picture, 100) == light


def test_pixels_are_the_same_as_decoded_here(decoders):
    from cbir_tf.data.decode import decode_image

    for picture in (encoded("JPEG"), flat_png(4200), encoded("JPEG", 3000, progressive=True)):
        pixels = asyncio.run(decoders.pixels(picture, "one"))
        np.testing.assert_array_equal(pixels, decode_image(picture, (32, 32), DATA.resize))


@pytest.mark.parametrize("scans", [101, 400])
def test_a_jpeg_of_too_many_scans_is_not_decoded(decoders, scans):
    started = time.perf_counter()
    with pytest.raises(InvalidQueryError, match="scans"):
        asyncio.run(decoders.pixels(scanned(4000, scans), "one"))
    assert time.perf_counter() - started < 10  # it would take many seconds


def test_a_picture_that_takes_too_long_is_given_up_and_the_next_one_decoded():
    decoders = Decoders(DATA, Server(decode_timeout=0.05))
    try:
        with pytest.raises(InvalidQueryError, match=r"0\.05 s"):
            asyncio.run(decoders.pixels(flat_png(6000), "one"))
        decoders._settings = Server(decode_timeout=10)
        assert asyncio.run(decoders.pixels(encoded("JPEG"), "one")).shape == (32, 32, 3)
    finally:
        decoders.close()


def test_a_picture_that_ends_its_process_is_refused_and_the_next_one_decoded(decoders):
    async def end_it() -> object:
        return await decoders._run(end_this_process, "one")

    with pytest.raises(InvalidQueryError):
        asyncio.run(end_it())
    assert asyncio.run(decoders.pixels(encoded("PNG"), "one")).shape == (32, 32, 3)


def end_this_process(light: bool) -> None:
    os._exit(1)


def test_what_is_no_picture_is_refused_for_the_same_reasons_as_ever(decoders):
    with pytest.raises(InvalidQueryError, match="not a JPEG"):
        asyncio.run(decoders.pixels(b"nothing", "one"))
    with pytest.raises(PictureTooLargeError, match="20 megapixels"):
        asyncio.run(decoders.pixels(flat_webp(7000), "one"))


def test_one_clients_slow_pictures_leave_decoders_to_others(decoders):
    async def ask() -> list[str]:
        order: list[str] = []

        async def send(name: str, picture: bytes, client: str) -> None:
            await decoders.pixels(picture, client)
            order.append(name)

        slow, quick = flat_png(4400), encoded("JPEG")
        asked = [asyncio.create_task(send("slow", slow, "one")) for _ in range(4)]
        await asyncio.sleep(0.05)
        asked += [asyncio.create_task(send("quick", quick, client)) for client in ("one", "two")]
        await asyncio.gather(*asked)
        return order

    order = asyncio.run(ask())
    assert "slow" in order[3:] and order.index("quick") < 3


def test_after_the_end_nothing_is_decoded():
    decoders = Decoders(DATA, Server())

    async def end_meanwhile() -> None:
        asked = asyncio.create_task(decoders.pixels(flat_png(6000), "one"))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(decoders.close)
        with pytest.raises(UnavailableError):
            await asked

    asyncio.run(end_meanwhile())

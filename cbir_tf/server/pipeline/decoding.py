"""Pictures from anyone are decoded in processes that are ended when they take too long."""

from __future__ import annotations

import asyncio
import io
import warnings
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from queue import LifoQueue
from typing import TypeVar

import numpy as np
from PIL import Image

from cbir_tf.config.data import Data
from cbir_tf.config.server import Server
from cbir_tf.data.decode import picture_size
from cbir_tf.data.jpeg_scans import count_scans, jpeg_size
from cbir_tf.parallel import cores, in_parallel
from cbir_tf.server.errors import InvalidQueryError, UnavailableError
from cbir_tf.server.pipeline.batcher import Batcher
from cbir_tf.server.pipeline.stored_pictures import decode_upload, thumbnail_of
from cbir_tf.server.pipeline.subprocess_worker import SubprocessWorker

Result = TypeVar("Result")
Job = tuple[Callable[..., object], tuple[object, ...]]
Sized = tuple[np.ndarray, tuple[int, int]]
"""(H, W, 3) uint8 pixels, and width and height of the picture that they are of."""

MOST_SCANS = 100
MOST_SCANNED = 1e9
"""Pixels times scans of a JPEG: 50 megapixels in 20 scans, which take some seconds."""
LIGHT = 64e6
"""Pixels times scans that take up to a quarter of a second."""
JPEG_SPEED = 4
"""How many times as fast as a picture of another kind a scan of a JPEG is decoded."""


class Decoders:
    """Decodes pictures, several at a time, each in a process of its own.

    A client has as many decoders as there are cores, and half as many for pictures that take long,
    and there are more than that, so that another client's picture always finds one.

    Args:
        data: size and resize of the encoder's input.
        settings: the limits.
    """

    def __init__(self, data: Data, settings: Server) -> None:
        self._data, self._settings = data, settings
        self._most = {True: cores(), False: max(1, cores() // 2)}  # by whether it is light
        number = sum(self._most.values()) + 1
        self._threads = ThreadPoolExecutor(number, "decoder")
        self._jobs: Batcher[Job, object] = Batcher(self._work, self._threads, 1, number)
        self._workers = [SubprocessWorker(prepare) for _ in range(number)]
        # Last in, first out: as many processes are started as are needed at a time.
        self._free: LifoQueue[SubprocessWorker] = LifoQueue()
        for worker in reversed(self._workers):
            self._free.put(worker)
        self._closed = False

    async def pixels(self, picture: bytes, client: str, data: Data | None = None) -> np.ndarray:
        """Pixels for the encoder, of a picture from anyone.

        Args:
            picture: encoded.
            client: whose turn it takes.
            data: size and resize of another encoder's input.

        Returns:
            (H, W, 3) uint8.

        Raises:
            ServiceError: not a picture, damaged, too large, or too much work.
        """
        limit = self._settings.max_megapixels
        return await self._run(pixels_of, client, picture, data or self._data, limit)

    async def sized(self, picture: bytes, client: str, max_megapixels: float) -> Sized:
        """As `pixels`, with the picture's size."""
        return await self._run(sized_pixels_of, client, picture, self._data, max_megapixels)

    async def thumbnail(self, picture: bytes, client: str) -> bytes:
        """A small JPEG of a stored picture.

        Raises:
            ServiceError: as `pixels`.
        """
        return await self._run(small_jpeg_of, client, picture, self._settings.thumbnail_size)

    def start(self) -> None:
        """Start all processes, so that nobody's picture waits for that."""
        deque(in_parallel(lambda worker: worker.run(prepare), self._workers), maxlen=0)

    def close(self) -> None:
        """End the processes, also in the middle of a picture."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()

    async def _run(
        self, function: Callable[..., Result | None], client: str, *arguments: object
    ) -> Result:
        seconds = self._settings.request_timeout
        try:
            async with asyncio.timeout(seconds):
                for light in (True, False):
                    job = function, (light, *arguments)
                    result, _ = await self._jobs.submit(job, (client, light), self._most[light])
                    if result is not None:
                        return result  # type: ignore[return-value]
        except TimeoutError:
            pass
        raise UnavailableError("too many pictures wait to be decoded; try again")

    def _work(self, jobs: list[Job]) -> list[object]:
        ((function, arguments),) = jobs
        worker, seconds = self._free.get(), self._settings.decode_timeout
        try:
            return [worker.run(function, *arguments, seconds=seconds)]
        except TimeoutError:
            raise InvalidQueryError(
                f"the picture: decoding it takes more than {seconds:g} s; scale it down, or save "
                "it as a plain JPEG"
            ) from None
        except BrokenProcessPool:
            if self._closed:
                raise UnavailableError("the service is ending") from None
            raise InvalidQueryError("the picture: it cannot be decoded; save it anew") from None
        except OSError as error:
            raise UnavailableError(f"no decoder could be started ({error}); try again") from None
        finally:
            self._free.put(worker)


# --- in the processes: None for a picture that is more work than a light one ----------------------


def prepare() -> None:
    """Import what pictures are decoded with."""
    Image.preinit()


def pixels_of(light: bool, picture: bytes, data: Data, max_megapixels: float) -> np.ndarray | None:
    """See `Decoders.pixels`."""
    if light and not is_light(picture, max_megapixels):
        return None
    return decode_upload(picture, data, max_megapixels)


def sized_pixels_of(light: bool, picture: bytes, data: Data, max_megapixels: float) -> Sized | None:
    """See `Decoders.sized`."""
    pixels = pixels_of(light, picture, data, max_megapixels)
    return None if pixels is None else (pixels, picture_size(picture))


def small_jpeg_of(light: bool, picture: bytes, side: int) -> bytes | None:
    """See `Decoders.thumbnail`."""
    if light and not is_light(picture, np.inf):
        return None
    return thumbnail_of(picture, side)


def is_light(picture: bytes, max_megapixels: float) -> bool:
    """Whether decoding a picture, or finding out that it cannot be done, takes little time.

    Raises:
        InvalidQueryError: a JPEG of more scans than are decoded.
    """
    scans, (width, height) = count_scans(picture), jpeg_size(picture)
    if scans:
        if scans > MOST_SCANS or scans * width * height > MOST_SCANNED:
            raise InvalidQueryError(
                f"the picture: {scans} scans of {width} x {height} pixels are too much work to "
                "decode; save it as a plain JPEG"
            )
        work = scans * width * height
    else:
        width, height = _size(picture)
        work = JPEG_SPEED * width * height
    return work <= LIGHT or width * height > 1e6 * max_megapixels


def _size(picture: bytes) -> tuple[int, int]:
    """Width and height by the picture's head; zeros where there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(io.BytesIO(picture), formats=("PNG", "WEBP", "BMP", "GIF")).size
    except Exception:  # whatever Pillow stumbles over is told when the picture is decoded
        return 0, 0

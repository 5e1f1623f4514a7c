"""Pictures that are encoded in one batch."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np

from cbir_tf.config import Config
from cbir_tf.run import Run
from cbir_tf.server.errors import InvalidQueryError
from cbir_tf.server.pipeline.queries import Steps
from cbir_tf.server.pipeline.service import Service


def test_each_image_of_a_batch_is_answered_and_only_a_bad_one_fails(served_folder, photos: Path):
    run = Run.open(served_folder)
    pictures = [each.read_bytes() for each in sorted(photos.glob("*/0[0-3].jpg"))]
    service = Service(run, Config.load(run.config_file))
    sizes: list[int] = []
    encode = service.gallery.encode

    def noticed(pixels: list[np.ndarray]) -> np.ndarray:
        sizes.append(len(pixels))
        if len(sizes) <= 2:
            time.sleep(1)  # the others are decoded meanwhile
        return encode(pixels)

    service.gallery.encode = noticed

    async def searched() -> list:
        searches = (service.search(Steps(k=1), each, None) for each in [*pictures, b"no picture"])
        return await asyncio.gather(*searches, return_exceptions=True)

    try:
        *found, failed = asyncio.run(searched())
    finally:
        service.close()
    expected = [each.relative_to(photos).as_posix() for each in sorted(photos.glob("*/0[0-3].jpg"))]
    assert [hits.ids for hits, _ in found] == [[each] for each in expected]
    assert isinstance(failed, InvalidQueryError)
    assert sum(sizes) == len(pictures) and max(sizes) > 1
    for _, seconds in found:
        assert seconds["read"] > 0 and seconds["encode"] > 0 and seconds["search"] > 0
        stages = sum(value for stage, value in seconds.items() if stage != "total")
        assert abs(stages - seconds["total"]) < 1e-6

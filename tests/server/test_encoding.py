"""Pictures of a batch encoded side by side."""

from __future__ import annotations

import asyncio
from collections import deque

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from cbir_tf.config import Config
from cbir_tf.run import Run
from cbir_tf.server import live_gallery
from cbir_tf.server.pipeline.batcher import Batch
from cbir_tf.server.pipeline.queries import Query, Steps
from cbir_tf.server.pipeline.service import Job, Service


def test_each_has_its_own_vector_and_only_a_bad_one_fails(served_folder, monkeypatch):
    monkeypatch.setattr(live_gallery, "PIECE_PIXELS", 1)  # so even small pictures go one by one
    run = Run.open(served_folder)
    height, width = run.config.data.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (5, height, width, 3), np.uint8)
    service = Service(run, Config.load(run.config_file))
    assert service.gallery.side_by_side is not None

    async def encoded() -> tuple[list[Job], list[object]]:
        loop = asyncio.get_running_loop()
        pictures = [*pixels, np.zeros((height, width, 4), np.uint8)]
        jobs = [Job(loop.create_future(), asked=Query(Steps(k=3), each)) for each in pictures]
        waiting = deque(jobs)
        service._encode(Batch(len(jobs), waiting.popleft))
        return jobs, await asyncio.gather(*(job.done for job in jobs), return_exceptions=True)

    try:
        jobs, ends = asyncio.run(encoded())
        expected = service.gallery.encode(list(pixels))
        found = service.gallery.find([(job.asked, job.vector) for job in jobs[:5]])
    finally:
        service.close()
    assert ends[:5] == [None] * 5 and isinstance(ends[5], Exception)
    for job, vector, hits in zip(jobs, expected, found, strict=False):
        np.testing.assert_allclose(job.vector, vector, atol=1e-5)
        assert job.result.ids == hits.ids and job.seconds["encode"] > 0

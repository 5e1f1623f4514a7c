"""What the service does, whoever asks: which thread each step is done by.

    reader threads    take requests apart and decode pictures, side by side
    the encoder       encodes batch after batch, with threads of its own: a core takes picture after
                      picture, and begins when it has nothing to read any more
    the engine        one thread: searches batch after batch, adds and removes
    picture threads   read stored pictures, place images on the map
    the explainer     waits for another process to say why images match

Searches and additions go from thread to thread without the event loop, which each of its turns
would cost as much as their JSON; it is told when a batch is through.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from cbir_tf.config import Config
from cbir_tf.data.decode import MOST_PIXELS, ImageError, picture_size
from cbir_tf.errors import UserError
from cbir_tf.features.runtime import OnnxEncoder
from cbir_tf.features.views import viewed
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.server.http.bodies import AdditionBody, ExplainBody, QueryBody, SearchBody, parse
from cbir_tf.server.http.errors import RequestError, impossible
from cbir_tf.server.http.metrics import Metrics
from cbir_tf.server.pipeline.aside import Aside
from cbir_tf.server.pipeline.batcher import Batch, Batcher
from cbir_tf.server.pipeline.crew import Crew
from cbir_tf.server.pipeline.embedding_map import EmbeddingMap
from cbir_tf.server.pipeline.explanation import (
    Area,
    Explanation,
    area_of,
    explanation,
    shares_of,
    why_not,
)
from cbir_tf.server.pipeline.live_gallery import LiveGallery
from cbir_tf.server.pipeline.pictures import StoredPictures, decode_upload
from cbir_tf.server.pipeline.queries import Addition, Hits, Query, Steps
from cbir_tf.types import Embeddings

Result = TypeVar("Result")

Read = Callable[[bytes, str], tuple[Any, Query | Addition]]
"""From a request's body and its content type to its fields and what is asked."""

STAGES = ("read", "wait", "encode", "search")
MOST_MEGAPIXELS = MOST_PIXELS / 1e6  # of stored pictures


@dataclass(eq=False)
class Job:
    """A search or an addition on its way through the threads.

    Attributes:
        done: what the request waits for.
        began: when, by `time.perf_counter`.
        body: the request's fields.
        asked: a Query or an Addition: the same, with the picture decoded.
        vector: (D,) float32, of the picture; None for a stored image.
        result: of the engine.
        error: what came up instead.
        seconds: that each stage took: of a batch, where it was one's.
    """

    done: asyncio.Future[None]
    began: float = field(default_factory=time.perf_counter)
    body: Any = None
    asked: Any = None
    vector: Any = None
    result: Any = None
    error: Exception | None = None
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))


class Service:
    """A run, open to be asked.

    Args:
        run: a trained run.
        config: its configuration, with whatever is set for this service.

    Raises:
        UserError: as `LiveGallery`.
    """

    def __init__(self, run: Run, config: Config) -> None:
        self.run, self.config, self.settings = run, config, config.server
        self.draining, self.key_needed, self._closed = False, False, False
        self.no_explanation = why_not(config)
        self.metrics = Metrics()
        self.data = viewed(config.data, config.search)
        cores = len(os.sched_getaffinity(0))
        self._encoder = ThreadPoolExecutor(1, "encoder")
        self._engine = ThreadPoolExecutor(1, "engine")
        self._readers = Crew(self._read, max(2, cores), "reader")
        self._others = ThreadPoolExecutor(4, "picture")
        self._explainer = ThreadPoolExecutor(1, "explainer")  # waits for seconds, at first
        self.gallery: LiveGallery = self._engine.submit(LiveGallery, run, config.search).result()
        self.metrics.images.set(len(self.gallery))
        self._stages = {each: self.metrics.stages.labels(each) for each in STAGES}
        self._lock, self._reading = threading.Lock(), 0
        most = self.settings.batch
        threads = 1 if self.gallery.side_by_side is None else cores
        self._to_encode: Batcher[Job] = Batcher(self._encode, self._encoder, most, threads)
        self._to_engine: Batcher[Job] = Batcher(self._work, self._engine, most)
        metric, method = config.search.metric, config.plots.projection
        self.map = EmbeddingMap(run.index, method, self.settings.mapped, config.seed, metric)
        self._aside = Aside()
        retriever = self.gallery.retriever
        self.pictures = StoredPictures(
            run.features, lambda: retriever.encoded, self.settings.thumbnail
        )

    def close(self) -> None:
        """End the threads, once they have done what they were asked; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self.map.close()
        self._aside.close()
        self._readers.close()
        for pool in (self._encoder, self._others, self._explainer):
            pool.shutdown(wait=True, cancel_futures=True)
        self._engine.submit(self.gallery.close).result()
        self._engine.shutdown(wait=True)

    async def search(self, body: bytes, content_type: str) -> tuple[SearchBody, Hits, dict]:
        """What a search finds, and how many seconds each stage took.

        Raises:
            RequestError: it cannot be answered.
        """
        try:
            job = await self._through(self._read_query, body, content_type)
        except UserError as error:
            raise self._refusal(error) from None
        total = time.perf_counter() - job.began
        seconds = {**job.seconds, "wait": max(0.0, total - sum(job.seconds.values()))}
        for stage, value in seconds.items():
            self._stages[stage].observe(value)
        return job.body, job.result, {**seconds, "total": total}

    async def add(self, body: bytes, content_type: str) -> tuple[AdditionBody, str, bool]:
        """Add a picture; its id, and whether it is new. On the disk when this returns.

        Raises:
            RequestError: it cannot be read, or not be stored.
        """
        if self.config.search.two_step.run is not None:
            raise RequestError(
                409,
                "images cannot be added while another run says of which class they are "
                "(search.two_step.run): extract them in both runs, then start the service again",
            )
        try:
            job = await self._through(self._read_addition, body, content_type)
        except UserError as error:
            raise self._not_stored(error) from None
        self.metrics.images.set(len(self.gallery))
        id_, is_new = job.result
        return job.body, id_, is_new

    async def remove(self, id_: str) -> None:
        """Take an image out; on the disk when this returns.

        Raises:
            RequestError: 404, no such image.
        """
        await self._in(self._engine, self._remove, id_)
        self.metrics.images.set(len(self.gallery))
        self.pictures.forget(id_)

    async def picture(self, id_: str) -> tuple[bytes, str]:
        """See `StoredPictures.read`."""
        return await self._in(self._others, self.pictures.read, id_)

    async def thumbnail(self, id_: str) -> bytes:
        """See `StoredPictures.thumbnail`."""
        return await self._in(self._others, self.pictures.thumbnail, id_)

    async def mapped(self) -> tuple[Embeddings, np.ndarray] | None:
        """See `EmbeddingMap.of`."""
        return await self._in(self._others, self.map.of, lambda: self.gallery.embeddings)

    async def position(self, vector: np.ndarray) -> tuple[float, float] | None:
        """Where an image is on the map; None while there is no map."""
        layout = self.map.layout
        if layout is None:
            self.map.begin(lambda: self.gallery.embeddings)
        if layout is None or not len(layout.images):
            return None
        metric = self.map.metric
        x, y = (await self._in(self._others, layout.place, vector[np.newaxis], metric))[0]
        return float(x), float(y)

    async def explain(self, body: bytes, content_type: str) -> tuple[Explanation, Area, Area]:
        """Why a query and a stored image match, and which parts of them the model sees.

        Raises:
            RequestError: 409, with such a run it cannot be told.
        """
        if self.no_explanation is not None:
            raise RequestError(409, f"this run cannot say why images match: {self.no_explanation}")
        return await self._in(self._explainer, self._explain, body, content_type)

    def some(self, count: int) -> list[tuple[str, str | None]]:
        """Id and label of some images, drawn without replacement."""
        stored = self.gallery.embeddings
        names = (*self.gallery.class_names, None)
        rows = random.sample(range(len(stored)), min(count, len(stored)))
        return [(str(stored.ids[row]), names[int(stored.labels[row])]) for row in rows]

    async def _in(
        self, pool: ThreadPoolExecutor, function: Callable[..., Result], *arguments: Any
    ) -> Result:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)

    async def _through(self, read: Read, body: bytes, content_type: str) -> Job:
        """Have a request read, encoded and worked on.

        Raises:
            Exception: what any of the threads has for it.
        """
        job = Job(asyncio.get_running_loop().create_future())
        with self._lock:
            self._reading += 1
        self._readers.put((job, read, body, content_type))
        await job.done
        return job

    # --- by the reader threads ------------------------------------------------------------------

    def _read(self, asked: tuple[Job, Read, bytes, str]) -> None:
        job, read, body, content_type = asked
        pictures = []
        try:
            job.body, job.asked = read(body, content_type)
        except Exception as error:
            self._fail([job], error)
        else:
            job.seconds["read"] = time.perf_counter() - job.began
            if job.asked.pixels is None:
                self._to_engine.put([job])
            else:
                pictures.append(job)
        with self._lock:
            self._reading -= 1
            self._to_encode.put(pictures, announced=self._reading)

    def _read_query(self, body: bytes, content_type: str) -> tuple[SearchBody, Query]:
        asked = parse(SearchBody, body, content_type)
        if asked.k is not None and asked.k > self.settings.most_neighbours:
            raise RequestError(422, f"k: at most {self.settings.most_neighbours} neighbours")
        steps = Steps(asked.k, asked.where, asked.re_ranking, asked.two_step)
        picture, pixels = self._query_pixels(asked)
        return asked, Query(steps, pixels, picture, asked.id)

    def _query_pixels(self, asked: QueryBody) -> tuple[bytes, np.ndarray | None]:
        if "id" in asked.given():
            if str(asked.id) not in self.gallery:
                raise RequestError(404, f"{str(asked.id)[:200]!r}: no image of that id")
            return b"", None
        picture = asked.picture()
        return picture, decode_upload(picture, self.data, self.settings.megapixels)

    def _read_addition(self, body: bytes, content_type: str) -> tuple[AdditionBody, Addition]:
        asked = parse(AdditionBody, body, content_type)
        picture = asked.picture()
        pixels = decode_upload(picture, self.data, self.settings.megapixels)
        return asked, Addition(pixels, picture, asked.label, asked.metadata)

    # --- by the explainer -----------------------------------------------------------------------

    def _explain(self, body: bytes, content_type: str) -> tuple[Explanation, Area, Area]:
        asked = parse(ExplainBody, body, content_type)
        own = self.pictures.read(str(asked.id))[0] if "id" in asked.given() else asked.picture()
        other = self.pictures.read(asked.match)[0]
        data, most = self.data, self.settings.megapixels
        pixels = [decode_upload(own, data, most), decode_upload(other, data, MOST_MEGAPIXELS)]
        try:
            shares, kind = self._aside.run(shares_of, self.run.model, np.stack(pixels))
        except UserError as error:
            raise RequestError(409, f"this run cannot say why images match: {error}") from None
        except BrokenProcessPool:
            raise RequestError(503, "the explanation was ended; ask again", 1) from None
        except OSError as error:  # as in AWS Lambda
            text = f"matches cannot be explained here: no other process can be started ({error})"
            raise RequestError(409, text) from None
        first, second = (
            area_of(picture_size(each), data.image_size, data.resize) for each in (own, other)
        )
        return explanation(shares, kind, self.gallery.retriever.gallery.whitening), first, second

    # --- by the encoder -------------------------------------------------------------------------

    def _encode(self, batch: Batch[Job]) -> None:
        began = time.perf_counter()
        encoder = self.gallery.side_by_side
        if encoder is None or batch.size == 1:
            self._encode_together(list(batch))
        else:
            encoder.by_all_cores(partial(self._encode_some, batch, encoder))
        self.metrics.batches.observe(len(batch.taken))
        seconds = time.perf_counter() - began
        encoded = [job for job in batch.taken if job.error is None]
        for job in encoded:
            job.seconds["encode"] = seconds
        self._to_engine.put(encoded)

    def _encode_together(self, jobs: list[Job]) -> None:
        """By all cores, of which each has its part, or all of them the only one."""
        try:
            vectors = self.gallery.encode([job.asked.pixels for job in jobs])
        except Exception as error:
            self._fail(jobs, error)
            return
        for job, vector in zip(jobs, vectors, strict=True):
            job.vector = vector

    def _encode_some(self, batch: Batch[Job], encoder: OnnxEncoder) -> None:
        """By one core, which takes the next picture until there is none."""
        for job in batch:
            try:
                job.vector = encoder.one(job.asked.pixels)
            except Exception as error:
                self._fail([job], error)

    # --- by the engine --------------------------------------------------------------------------

    def _work(self, batch: Batch[Job]) -> None:
        began = time.perf_counter()
        jobs = list(batch)
        searches = [job for job in jobs if isinstance(job.asked, Query)]
        try:
            found = self.gallery.find([(job.asked, job.vector) for job in searches])
        except Exception as error:
            self._fail(searches, error)
        else:
            seconds = time.perf_counter() - began
            for job, hits in zip(searches, found, strict=True):
                job.seconds["search"] = seconds
                if isinstance(hits, Exception):
                    job.error = hits
                else:
                    job.result = hits
            self._settle(searches)
        for job in jobs:
            if isinstance(job.asked, Addition):
                try:
                    job.result = self.gallery.add(job.asked, job.vector)
                except Exception as error:
                    job.error = error
                self._settle([job])

    def _remove(self, id_: str) -> None:
        if id_ not in self.gallery:
            raise RequestError(404, f"{id_[:200]!r}: no image of that id")
        try:
            self.gallery.remove(id_)
        except UserError as error:
            raise self._not_stored(error) from None

    def _refusal(self, error: UserError) -> RequestError:
        if isinstance(error, ImageError):
            return RequestError(422, f"the picture: {error.reason}")
        if not len(self.gallery):
            return RequestError(409, "the gallery is empty: add images to it, then search")
        return impossible(error, self.run.folder)

    def _not_stored(self, error: UserError) -> RequestError:
        logger.error("%s", error)
        return RequestError(507, "the service cannot write to its disk; nothing has changed")

    # --- by the last of them to be done with a batch --------------------------------------------

    def _fail(self, jobs: list[Job], error: Exception) -> None:
        for job in jobs:
            job.error = error
        self._settle(jobs)

    def _settle(self, jobs: list[Job]) -> None:
        """Have the event loop tell the requests, all in one turn."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
        for job in jobs:
            by_loop.setdefault(job.done.get_loop(), []).append(job)
        for loop, theirs in by_loop.items():
            with contextlib.suppress(RuntimeError):  # it has ended, and no one waits any more
                loop.call_soon_threadsafe(_tell, theirs)


def _tell(jobs: list[Job]) -> None:
    for job in jobs:
        if job.done.done():  # the request has been given up
            continue
        if job.error is None:
            job.done.set_result(None)
        else:
            job.done.set_exception(job.error)

"""A run that answers searches, additions and removals, each step in its thread.

docs/architecture.md has a drawing of the threads.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from cbir_tf.config import Config
from cbir_tf.data.decode import MOST_PIXELS, ImageError
from cbir_tf.errors import UserError
from cbir_tf.features.views import viewed
from cbir_tf.progress import logger
from cbir_tf.run import Run
from cbir_tf.server.errors import (
    ImageNotFoundError,
    InvalidQueryError,
    NotPossibleError,
    NotStoredError,
    no_such_image,
)
from cbir_tf.server.pipeline.batcher import Batcher
from cbir_tf.server.pipeline.decoding import Decoders, Sized
from cbir_tf.server.pipeline.explanation import Area, Explainer, Explanation, why_not
from cbir_tf.server.pipeline.live_gallery import LiveGallery
from cbir_tf.server.pipeline.map_layout import EmbeddingMap
from cbir_tf.server.pipeline.queries import Addition, Query, Steps
from cbir_tf.server.pipeline.stored_pictures import StoredPictures
from cbir_tf.server.prometheus_metrics import Metrics
from cbir_tf.types import Embeddings, Results

Result = TypeVar("Result")
Search = tuple[Query, np.ndarray | None]
"""A query with its (D,) vector; None for a stored image."""
Explained = tuple[Explanation, Area, Area]


class Service:
    """A run that answers; its coroutines belong to one event loop.

    Args:
        run: a trained run.
        config: its configuration, with the settings of this service.

    Raises:
        UserError: as `LiveGallery`.
    """

    def __init__(self, run: Run, config: Config) -> None:
        self.run, self.config, self.settings = run, config, config.server
        self.no_explanation = why_not(config)
        self.metrics = Metrics()
        self.data = viewed(config.data, config.search)
        self.decoders = Decoders(self.data, self.settings)
        self._encoder = ThreadPoolExecutor(1, "encoder")
        self._engine = ThreadPoolExecutor(1, "engine")
        self._changer = ThreadPoolExecutor(1, "changer")
        self._others = ThreadPoolExecutor(4, "picture")
        self._explaining = ThreadPoolExecutor(1, "explainer")  # waits for seconds, at first
        self._learning: dict[str | None, asyncio.Future[None]] = {}
        read_only = config.server.read_only
        self.gallery = self._engine.submit(LiveGallery, run, config.search, read_only).result()
        self.metrics.images.set(len(self.gallery))
        size = self.settings.max_batch_size
        self._encoding: Batcher[np.ndarray, np.ndarray] = Batcher(self._encode, self._encoder, size)
        self._searching: Batcher[Search, Results] = Batcher(self._find, self._engine, size)
        self.map = EmbeddingMap(
            run.index,
            config.plots.layout,
            self.settings.map_max_images,
            config.seed,
            config.search.metric,
        )
        self.pictures = StoredPictures(run.features, self._pictures_without_file)
        self._explainer = Explainer(run.model, self.data)
        self._explanations: Batcher[tuple[Sized, Sized], Explained] = Batcher(
            self._explain, self._explaining, 1
        )
        self._closed = False

    def warm_up(self) -> None:
        """Do once what takes longer the first time, so that the first search is as fast as any.

        That is starting the decoders, encoding one picture and several, and searching.
        """
        self.decoders.start()
        height, width = self.data.image_size
        blank = np.zeros((height, width, 3), np.uint8)
        for number in {1, 2, self.settings.max_batch_size}:
            vectors = self._encoder.submit(self.gallery.encode, [blank] * number).result()
        if not len(self.gallery):
            return
        plain, other = Steps(), self.gallery.other_data(Steps())
        with suppress(UserError):  # which is for those to hear who search so
            self.gallery.learn(plain)
            if other is not None:
                pixels = np.zeros((*other.image_size, 3), np.uint8)
                self._encoder.submit(self.gallery.shares, plain, pixels).result()
        some = self.gallery.embeddings.ids[:1].tolist()
        for query, vector in ((Query(plain), vectors[0]), (Query(plain, id=some[0]), None)):
            self._engine.submit(self.gallery.find, [(query, vector)]).result()

    def close(self) -> None:
        """End the threads after their running work, decoding at once; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self.map.close()
        self._explainer.close()
        self.decoders.close()
        pools = (self._encoder, self._engine, self._changer, self._others, self._explaining)
        for pool in pools:
            pool.shutdown(wait=True, cancel_futures=True)
        self.gallery.close()

    async def search(
        self, steps: Steps, picture: bytes | None, id_: str | None, client: str = ""
    ) -> tuple[Results, dict[str, float]]:
        """Search for a picture, or for a stored image.

        Args:
            steps: how to search.
            picture: encoded; None with an id.
            id_: of a stored image; None with a picture.
            client: who asks, and takes turns with others.

        Returns:
            The results of one query, and seconds by stage: read, wait (for batches), encode and
            search (of the whole batch), total.

        Raises:
            ServiceError: the picture, the id or a step is not possible.
        """
        start = time.perf_counter()
        seconds = {"read": 0.0, "wait": 0.0, "encode": 0.0, "search": 0.0}
        if steps.k is not None and steps.k > self.settings.max_neighbours:
            raise InvalidQueryError(f"k: at most {self.settings.max_neighbours} neighbours")
        vector = None
        if picture is None:
            self._check_id(str(id_))
        else:
            pixels = await self.decoders.pixels(picture, client)
            seconds["read"] = time.perf_counter() - start
            vector, seconds["encode"] = await self._encoding.submit(pixels, client)
        try:
            if not self.gallery.has_selected(steps.where):
                await self._in(self._others, self.gallery.select, steps.where)
            while not self.gallery.has_learnt(steps):
                await self._learn(steps)
            query = Query(steps, await self._shares(steps, picture, client), id_)
            results, seconds["search"] = await self._searching.submit((query, vector), client)
        except UserError as error:
            raise self._refusal(error) from None
        total = time.perf_counter() - start
        seconds["wait"] = max(0.0, total - sum(seconds.values()))
        for stage, value in seconds.items():
            self.metrics.stages.labels(stage).observe(value)
        return results, {**seconds, "total": total}

    async def add(
        self,
        picture: bytes,
        label: str | None,
        metadata: dict[str, str | float],
        client: str = "",
    ) -> tuple[str, bool]:
        """Add a picture; on the disk when this returns.

        Returns:
            Its id, and whether it is new.

        Raises:
            ServiceError: the picture could not be read or stored.
        """
        if self.config.search.two_step.run is not None:
            raise NotPossibleError(
                "images cannot be added while the classes come from another run "
                "(search.two_step.run): extract them in both runs, then start the service again"
            )
        pixels = await self.decoders.pixels(picture, client)
        vector, _ = await self._encoding.submit(pixels, client)
        addition = Addition(picture, label, metadata)
        try:
            id_, is_new = await self._in(self._changer, self.gallery.add, addition, vector)
        except UserError as error:
            raise _not_stored(error) from None
        self.metrics.images.set(len(self.gallery))
        return id_, is_new

    async def remove(self, id_: str) -> None:
        """Remove an image; on the disk when this returns.

        Raises:
            ServiceError: there is no such image, or the disk could not be written.
        """
        await self._in(self._changer, self._remove, id_)
        self.metrics.images.set(len(self.gallery))

    async def picture(self, id_: str) -> tuple[bytes, str]:
        """See `StoredPictures.read`."""
        return await self._in(self._others, self.pictures.read, id_)

    async def thumbnail(self, id_: str, client: str = "") -> bytes:
        """A small JPEG of a stored picture.

        Raises:
            ServiceError: no such image, or its file is missing or no picture any more.
        """
        found = await self._in(self._others, self.pictures.thumbnail, id_)
        if isinstance(found, bytes):
            return found
        picture, removals = found
        try:
            small = await self.decoders.thumbnail(picture, client)
        except InvalidQueryError as error:
            raise ImageNotFoundError(f"{id_[:200]!r}: {error}") from None
        self.pictures.keep_thumbnail(id_, small, removals)
        return small

    async def mapped(self) -> tuple[Embeddings, np.ndarray] | None:
        """See `EmbeddingMap.of`."""
        return await self._in(self._others, self.map.of, self._embeddings)

    async def position(self, vector: np.ndarray) -> tuple[float, float] | None:
        """The point on the map of a (D,) vector; None while there is no map."""
        layout = self.map.layout
        if layout is None:
            self.map.begin(self._embeddings)
        if layout is None or not len(layout.images):
            return None
        metric = self.map.metric
        x, y = (await self._in(self._others, layout.place, vector[np.newaxis], metric))[0]
        return float(x), float(y)

    async def explain(
        self, match: str, picture: bytes | None, id_: str | None, client: str = ""
    ) -> Explained:
        """Why a query and the stored image `match` match: see `Explainer.explain`.

        Raises:
            ServiceError: there is no such image, or matches of this run cannot be explained.
        """
        if self.no_explanation is not None:
            raise NotPossibleError(
                f"matches of this run cannot be explained: {self.no_explanation}"
            )
        query_limit, stored_limit = self.settings.max_megapixels, MOST_PIXELS / 1e6
        if picture is None:
            picture, query_limit = (await self.picture(str(id_)))[0], stored_limit
        other = (await self.picture(match))[0]
        pair = (
            await self.decoders.sized(picture, client, query_limit),
            await self.decoders.sized(other, client, stored_limit),
        )
        return (await self._explanations.submit(pair, client))[0]

    def sample(self, count: int) -> list[tuple[str, str | None]]:
        """Id and label of some images, drawn without replacement."""
        stored = self._embeddings()
        names = (*self.gallery.class_names, None)
        rows = random.sample(range(len(stored)), min(count, len(stored)))
        return [(str(stored.ids[row]), names[int(stored.labels[row])]) for row in rows]

    # --- in the event loop ----------------------------------------------------------------------

    async def _in(
        self, pool: ThreadPoolExecutor, function: Callable[..., Result], *arguments: object
    ) -> Result:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)

    async def _shares(self, steps: Steps, picture: bytes | None, client: str) -> np.ndarray | None:
        """(C,) probabilities of a picture's classes, where another run gives them."""
        data = self.gallery.other_data(steps)
        if picture is None or data is None:
            return None
        pixels = await self.decoders.pixels(picture, client, data)
        return await self._in(self._encoder, self.gallery.shares, steps, pixels)

    async def _learn(self, steps: Steps) -> None:
        """Fit a classifier, once however many wait for it, and also if they give up.

        Raises:
            UserError: as `LiveGallery.learn`.
        """
        name = steps.two_step
        if name not in self._learning:

            def ended(future: asyncio.Future[None]) -> None:
                del self._learning[name]
                future.exception()  # has been looked at, also if nobody waits any more

            self._learning[name] = _in_daemon_thread(self.gallery.learn, steps)
            self._learning[name].add_done_callback(ended)
        await asyncio.shield(self._learning[name])

    def _check_id(self, id_: str) -> None:
        if id_ not in self.gallery:
            raise no_such_image(id_)

    def _refusal(self, error: UserError) -> Exception:
        if isinstance(error, ImageError):
            return InvalidQueryError(f"the picture: {error.reason}")
        if not len(self.gallery):
            return NotPossibleError("the gallery is empty: add images to it, then search")
        # The path of the run is not for the client, nor what another run lacks.
        text, folder = " ".join(str(error).split()), self.run.folder
        other = self.gallery.retriever.other
        if other is not None and str(other.run.folder) in text:
            logger.error("%s", error)
            return NotPossibleError(
                "another run has the classes of this search and cannot give them; search with "
                "two_step none, or see the service's log"
            )
        return InvalidQueryError(text.replace(f"{folder}/", "").replace(str(folder), "the run"))

    def _embeddings(self) -> Embeddings:
        return self.gallery.embeddings

    # --- in the threads -------------------------------------------------------------------------

    def _encode(self, pixels: list[np.ndarray]) -> Sequence[np.ndarray]:
        self.metrics.batches.observe(len(pixels))
        return list(self.gallery.encode(pixels))

    def _find(self, searches: list[Search]) -> Sequence[Results | Exception]:
        return self.gallery.find(searches)

    def _remove(self, id_: str) -> None:
        self._check_id(id_)
        try:
            self.gallery.remove(id_)
        except UserError as error:
            raise _not_stored(error) from None
        self.pictures.forget(id_)  # here, as no one may wait for the removal any more

    def _explain(self, pairs: list[tuple[Sized, Sized]]) -> Sequence[Explained]:
        whitening = self.gallery.retriever.gallery.whitening
        return [self._explainer.explain(*pair, whitening) for pair in pairs]

    def _pictures_without_file(self) -> Mapping[str, Path | bytes]:
        return self.gallery.retriever.encoded


def _not_stored(error: UserError) -> NotStoredError:
    logger.error("%s", error)
    return NotStoredError("the disk could not be written and nothing has changed; see the log")


def _in_daemon_thread(function: Callable[[Steps], None], steps: Steps) -> asyncio.Future[None]:
    """Call a function in a thread that the end of the program does not wait for."""
    done: Future[None] = Future()

    def call() -> None:
        try:
            function(steps)
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return asyncio.wrap_future(done)

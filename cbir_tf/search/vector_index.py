"""One gallery for every back end: the bookkeeping, and exact distances for what it proposes."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cbir_tf.config.arguments import of_kind
from cbir_tf.errors import UserError
from cbir_tf.parallel import blocks, in_parallel
from cbir_tf.search.back_end import BackEnd
from cbir_tf.search.distances import (
    between,
    distances_in,
    find_metric,
    positions_in,
    sorting_keys,
)
from cbir_tf.search.index import check_search, known_positions, positions_of
from cbir_tf.search.index_manifest import Manifest
from cbir_tf.search.recall import SAMPLE_K
from cbir_tf.search.threads import limited_to, threads_for
from cbir_tf.storage.addresses import path_of
from cbir_tf.types import UNLABELLED, Embeddings, Results

CANDIDATES_BEYOND_K = 8
BLOCK_VALUES, CACHED_VALUES = 2**21, 2**18  # the second is what a processor's cache holds
NONE = 2**31 - 1  # what -1 sorts as
NOTHING = Embeddings(np.empty(0, str), np.empty((0, 0)), np.empty(0))


class GalleryIndex:
    """A back end's candidates in their true order (see `cbir_tf.search.index.Index`).

    The back end proposes; distances are then computed from the differences of the stored vectors
    (see `cbir_tf.search.distances`), and more are requested until nothing beyond them can be as
    near as the k-th. So ties across rank k are settled by id, and a query has the same neighbours
    and distances alone and in a batch. With an approximate back end the same holds among what it
    proposes.

    Args:
        back_end: proposes the candidates.
        metric: cosine, euclidean, manhattan or minkowski-P.

    Raises:
        UserError: no such metric.
    """

    def __init__(self, back_end: BackEnd, metric: str = "cosine") -> None:
        self.metric = metric
        self.back_end = back_end
        self._metric = find_metric(metric)
        self._gallery = NOTHING

    def __len__(self) -> int:
        return len(self._gallery)

    @property
    def gallery(self) -> Embeddings:
        """What is searched, in order of id."""
        return self._gallery

    @property
    def is_exact(self) -> bool:
        """Whether the nearest neighbours are always found."""
        return self.back_end.is_exact

    def fit(self, embeddings: Embeddings) -> GalleryIndex:
        """Make these the gallery, in place of any earlier one; nothing else is kept."""
        advice = "Embeddings(ids, vectors, labels)"
        self._gallery = _by_id(of_kind(embeddings, Embeddings, "gallery", advice))
        if len(self):
            self.back_end.fit(self._gallery.vectors, self._metric)
        return self

    def with_added(self, embeddings: Embeddings) -> GalleryIndex:
        """A snapshot with more vectors; this one stays as it is and can be searched meanwhile.

        Args:
            embeddings: vectors of ids that are not in the gallery.

        Raises:
            UserError: an id is already there, or the vectors have another dimension.
        """
        here, more = self._gallery, _by_id(embeddings)
        if not len(here):
            return GalleryIndex(copy.copy(self.back_end), self.metric).fit(more)
        there = np.flatnonzero(positions_of(more.ids, here.ids) >= 0)
        if len(there):
            known = str(more.ids[there[0]])
            raise UserError(f"{known!r} is in the gallery already; remove it first")
        if here.vectors.shape[1] != more.vectors.shape[1]:
            raise UserError(
                f"the vectors to add have dimension {more.vectors.shape[1]}, the gallery's have "
                f"{here.vectors.shape[1]}; use the model that made the gallery"
            )
        positions = np.searchsorted(here.ids, more.ids)
        gallery = joined(here, more)
        positions += np.arange(len(positions))
        return self._changed(gallery, self.back_end.with_inserted(gallery.vectors, positions))

    def without(self, ids: Sequence[str] | np.ndarray) -> GalleryIndex:
        """A snapshot with fewer vectors; this one stays as it is and can be searched meanwhile.

        Args:
            ids: of the vectors to leave out.

        Raises:
            UserError: an id is not there.
        """
        advice = "remove only ids that are there"
        positions = np.unique(known_positions(ids, self._gallery.ids, advice))
        kept = np.ones(len(self), dtype=bool)
        kept[positions] = False
        gallery = self._gallery.take(kept)
        if not len(gallery):  # the next vectors will be a new fit
            return self._changed(gallery, copy.copy(self.back_end))
        return self._changed(gallery, self.back_end.with_deleted(gallery.vectors, positions))

    def _changed(self, gallery: Embeddings, back_end: BackEnd) -> GalleryIndex:
        other = GalleryIndex(back_end, self.metric)
        other._gallery = gallery
        return other

    def search(
        self,
        vectors: np.ndarray,
        k: int,
        query_ids: Sequence[str] | np.ndarray | None = None,
        where: Sequence[str] | np.ndarray | None = None,
    ) -> Results:
        """The k nearest of the gallery for every query, by (distance, id).

        Args:
            vectors: (Q, D) queries.
            k: neighbours wanted for each.
            query_ids: Q ids; the gallery's vector of that id, if there is one, is left out of that
                query's neighbours. Other vectors equal to the query stay.
            where: ids to choose from; None: the whole gallery. The search among them is exact with
                every back end, and rows are filled up with empty ids where there are fewer than k.

        Raises:
            UserError: empty gallery, vectors of another shape or not finite, k below one or above
                the number of vectors that a query can find (see `check_k`), or an id in `where`
                that is not in the gallery.
        """
        checked = check_search(self._gallery, vectors, k, query_ids, where)
        found, distances = self.find(*checked)
        ids, labels = self._gallery.ids[found], self._gallery.labels[found]
        ids[found < 0], labels[found < 0] = "", UNLABELLED
        return Results(ids, distances, labels)

    def save(self, folder: str | Path) -> None:
        """Write the index into a folder; `cbir_tf.search.load_index` reads it.

        index.json says what was indexed; the vectors themselves stay in the feature store.

        Raises:
            UserError: the folder cannot be written.
        """
        folder = path_of(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if len(self):
                self.back_end.save(folder)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written ({error.strerror or error}); free some space or "
                "check its permissions"
            ) from None
        Manifest.of(self.back_end, self.metric, self._gallery, folder).write(folder)

    def load(self, folder: str | Path, embeddings: Embeddings, settings: dict[str, Any]) -> None:
        """Take the back end's saved state over the same vectors."""
        self._gallery = _by_id(embeddings)
        if len(self):
            self.back_end.load(Path(folder), self._gallery.vectors, self._metric, settings)

    def find(
        self,
        queries: np.ndarray,
        k: int,
        self_positions: np.ndarray,
        candidate_positions: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `cbir_tf.search.index.Finder`."""
        if self.is_exact or candidate_positions is not None:
            return self._find(
                queries, k, self_positions, candidate_positions, k + CANDIDATES_BEYOND_K
            )
        found = np.empty((len(queries), k), dtype=np.int64)
        distances = np.empty((len(queries), k), dtype=np.float32)
        # As many candidates as the recall was measured with, and one more for the query itself.
        least, stored = max(k, SAMPLE_K), self_positions >= 0
        for count, some in ((least, ~stored), (least + 1, stored)):
            rows = np.flatnonzero(some)
            found[rows], distances[rows] = self._find(
                queries[rows], k, self_positions[rows], None, count
            )
        return found, distances

    def _find(
        self,
        queries: np.ndarray,
        k: int,
        self_positions: np.ndarray,
        candidate_positions: np.ndarray | None,
        wanted: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """`find`, with `wanted` candidates in the first round."""
        found = np.full((len(queries), k), -1)
        distances = np.full((len(queries), k), np.inf, dtype=np.float32)
        most = len(self) if candidate_positions is None else len(candidate_positions)
        pending = np.arange(len(queries) if most else 0)
        while len(pending):
            wanted = min(wanted, most)
            unsettled = []
            for some in blocks(len(pending), max(wanted, queries.shape[1]), BLOCK_VALUES):
                rows = pending[some]
                with limited_to(threads_for(len(rows) * most * queries.shape[1])):
                    candidates, beyond = self.back_end.propose(
                        queries[rows], wanted, candidate_positions
                    )
                candidates = np.where(candidates == self_positions[rows, None], -1, candidates)
                best, their_distances = self._rank(queries[rows], candidates, k)
                width = best.shape[1]
                found[rows, :width], distances[rows, :width] = best, their_distances
                bound = self._metric.reported(np.maximum(beyond, 0)).astype(np.float32)
                settled = (bound > distances[rows, -1]) | (wanted == most)
                unsettled.append(rows[~settled])
            pending = np.concatenate(unsettled)
            wanted *= 4
        return found, distances

    def _rank(
        self, queries: np.ndarray, candidates: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best k of (Q, C) candidates by (distance, position), which is (distance, id)."""
        distances = np.empty(candidates.shape, dtype=np.float32)

        def measure(rows: slice) -> None:
            some = candidates[rows]
            prepared = self._metric.prepare(self._gallery.vectors.take(some.ravel(), axis=0))
            some_queries = self._metric.prepare(queries[rows])[:, np.newaxis]
            distances[rows] = between(self._metric, some_queries, prepared.reshape(*some.shape, -1))

        values = candidates.shape[1] * queries.shape[1]
        parts = list(blocks(len(queries), values, CACHED_VALUES))
        # For a single query threads would take longer to start than it does.
        deque(map(measure, parts) if len(parts) == 1 else in_parallel(measure, parts), maxlen=0)
        missing = candidates < 0
        distances[missing] = np.inf
        keys = sorting_keys(distances, np.where(missing, NONE, candidates))
        keys.sort(axis=1)
        positions = positions_in(keys[:, :k])
        return np.where(positions == NONE, -1, positions), distances_in(keys[:, :k])


def joined(here: Embeddings, more: Embeddings) -> Embeddings:
    """Two sets of embeddings as one, all in order of id; no id is in both."""
    if not len(here):
        return more
    positions = np.searchsorted(here.ids, more.ids)
    width = np.result_type(here.ids, more.ids)
    return Embeddings(
        np.insert(here.ids.astype(width), positions, more.ids),
        np.insert(here.vectors, positions, more.vectors, axis=0),
        np.insert(here.labels, positions, more.labels),
    )


def _by_id(embeddings: Embeddings) -> Embeddings:
    """In order of id a tie by id is a tie by position."""
    ids = embeddings.ids
    if (ids[:-1] < ids[1:]).all():
        return embeddings
    return embeddings.take(np.argsort(ids))

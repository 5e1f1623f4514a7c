"""Exact search by scikit-learn's NearestNeighbors, brute force: the default for small sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from sklearn.neighbors import NearestNeighbors

from cbir_tf.errors import UserError
from cbir_tf.search.distances import between, find_metric
from cbir_tf.search.index import check_k, check_vectors, positions_of
from cbir_tf.search.manifest import Manifest
from cbir_tf.types import Embeddings, Neighbours

# scikit-learn computes euclidean norms from dot products. Their error is below this share of the
# two vectors' lengths: its square, 1e-12, is above float64's epsilon times 4,500 dimensions.
NORM_ERROR = 1e-6
CANDIDATES_BEYOND_K = 8
BLOCK_VALUES = 2**22


class NearestNeighborsIndex:
    """Every query against every vector of the gallery.

    scikit-learn proposes candidates; their distances are then computed from the differences (see
    `cbir_tf.search.distances`), and more are fetched until nothing beyond them can be as near as
    the k-th. So ties across rank k are settled by id, and a query has the same neighbours and
    distances alone and in a batch.

    Args:
        metric: cosine, euclidean or manhattan.

    Raises:
        UserError: no such metric.
    """

    is_exact = True

    def __init__(self, metric: str = "cosine") -> None:
        self.metric = metric
        self._metric = find_metric(metric)
        self.fit(Embeddings(np.empty(0, str), np.empty((0, 0)), np.empty(0)))

    def __len__(self) -> int:
        return len(self._gallery)

    def fit(self, embeddings: Embeddings) -> NearestNeighborsIndex:
        """Make these the gallery, in place of any earlier one; nothing else is kept."""
        # In order of id, a tie by id is a tie by position.
        self._gallery = embeddings.take(np.argsort(embeddings.ids))
        self._prepared = self._metric.prepare(self._gallery.vectors)
        self._model = NearestNeighbors(algorithm="brute", metric=self._metric.norm)
        if len(self):
            self._model.fit(self._prepared)
            self._longest = self._lengths(self._prepared).max()
        return self

    def add(self, embeddings: Embeddings) -> None:
        """Put more vectors into the gallery.

        Raises:
            UserError: an id is already there, or the vectors have another dimension.
        """
        here, more = self._gallery, embeddings
        if not len(here):
            self.fit(more)
            return
        there = np.flatnonzero(positions_of(more.ids, here.ids) >= 0)
        if len(there):
            known = str(more.ids[there[0]])
            raise UserError(f"{known!r} is in the gallery already; remove it before adding it anew")
        if here.vectors.shape[1] != more.vectors.shape[1]:
            raise UserError(
                f"the vectors to add have dimension {more.vectors.shape[1]}, the gallery's have "
                f"{here.vectors.shape[1]}; use the model that made the gallery"
            )
        self.fit(
            Embeddings(
                np.concatenate([here.ids, more.ids]),
                np.concatenate([here.vectors, more.vectors]),
                np.concatenate([here.labels, more.labels]),
            )
        )

    def remove(self, ids: Sequence[str] | np.ndarray) -> None:
        """Take vectors out of the gallery.

        Raises:
            UserError: an id is not there; nothing is removed then.
        """
        wanted = np.asarray(ids, dtype=np.str_)
        positions = positions_of(wanted, self._gallery.ids)
        if (positions < 0).any():
            missing = str(wanted[positions < 0][0])
            raise UserError(f"{missing!r} is not in the gallery; remove only ids that are there")
        keep = np.ones(len(self), dtype=bool)
        keep[positions] = False
        self.fit(self._gallery.take(keep))

    def search(
        self, vectors: np.ndarray, k: int, query_ids: Sequence[str] | np.ndarray | None = None
    ) -> Neighbours:
        """The k nearest of the gallery for every query, by (distance, id).

        Args:
            vectors: (Q, D) queries.
            k: neighbours wanted for each.
            query_ids: Q ids; the gallery's vector of that id, if there is one, is left out of that
                query's neighbours. Other vectors equal to the query stay.

        Raises:
            UserError: empty gallery, vectors of another shape or not finite, or k below one or
                above the number of vectors that a query can find (see `check_k`).
        """
        own = np.full(len(vectors), -1)
        if query_ids is not None:
            if len(query_ids) != len(vectors):
                raise ValueError(f"{len(query_ids)} query_ids for {len(vectors)} vectors")
            own = positions_of(np.asarray(query_ids, dtype=np.str_), self._gallery.ids)
        check_k(k, len(self) - int((own >= 0).any()))
        queries = self._metric.prepare(check_vectors(vectors, self._gallery.vectors.shape[1]))
        found = np.empty((len(queries), k), dtype=np.int64)
        distances = np.empty((len(queries), k), dtype=np.float32)
        pending = np.arange(len(queries))
        wanted = k + CANDIDATES_BEYOND_K
        while len(pending):
            wanted = min(wanted, len(self))
            unsettled = []
            for rows in _blocks(pending, wanted * queries.shape[1]):
                found[rows], distances[rows], settled = self._nearest(
                    queries[rows], own[rows], k, wanted
                )
                unsettled.append(rows[~settled])
            pending = np.concatenate(unsettled)
            wanted *= 4
        return Neighbours(self._gallery.ids[found], distances)

    def _nearest(
        self, queries: np.ndarray, own: np.ndarray, k: int, wanted: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The best k of so many candidates: positions, distances, and which rows are settled."""
        norms, candidates = self._model.kneighbors(queries, wanted)
        distances = between(self._metric, queries[:, None], self._prepared[candidates])
        distances[candidates == own[:, None]] = np.inf
        order = np.lexsort((candidates, distances), axis=-1)[:, :k]
        distances = np.take_along_axis(distances, order, axis=-1)
        error = NORM_ERROR * (self._lengths(queries) + self._longest)
        beyond = self._metric.reported(np.maximum(norms[:, -1] - error, 0)).astype(np.float32)
        settled = (beyond > distances[:, -1]) | (wanted == len(self))
        return np.take_along_axis(candidates, order, axis=-1), distances, settled

    def _lengths(self, prepared: np.ndarray) -> np.ndarray:
        order = 2 if self._metric.norm == "euclidean" else 1
        return np.linalg.norm(prepared, ord=order, axis=1)

    def save(self, folder: str | Path) -> None:
        """Write index.json into a folder; `cbir_tf.search.load_index` reads it.

        The file says what was indexed, not the vectors: they are in the feature store, and fitting
        to them is as fast as reading them.

        Raises:
            UserError: the folder cannot be written.
        """
        Manifest.of("nearest_neighbors", self.metric, self._gallery).write(folder)


def _blocks(rows: np.ndarray, values_a_row: int) -> Iterator[np.ndarray]:
    """The rows, so many at a time that a block holds about BLOCK_VALUES values."""
    at_once = max(1, BLOCK_VALUES // values_a_row)
    return (rows[start : start + at_once] for start in range(0, len(rows), at_once))

"""From queries to their neighbours: the one way, with every step a search is configured to take.

    first search -> query expansion -> class router -> k-reciprocal re-ranking

Each step is left out unless it is configured. They work on the candidates of each query: the class
router on k from each class, re-ranking on `search.candidates`, whatever the size of the gallery.

The distances of neighbours are those of the last step that ordered them: of the metric (from the
expanded query, where it is expanded), times the class's factor where the class router is soft
(`cbir_tf.retrieval.class_router`), or of `cbir_tf.retrieval.re_ranking.k_reciprocal`, times the
same factor. Where some images come before others whatever their distance, as those of the likeliest
class do with a hard router and the candidates with re-ranking, the first ones keep their distance,
and the distances of the next count from 1 beyond the largest of those before; those that float32
cannot tell apart there are set apart by its least step. So a row is always in order of (distance,
id), and its beginning is the same whatever the k.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cbir_tf.config.arguments import of_kind
from cbir_tf.config.search import Search
from cbir_tf.parallel import blocks
from cbir_tf.retrieval.class_router import weigh
from cbir_tf.retrieval.gallery import Gallery
from cbir_tf.retrieval.re_ranking import k_reciprocal, query_expansion
from cbir_tf.search.index import check_search, positions_of
from cbir_tf.types import UNLABELLED, Prediction, QueryBatch, Results

EXPANSION = 10  # neighbours that take part in query expansion
BLOCK_CANDIDATES = 2**21


def is_plain(settings: Search) -> bool:
    """Whether neighbours are simply the nearest of the stored vectors."""
    return not steps_of(settings)


def steps_of(settings: Search) -> str:
    """What a search does beyond finding the nearest vectors, in order; empty where nothing."""
    two_step = settings.two_step
    steps = []
    if settings.database_augmentation:
        steps.append(f"database augmentation by {settings.database_augmentation}")
    if settings.re_ranking == "query_expansion":
        steps.append("query expansion")
    if two_step.name != "none":
        weight = f" {two_step.weight:g}" if two_step.mode == "soft" else ""
        run = f" of {two_step.run.name}" if two_step.run else ""
        steps.append(f"two-step {two_step.name}{run} {two_step.mode}{weight}")
    if settings.re_ranking == "k_reciprocal":
        steps.append("k-reciprocal re-ranking")
    return ", ".join(steps)


class QueryEngine:
    """Searches one snapshot of a gallery; safe to use from several threads at once.

    Args:
        gallery: the snapshot.
        settings: the steps of the search; the gallery's own when not given. They may differ from
            these in re_ranking and two_step, as the others are part of the snapshot.

    Attributes:
        router: the class router of the search; None where it has none.

    Raises:
        UserError: a class router is configured and cannot be fitted (`Gallery.router`).

    Example:
        >>> from cbir_tf.search import make_index
        >>> from cbir_tf.types import Embeddings
        >>> images = Embeddings(["a", "b"], [[1, 0], [0, 1]], [0, 1])
        >>> engine = QueryEngine(Gallery(make_index().fit(images), class_names=("rose", "tulip")))
        >>> engine.search(QueryBatch([[3, 1]]), k=1).hits()[0].label
        'rose'
    """

    def __init__(self, gallery: Gallery, settings: Search | None = None) -> None:
        self.gallery = of_kind(gallery, Gallery, "gallery", "a Gallery, such as retriever.gallery")
        self.settings = settings or gallery.settings
        self.router = gallery.router(self.settings.two_step)

    def search(self, batch: QueryBatch, k: int | None = None) -> Results:
        """The k nearest of the gallery for every query, by (distance, id).

        Args:
            batch: Q queries.
            k: neighbours wanted for each; when not given, `search.k`, or all that can be found
                where these are fewer. Rows are filled up with empty ids where the batch's
                candidates are fewer than k.

        Raises:
            UserError: as `cbir_tf.search.index.Index.search`.
        """
        positions, distances, predictions = self._rank(batch, k)
        searched = self.gallery.index.gallery
        missing = positions < 0
        ids, labels = searched.ids[positions], searched.labels[positions]
        ids[missing], labels[missing] = "", UNLABELLED
        calibration = self.gallery.calibration if is_plain(self.settings) else None
        return Results(
            ids,
            distances,
            labels,
            self.gallery.class_names,
            prediction=predictions,
            is_match=None if calibration is None else calibration.matches(distances[:, 0]),
            vectors=batch.vectors,
        )

    def rank(self, batch: QueryBatch, k: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As `search`, by position in the gallery in order of id, which metrics count with.

        Returns:
            (Q, k) int64 positions, -1 where there are fewer than k, and float32 distances, infinite
            there.
        """
        positions, distances, _ = self._rank(batch, k)
        return positions, distances

    def _rank(
        self, batch: QueryBatch, k: int | None
    ) -> tuple[np.ndarray, np.ndarray, tuple[Prediction, ...] | None]:
        of_kind(batch, QueryBatch, "queries", "gallery.queries(vectors) or .stored_queries(ids)")
        gallery = self.gallery.index.gallery
        if k is None:
            stored = bool((positions_of(batch.ids, gallery.ids) >= 0).any())
            k = max(1, min(self.settings.k, len(gallery) - stored))
        queries, k, self_positions, candidates = check_search(
            gallery, batch.vectors, k, batch.ids, batch.candidates
        )
        predictions: list[Prediction] = []
        positions = np.empty((len(queries), k), dtype=np.int64)
        distances = np.empty((len(queries), k), dtype=np.float32)
        for rows in self._blocks(len(queries), k):
            probabilities = self._probabilities(batch, queries, rows)
            positions[rows], distances[rows] = self._rank_block(
                queries[rows], k, self_positions[rows], candidates, probabilities
            )
            if self.router is not None and probabilities is not None:
                predictions += self.router.predictions(probabilities)
        return positions, distances, None if self.router is None else tuple(predictions)

    def _probabilities(
        self, batch: QueryBatch, queries: np.ndarray, rows: slice
    ) -> np.ndarray | None:
        """(B, C) probabilities of the class router's classes for a block of queries."""
        if self.router is None:
            return None
        if batch.class_probabilities is not None:
            return batch.class_probabilities[rows]
        return self.router.classifier.probabilities(queries[rows], batch.ids[rows])

    def _blocks(self, queries: int, k: int) -> Iterator[slice]:
        classes = 1 if self.router is None else len(self.router.names)
        per_query = max(classes, min(len(self.gallery), k * classes))
        return blocks(queries, per_query, BLOCK_CANDIDATES)

    def _rank_block(
        self,
        queries: np.ndarray,
        k: int,
        self_positions: np.ndarray,
        candidates: np.ndarray | None,
        probabilities: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        index, re_ranking = self.gallery.index, self.settings.re_ranking
        if re_ranking == "query_expansion":
            first, _ = index.find(queries, EXPANSION, self_positions, candidates)
            queries = query_expansion(queries, first, index.gallery)
        wanted = max(k, self.settings.candidates) if re_ranking == "k_reciprocal" else k
        if self.router is None or probabilities is None:
            found, distances = index.find(queries, wanted, self_positions, candidates)
            tiers, factors = np.zeros_like(found), np.ones(found.shape)
        else:
            found, distances = self.router.find(
                index, queries, wanted, self_positions, candidates, probabilities
            )
            tiers = self.router.tiers(found, probabilities)
            factors = self.router.factors(found, probabilities)
        if re_ranking == "k_reciprocal":
            for row, query in enumerate(queries):
                self._re_rank(query, found[row], distances[row], tiers[row], factors[row])
        return found[:, :k], _stacked(distances, tiers)[:, :k]

    def _re_rank(
        self,
        query: np.ndarray,
        found: np.ndarray,
        distances: np.ndarray,
        tiers: np.ndarray,
        factors: np.ndarray,
    ) -> None:
        """Put the candidates of one query in a new order, in place; they become the first tier."""
        most = self.settings.candidates
        first = np.flatnonzero((found[:most] >= 0) & (tiers[:most] == tiers[0]))
        if not len(first):
            return
        gallery = self.gallery.index.gallery
        moved = k_reciprocal(query, gallery.take(found[first]), self.settings.metric)
        positions = positions_of(moved.ids[0], gallery.ids)
        factor_of = dict(zip(found[first].tolist(), factors[first].tolist(), strict=True))
        weights = np.array([factor_of[each] for each in positions.tolist()])
        weighed = weigh(moved.distances[0], weights)
        order = np.lexsort((positions, weighed))
        found[first], distances[first] = positions[order], weighed[order]
        tiers[first] = -1


def _stacked(distances: np.ndarray, tiers: np.ndarray) -> np.ndarray:
    """Distances of rows in order of tier and distance, so that they ascend (see above)."""
    next_tier = (tiers[:, 1:] != tiers[:, :-1]) & np.isfinite(distances[:, 1:])
    if not next_tier.any():
        return distances
    exact = distances.astype(np.float64)
    exact[:, 1:] += np.cumsum(np.where(next_tier, exact[:, :-1] + 1, 0), axis=1)
    stacked = exact.astype(np.float32)
    # Beyond a large distance float32 may not tell two apart: what is farther stays farther.
    farther = next_tier | (distances[:, 1:] > distances[:, :-1])
    for column in range(1, stacked.shape[1]):
        before = stacked[:, column - 1]
        least = np.where(farther[:, column - 1], np.nextafter(before, np.float32(np.inf)), before)
        np.maximum(stacked[:, column], least, out=stacked[:, column])
    return stacked

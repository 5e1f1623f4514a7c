"""From the vectors of queries to their neighbours: every step a search is configured to take.

    first search -> query expansion -> class gate -> k-reciprocal re-ranking

Each step is left out unless it is asked for. They work on the candidates of each query: the gate on
k from each class, re-ranking on `search.candidates`, whatever the size of the gallery.

The distances of neighbours are those of the last step that ordered them: of the metric (from the
expanded query, where it is expanded), times the class's factor where the gate is soft
(`cbir_tf.retrieval.class_router`), or of `cbir_tf.retrieval.re_ranking.k_reciprocal`, times the
same factor. Where some images come before others whatever their distance, as those of the likeliest
class do with a hard gate and the candidates with re-ranking, the first ones keep their distance,
and the distances of the next count from 1 beyond the largest of those before; those that float32
cannot tell apart there are set apart by its least step. So a row is always in order of (distance,
id), and its beginning is the same whatever the k.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cbir_tf.config.search import Search
from cbir_tf.retrieval.class_router import Gate, weigh
from cbir_tf.retrieval.re_ranking import k_reciprocal, query_expansion
from cbir_tf.search.index import Finder, check_search, positions_of
from cbir_tf.types import Neighbours

EXPANSION = 10  # neighbours that take part in query expansion
BLOCK_CANDIDATES = 2**21


def is_plain(settings: Search) -> bool:
    """Whether neighbours are simply the nearest vectors as they are."""
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


class Searcher:
    """A gallery, and how it is searched.

    Args:
        finder: an index, or `cbir_tf.search.exhaustive.Exhaustive`; with database-side
            augmentation, of the augmented vectors (`cbir_tf.retrieval.database_augmentation`).
        settings: of the search; of its steps, those of queries are looked at here.
        gate: the first of two steps, of the finder's gallery; None: there is none.
    """

    def __init__(self, finder: Finder, settings: Search, gate: Gate | None = None) -> None:
        self.finder, self.gallery = finder, finder.gallery
        self.settings = settings
        self.gate = gate

    def search(
        self,
        vectors: np.ndarray,
        k: int,
        query_ids: Sequence[str] | np.ndarray | None = None,
        where: Sequence[str] | np.ndarray | None = None,
        probabilities: np.ndarray | None = None,
    ) -> Neighbours:
        """The k nearest of the gallery for every query, by (distance, id).

        Args:
            vectors: (Q, D) queries.
            k: neighbours wanted for each.
            query_ids: Q ids; the gallery's image of that id, if there is one, is left out of that
                query's neighbours.
            where: ids to choose from; None: the whole gallery. Rows are filled up with empty ids
                where there are fewer than k.
            probabilities: (Q, C) of the gate's classes; None: what its classifier says of the
                vectors.

        Raises:
            UserError: as `cbir_tf.search.index.Index.search`.
        """
        found, distances = self.rank(vectors, k, query_ids, where, probabilities)
        return self.neighbours(found, distances)

    def rank(
        self,
        vectors: np.ndarray,
        k: int,
        query_ids: Sequence[str] | np.ndarray | None = None,
        where: Sequence[str] | np.ndarray | None = None,
        probabilities: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `search`, by position in the gallery in order of id.

        Returns:
            (Q, k) int64 positions, -1 where there are fewer than k, and float32 distances, infinite
            there.
        """
        queries, k, own, among = check_search(self.gallery, vectors, k, query_ids, where)
        if self.gate is not None and probabilities is None:
            probabilities = self.gate.classifier.probabilities(queries, query_ids)
        found = np.empty((len(queries), k), dtype=np.int64)
        distances = np.empty((len(queries), k), dtype=np.float32)
        for rows in self._blocks(len(queries), k):
            some = None if probabilities is None else probabilities[rows]
            found[rows], distances[rows] = self._rank(queries[rows], k, own[rows], among, some)
        return found, distances

    def neighbours(self, found: np.ndarray, distances: np.ndarray) -> Neighbours:
        """What `rank` found, by id."""
        ids = self.gallery.ids[found]
        ids[found < 0] = ""
        return Neighbours(ids, distances)

    def _blocks(self, queries: int, k: int) -> Iterator[slice]:
        classes = 1 if self.gate is None else len(self.gate.names)
        at_once = max(1, BLOCK_CANDIDATES // min(len(self.gallery), k * classes))
        return (slice(start, start + at_once) for start in range(0, queries, at_once))

    def _rank(
        self,
        queries: np.ndarray,
        k: int,
        own: np.ndarray,
        among: np.ndarray | None,
        probabilities: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        re_ranking = self.settings.re_ranking
        if re_ranking == "query_expansion":
            first = self.neighbours(*self.finder.find(queries, EXPANSION, own, among))
            queries = query_expansion(queries, first, self.gallery, EXPANSION)
        wanted = max(k, self.settings.candidates) if re_ranking == "k_reciprocal" else k
        if self.gate is None or probabilities is None:
            found, distances = self.finder.find(queries, wanted, own, among)
            tiers, factors = np.zeros_like(found), np.ones(found.shape)
        else:
            found, distances = self.gate.find(
                self.finder, queries, wanted, own, among, probabilities
            )
            tiers = self.gate.tiers(found, probabilities)
            factors = self.gate.factors(found, probabilities)
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
        """Order the candidates of one query anew, in place; they become a tier of their own."""
        most = self.settings.candidates
        first = np.flatnonzero((found[:most] >= 0) & (tiers[:most] == tiers[0]))
        if not len(first):
            return
        candidates = self.gallery.take(found[first])
        moved = k_reciprocal(query, candidates, self.settings.metric)
        positions = positions_of(moved.ids[0], self.gallery.ids)
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

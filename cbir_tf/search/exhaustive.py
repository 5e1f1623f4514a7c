"""Whole rankings: every distance of every query, by matrix products."""

from __future__ import annotations

import numpy as np

from cbir_tf.parallel import blocks
from cbir_tf.search.distances import find_metric, nearest_columns, pairwise
from cbir_tf.types import Embeddings

BLOCK_PAIRS = 2**22


class Exhaustive:
    """Ranks the whole gallery for each query (see `cbir_tf.search.index.Finder`).

    An index computes the distances of its few candidates again from the differences of the vectors.
    These distances are those of `cbir_tf.search.distances.pairwise`, as in
    `cbir_tf.evaluation.per_query`, and equal to an index's up to float32 rounding.

    Args:
        gallery: ids ascending.
        metric: cosine, euclidean or manhattan.

    Raises:
        UserError: no such metric.
    """

    def __init__(self, gallery: Embeddings, metric: str) -> None:
        self.gallery = gallery
        self._metric = find_metric(metric)
        self._prepared = self._metric.prepare(gallery.vectors)

    def find(
        self,
        queries: np.ndarray,
        k: int,
        self_positions: np.ndarray,
        candidate_positions: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `cbir_tf.search.index.Finder`."""
        positions = candidate_positions
        if positions is None:
            positions = np.arange(len(self._prepared))
            others = self._prepared
        else:
            others = self._prepared[positions]
        found = np.full((len(queries), k), -1)
        distances = np.full((len(queries), k), np.inf, dtype=np.float32)
        if not len(others):
            return found, distances
        for rows in blocks(len(queries), len(others), BLOCK_PAIRS):
            between = pairwise(self._metric, self._metric.prepare(queries[rows]), others)
            between[self_positions[rows, None] == positions] = np.inf
            columns = nearest_columns(between, k)
            width = columns.shape[1]
            nearest = np.take_along_axis(between, columns, axis=1)
            found[rows, :width] = np.where(np.isinf(nearest), -1, positions[columns])
            distances[rows, :width] = nearest
        return found, distances

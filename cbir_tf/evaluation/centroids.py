"""Classification by the nearest centroid: how far the classes are clusters."""

from __future__ import annotations

import numpy as np

from cbir_tf.parallel import blocks
from cbir_tf.search.distances import between, find_metric, pairwise
from cbir_tf.search.index import positions_of
from cbir_tf.types import UNLABELLED, Embeddings

BLOCK_PAIRS = 2**22
ROUNDING = 1e-12  # of a mean, in float64, in proportion to the largest value


def nearest_centroid(
    queries: Embeddings, gallery: Embeddings | None = None, metric: str = "cosine"
) -> np.ndarray:
    """Whether each query's nearest class centroid is that of its own class.

    A centroid is the mean of a class's vectors in the gallery (of their directions, for cosine).
    A gallery item with the query's id is left out of its class's mean for that query, so that no
    query is drawn to itself; unlabelled items belong to no class. Of centroids equally near, the
    one with the smallest label counts (the nearest centroid classifier; scikit-learn's
    NearestCentroid, which takes medians for manhattan where this takes means).

    Args:
        queries: labelled.
        gallery: where the classes are; None: the queries themselves (leave-one-out).
        metric: cosine, euclidean, manhattan or minkowski-P.

    Returns:
        (Q,) float64: 1 or 0; NaN for a query whose class has nothing else in the gallery.

    Raises:
        UserError: an unknown metric.

    Example:
        >>> found = Embeddings(list("abcd"), [[1, 0], [4, 1], [0, 1], [1, 4]], [0, 0, 1, 1])
        >>> nearest_centroid(found).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    arithmetic = find_metric(metric)
    gallery = queries if gallery is None else gallery
    gallery = gallery.take(np.argsort(gallery.ids))
    classes, class_of = np.unique(gallery.labels, return_inverse=True)
    points = arithmetic.prepare(gallery.vectors)
    counts = np.bincount(class_of)
    in_order = np.argsort(class_of, kind="stable")
    sums = np.add.reduceat(points[in_order], np.cumsum(counts) - counts)
    # Directions that cancel out leave none, where rounding would leave some.
    least = ROUNDING * np.abs(points).max()
    means = arithmetic.prepare(_cleared(sums / counts[:, None], least))
    own = positions_of(queries.ids, gallery.ids)
    expected = positions_of(queries.labels, classes)

    correct = np.full(len(queries), np.nan)
    for block in blocks(len(queries), max(len(classes), points.shape[1]), BLOCK_PAIRS):
        # Twice prepared, as the means are: directions of directions.
        vectors = arithmetic.prepare(arithmetic.prepare(queries.vectors[block]))
        distances = pairwise(arithmetic, vectors, means)
        distances[:, classes == UNLABELLED] = np.inf
        rows = np.flatnonzero((own[block] >= 0) & (gallery.labels[own[block]] != UNLABELLED))
        itself = own[block][rows]
        left = counts[class_of[itself]] - 1
        others = (sums[class_of[itself]] - points[itself]) / np.maximum(left, 1)[:, None]
        means_without = arithmetic.prepare(_cleared(others, least))
        without = between(arithmetic, vectors[rows], means_without)
        distances[rows, class_of[itself]] = np.where(left > 0, without, np.inf)

        has_class = expected[block] >= 0
        to_own = distances[np.arange(len(distances)), expected[block]]
        scored = has_class & np.isfinite(to_own)
        nearest = np.argmin(distances, axis=1)
        correct[block][scored] = nearest[scored] == expected[block][scored]
    return correct


def _cleared(means: np.ndarray, least: float) -> np.ndarray:
    return np.where(np.abs(means) < least, 0.0, means)

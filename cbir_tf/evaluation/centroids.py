"""Accuracy of the nearest class centroid: whether the classes form clusters."""

from __future__ import annotations

import numpy as np

from cbir_tf.config.arguments import of_kind
from cbir_tf.parallel import blocks
from cbir_tf.search.distances import between, find_metric, pairwise
from cbir_tf.search.index import positions_of
from cbir_tf.types import UNLABELLED, Embeddings

BLOCK_PAIRS = 2**22
ROUNDING = 1e-12  # of a mean, in float64, in proportion to the largest value


def nearest_centroid(
    queries: Embeddings, gallery: Embeddings | None = None, metric: str = "cosine"
) -> np.ndarray:
    """Whether the class centroid nearest to each query is that of the query's class.

    centroid(c) = mean of the gallery's vectors with label c (for cosine, of their directions);
    the value is 1 if argmin over c of d(query, centroid(c)) is the query's label, else 0: the
    nearest centroid classifier, as scikit-learn's NearestCentroid, which for manhattan takes
    medians where this takes means. A gallery item with the query's id is left out of the mean for
    that query; unlabelled items belong to no class; ties go to the smallest label.

    Args:
        queries: labelled embeddings.
        gallery: labelled embeddings; None: the queries themselves (leave-one-out).
        metric: cosine, euclidean, manhattan or minkowski-P.

    Returns:
        (Q,) float64: 1 or 0; NaN where the gallery has no other item of the query's class.

    Raises:
        UserError: an unknown metric.

    Example:
        >>> found = Embeddings(list("abcd"), [[1, 0], [4, 1], [0, 1], [1, 4]], [0, 0, 1, 1])
        >>> nearest_centroid(found).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    arithmetic = find_metric(metric)
    for each in (queries, queries if gallery is None else gallery):
        of_kind(each, Embeddings, "queries and gallery", "Embeddings(ids, vectors, labels)")
    gallery = queries if gallery is None else gallery
    gallery = gallery.take(np.argsort(gallery.ids))
    classes, class_of = np.unique(gallery.labels, return_inverse=True)
    points = arithmetic.prepare(gallery.vectors)
    counts = np.bincount(class_of)
    in_order = np.argsort(class_of, kind="stable")
    sums = np.add.reduceat(points[in_order], np.cumsum(counts) - counts)
    # Directions that cancel out have mean zero; rounding would leave a direction of its own.
    least = ROUNDING * np.abs(points).max()
    means = arithmetic.prepare(_cleared(sums / counts[:, None], least))
    own = positions_of(queries.ids, gallery.ids)
    expected = positions_of(queries.labels, classes)

    correct = np.full(len(queries), np.nan)
    for block in blocks(len(queries), max(len(classes), points.shape[1]), BLOCK_PAIRS):
        # Prepared twice, as the means are: for cosine, the direction of a direction.
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
        correct[block][scored] = (distances.argmin(axis=1) == expected[block])[scored]
    return correct


def _cleared(means: np.ndarray, least: float) -> np.ndarray:
    return np.where(np.abs(means) < least, 0.0, means)

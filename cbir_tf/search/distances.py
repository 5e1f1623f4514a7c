"""Distances between vectors, exact to float32, and the same one at a time or in bulk.

The reported distance is computed in float64 from the vectors' difference and rounded to float32;
two distances are tied when they are equal after that rounding. The difference matters: expanding
|q - g|^2 into dot products, as scikit-learn does for speed, cancels for near-identical vectors and
goes below zero for identical ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.metrics.pairwise import manhattan_distances

from cbir_tf.errors import UserError, nearest

# Below this share of |q|^2 + |g|^2 a squared distance from dot products, whose error is about
# 1e-16 of that sum, is no longer good for float32's 6e-8 and is computed again.
CANCELLATION = 1e-6
BLOCK_PAIRS = 2**22


@dataclass(frozen=True)
class Metric:
    """A distance, as a norm between prepared vectors.

    Attributes:
        prepare: (N, D) float32 vectors -> (N, P) float64.
        norm: of the difference of two prepared vectors; orders them as the distance does.
        reported: norms -> distances, both float64.
    """

    prepare: Callable[[np.ndarray], np.ndarray]
    norm: Literal["euclidean", "manhattan"]
    reported: Callable[[np.ndarray], np.ndarray]


def _as_float64(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors, dtype=np.float64)


def _on_sphere(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors, with one axis more for zero vectors.

    A zero vector has no direction, so it gets one of its own: cosine distance 1 to every other
    vector, 0 to another zero vector.
    """
    lengths = np.linalg.norm(_as_float64(vectors), axis=1, keepdims=True)
    zero = lengths == 0
    return np.hstack([vectors / np.where(zero, 1, lengths), zero])


def _itself(norms: np.ndarray) -> np.ndarray:
    return norms


def _half_square(norms: np.ndarray) -> np.ndarray:
    """1 - cos(q, g) = |q - g|^2 / 2 for unit vectors; never below zero."""
    return norms * norms / 2


METRICS = {
    "cosine": Metric(_on_sphere, "euclidean", _half_square),
    "euclidean": Metric(_as_float64, "euclidean", _itself),
    "manhattan": Metric(_as_float64, "manhattan", _itself),
}


def find_metric(name: str) -> Metric:
    """The metric of this name: cosine (1 - cosine similarity), euclidean or manhattan.

    Raises:
        UserError: there is none.
    """
    if name not in METRICS:
        raise UserError(f"metric: no {name!r}; {nearest(name, METRICS)}")
    return METRICS[name]


def between(metric: Metric, queries: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distances of prepared vectors to their partners, from the differences.

    Args:
        queries: (..., P) float64.
        others: (..., P) float64, broadcast against queries.

    Returns:
        (...) float32.
    """
    difference = queries - others
    if metric.norm == "euclidean":
        norms = np.sqrt(np.square(difference, out=difference).sum(axis=-1))
    else:
        norms = np.abs(difference, out=difference).sum(axis=-1)
    return metric.reported(norms).astype(np.float32)


def pairwise(metric: Metric, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Distances of every prepared query to every prepared gallery vector, by matrix product.

    Equal to `between` up to float32 rounding; needs about 12 bytes a pair, so give it blocks.

    Args:
        queries: (Q, P) float64.
        gallery: (N, P) float64.

    Returns:
        (Q, N) float32.
    """
    if metric.norm == "manhattan":
        return metric.reported(manhattan_distances(queries, gallery)).astype(np.float32)
    query_sizes, gallery_sizes = np.square(queries).sum(axis=1), np.square(gallery).sum(axis=1)
    squared = queries @ gallery.T
    squared *= -2
    squared += query_sizes[:, None]
    squared += gallery_sizes
    # First a bound for the whole row, which costs no memory, then each pair's own.
    bound = CANCELLATION * (query_sizes + gallery_sizes.max(initial=0))
    rows, columns = np.divmod(np.flatnonzero(squared <= bound[:, None]), len(gallery))
    sizes = query_sizes[rows] + gallery_sizes[columns]
    cancelled = squared[rows, columns] <= CANCELLATION * sizes
    rows, columns = rows[cancelled], columns[cancelled]
    squared[rows, columns] = 0
    distances = metric.reported(np.sqrt(squared, out=squared)).astype(np.float32)
    at_once = max(1, 2**22 // queries.shape[1])
    for start in range(0, len(rows), at_once):
        some = slice(start, start + at_once)
        distances[rows[some], columns[some]] = between(
            metric, queries[rows[some]], gallery[columns[some]]
        )
    return distances


def pairs_within(
    metric: Metric, vectors: np.ndarray, distance: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every pair of vectors within a distance, block by block, so that memory stays small.

    Args:
        metric: of the distance.
        vectors: (N, D) float32, not prepared.
        distance: the largest of a pair.

    Yields:
        Positions of some pairs: two (P,) int64 arrays, first and second, first < second.
    """
    prepared = metric.prepare(vectors)
    at_once = max(1, BLOCK_PAIRS // max(1, len(prepared)))
    for start in range(0, len(prepared), at_once):
        distances = pairwise(metric, prepared[start : start + at_once], prepared[start:])
        rows, columns = np.nonzero(distances <= distance)
        later = columns > rows
        yield start + rows[later], start + columns[later]

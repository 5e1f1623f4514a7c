"""Distances between vectors, exact to float32, and the same one at a time or in bulk.

The reported distance is computed in float64 from the vectors' difference and rounded to float32;
two distances are tied when they are equal after that rounding. The difference matters: expanding
|q - g|^2 into dot products, as scikit-learn does for speed, cancels for near-identical vectors and
goes below zero for identical ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.metrics.pairwise import manhattan_distances

from cbir_tf.config.metric_names import minkowski_order
from cbir_tf.parallel import blocks

# Below this share of |q|^2 + |g|^2 a squared distance from dot products, whose error is about
# 1e-16 of that sum, is no longer good for float32's 6e-8 and is computed again.
CANCELLATION = 1e-6
# Whole powers for which multiplying is several times as fast as taking the power.
MULTIPLIED = range(3, 9)
BLOCK_VALUES, CACHED_VALUES = 2**22, 2**16
BLOCK_PAIRS = 2**22
# Parts of a row, for each of its k smallest, whose minima bound them; and columns in a part.
PARTS, LEAST_PART = 4, 8


@dataclass(frozen=True)
class Metric:
    """A distance, as a norm between prepared vectors.

    Attributes:
        prepare: (N, D) float32 vectors -> (N, P) float64.
        order: p of the p-norm of the difference of two prepared vectors, which orders them as the
            distance does: 1 manhattan, 2 euclidean, any other from 1 up minkowski.
        reported: norms -> distances, both float64.
    """

    prepare: Callable[[np.ndarray], np.ndarray]
    order: float
    reported: Callable[[np.ndarray], np.ndarray]

    @property
    def norm(self) -> str:
        """The norm by name."""
        return {1.0: "manhattan", 2.0: "euclidean"}.get(self.order, f"minkowski-{self.order:g}")


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
    distances: np.ndarray = norms * norms / 2
    return distances


METRICS = {
    "cosine": Metric(_on_sphere, 2, _half_square),
    "euclidean": Metric(_as_float64, 2, _itself),
    "manhattan": Metric(_as_float64, 1, _itself),
}


def find_metric(name: str) -> Metric:
    """The metric of this name.

    Args:
        name: cosine (1 - cosine similarity), euclidean, manhattan, or minkowski-P, as minkowski-3:
            the P-th root of the sum of the differences' P-th powers, P a number from 1 up.

    Raises:
        UserError: there is none.
    """
    order = minkowski_order(name)
    return METRICS[name] if order is None else Metric(_as_float64, order, _itself)


def p_norms(vectors: np.ndarray, order: float, out: np.ndarray | None = None) -> np.ndarray:
    """The p-norm of every vector.

    Args:
        vectors: (..., P) float64.
        order: p, from 1 up.
        out: (..., P) float64 memory to work in, may be the vectors' own; None: new memory.

    Returns:
        (...) float64.
    """
    if order == 2:
        norms: np.ndarray = np.sqrt(np.linalg.vecdot(vectors, vectors))
        return norms
    sizes = np.abs(vectors, out=out)
    if order == 1:
        norms = sizes.sum(axis=-1)
        return norms
    # As shares of the largest, whose powers neither overflow nor all vanish.
    largest = sizes.max(axis=-1, initial=0)
    sizes /= np.where(largest > 0, largest, 1)[..., np.newaxis]
    if order in MULTIPLIED:
        powers = functools.reduce(np.multiply, [sizes] * int(order))
    else:
        powers = np.power(sizes, order, out=sizes)
    norms = largest * powers.sum(axis=-1) ** (1 / order)
    return norms


def between(metric: Metric, queries: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distances of prepared vectors to their partners, from the differences.

    Args:
        queries: (..., P) float64.
        others: (..., P) float64, broadcast against queries.

    Returns:
        (...) float32.
    """
    difference = queries - others
    norms = p_norms(difference, metric.order, out=difference)
    return metric.reported(norms).astype(np.float32)


def pairwise(metric: Metric, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Distances of every prepared query to every prepared gallery vector.

    Equal to `between` up to float32 rounding, and much faster where a matrix product can do the
    work, which is with the euclidean norm; needs about 12 bytes a pair, so give it blocks.

    Args:
        queries: (Q, P) float64.
        gallery: (N, P) float64.

    Returns:
        (Q, N) float32.
    """
    if metric.order == 1:
        return metric.reported(manhattan_distances(queries, gallery)).astype(np.float32)
    if metric.order != 2:
        return _in_blocks(metric, queries, gallery)
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
    for some in blocks(len(rows), queries.shape[1], BLOCK_VALUES):
        distances[rows[some], columns[some]] = between(
            metric, queries[rows[some]], gallery[columns[some]]
        )
    return distances


def _in_blocks(metric: Metric, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """`pairwise` from the differences, so many at a time that the processor's cache holds them."""
    distances = np.empty((len(queries), len(gallery)), dtype=np.float32)
    dimension = queries.shape[1]
    for rows in blocks(len(queries), len(gallery) * dimension, CACHED_VALUES):
        for columns in blocks(len(gallery), dimension, CACHED_VALUES):
            distances[rows, columns] = between(metric, queries[rows, np.newaxis], gallery[columns])
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
    for block in blocks(len(prepared), len(prepared), BLOCK_PAIRS):
        start = block.start
        distances = pairwise(metric, prepared[block], prepared[start:])
        rows, columns = np.nonzero(distances <= distance)
        later = columns > rows
        yield start + rows[later], start + columns[later]


def nearest_columns(distances: np.ndarray, k: int) -> np.ndarray:
    """The columns of the k smallest distances of each row, by (distance, column).

    Where k is a small part of the columns only the few that can be among them are sorted: the k-th
    of the smallest distances of many parts of a row is a bound for its k-th smallest of all.

    Args:
        distances: (Q, C) float32, not negative, may be infinite.
        k: from 1 on; of fewer columns all are returned.

    Returns:
        (Q, min(k, C)) int64.

    Example:
        >>> nearest_columns(np.float32([[3, 1, 2, 1]]), k=3).tolist()
        [[1, 3, 2]]
    """
    rows, columns = distances.shape
    k = min(k, columns)
    part = columns // (PARTS * k)
    if part >= LEAST_PART:
        parts = distances[:, : columns // part * part].reshape(rows, -1, part).min(axis=2)
        bound = np.partition(parts, k - 1, axis=1)[:, k - 1 : k]
        row, column = np.divmod(np.flatnonzero(distances <= bound), columns)
        counts = np.bincount(row, minlength=rows)
        width = int(counts.max(initial=0))
        if width <= columns // LEAST_PART:  # not so where many distances are equal
            keys = np.full((rows, width), np.iinfo(np.uint64).max)
            place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
            keys[row, place] = sorting_keys(distances[row, column], column)
            keys.sort(axis=1)
            return positions_in(keys[:, :k])
    keys = sorting_keys(distances, np.arange(columns))
    if k < columns:
        keys = np.partition(keys, k - 1, axis=1)[:, :k]
    keys.sort(axis=1)
    return positions_in(keys)


def sorting_keys(distances: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """One uint64 a pair, in order of distance, then position; its last bit is free.

    The bits of floats that are not negative sort as the floats do, and integers sort fast.

    Args:
        distances: (Q, C) float32, not negative, or any other shape.
        positions: of that shape or (C,), int64, from 0 to 2^31 - 1.
    """
    keys = distances.view(np.uint32).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= positions.astype(np.uint64) << np.uint64(1)
    return keys


def positions_in(keys: np.ndarray) -> np.ndarray:
    """The positions in `sorting_keys`, int64."""
    return (keys.astype(np.uint32) >> np.uint32(1)).astype(np.int64)


def distances_in(keys: np.ndarray) -> np.ndarray:
    """The distances in `sorting_keys`, float32."""
    return (keys >> np.uint64(32)).astype(np.uint32).view(np.float32)

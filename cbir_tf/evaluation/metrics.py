"""How well embeddings retrieve: every query ranks the gallery, same label is relevant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cbir_tf.errors import UserError
from cbir_tf.evaluation.rankings import score_rankings
from cbir_tf.search import check_k
from cbir_tf.search.distances import find_metric, pairwise
from cbir_tf.search.index import check_dimension, positions_of
from cbir_tf.types import UNLABELLED, Embeddings

BLOCK_PAIRS = 2**23
BLOCK_DRAWS = 2**22
INTERVAL = (2.5, 97.5)


def evaluate(
    queries: Embeddings,
    gallery: Embeddings | None = None,
    k: Sequence[int] = (1, 5, 10),
    metric: str = "cosine",
    *,
    bootstrap: int = 0,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Mean figures over the queries, in all and by class.

    Args:
        queries: labelled embeddings, each ranking the gallery.
        gallery: embeddings to be found; None: the queries themselves, each left out of its own
            ranking (leave-one-out). A gallery item with a query's id is left out of that query's
            ranking too; unlabelled items are ranked and never relevant.
        k: ranks for recall@k, precision@k and map@k.
        metric: cosine, euclidean or manhattan; ties in distance are ranked by id.
        bootstrap: resamples of the queries behind the 95 % percentile intervals; 0: none.
        seed: of the resampling.
        class_names: names by label, for the figures by class; None: the labels as text.

    Returns:
        A document that is ready for JSON::

            {"protocol": "leave-one-out" or "queries against gallery", "metric": ...,
             "queries": number scored, "left_out": number with nothing relevant to find,
             "gallery": number of items,
             "figures": {name: value}, "intervals": {name: [low, high]},
             "per_class": {class name: {"queries": number, name: value, ...}}}

        The figures are defined in `cbir_tf.evaluation.rankings`. A query for which the gallery
        holds nothing relevant is left out of every figure, and counted.

    Raises:
        UserError: as `per_query`; or there is nothing relevant for any query.

    Example:
        >>> found = Embeddings(list("abcd"), [[1, 0], [4, 1], [0, 1], [1, 4]], [0, 0, 1, 1])
        >>> evaluate(found, k=(1,))["figures"]["recall@1"]
        1.0
    """
    values = per_query(queries, gallery, k, metric)
    names = list(values)
    table = np.stack([values[name] for name in names], axis=1)
    scored = ~np.isnan(table[:, 0])
    if not scored.any():
        raise UserError(
            "no query has another image of its class in the gallery; "
            "evaluate on images with at least two of a class"
        )
    table, labels = table[scored], queries.labels[scored]
    intervals = bootstrap_intervals(table, bootstrap, seed) if bootstrap else np.empty((0, 2))
    per_class = {}
    for label in np.unique(labels):
        of_class = table[labels == label]
        means = zip(names, of_class.mean(axis=0).tolist(), strict=True)
        name = str(label) if class_names is None else class_names[label]
        per_class[name] = {"queries": len(of_class), **dict(means)}
    return {
        "protocol": "leave-one-out" if gallery is None else "queries against gallery",
        "metric": metric,
        "queries": int(scored.sum()),
        "left_out": int((~scored).sum()),
        "gallery": len(queries if gallery is None else gallery),
        "figures": dict(zip(names, table.mean(axis=0).tolist(), strict=True)),
        "intervals": dict(zip(names, intervals.tolist(), strict=False)),
        "per_class": per_class,
    }


def per_query(
    queries: Embeddings,
    gallery: Embeddings | None = None,
    k: Sequence[int] = (1, 5, 10),
    metric: str = "cosine",
) -> dict[str, np.ndarray]:
    """The figures of every query; arguments as for `evaluate`.

    Works through blocks of queries; takes some 300 MB beside the vectors, whatever their number.

    Returns:
        Figure name -> (Q,) float64, in the order of the queries; NaN where nothing is relevant.

    Raises:
        UserError: no queries, an unlabelled query, an empty gallery, another dimension, an unknown
            metric, or a k that is not in 1..number of items a query can find.
    """
    if not len(queries):
        raise UserError("there are no queries to evaluate; choose a split that has images")
    if (queries.labels == UNLABELLED).any():
        unlabelled = str(queries.ids[queries.labels == UNLABELLED][0])
        raise UserError(f"query {unlabelled!r} has no label; evaluate on labelled images")
    found = queries if gallery is None else gallery
    own = np.isin(found.ids, queries.ids).any()
    for rank in k:
        check_k(rank, len(found) - int(own))
    check_dimension(queries.vectors, found.vectors.shape[1])
    blocks = [
        score_rankings(relevance, relevance.sum(axis=1), k)
        for relevance in _ranked_relevance(queries, found, metric)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _ranked_relevance(
    queries: Embeddings, gallery: Embeddings, metric: str
) -> Iterator[np.ndarray]:
    """(B, N) bool for block after block of queries: whether the item at each rank is relevant.

    The query's own place is at the end and not relevant.
    """
    arithmetic = find_metric(metric)
    # In order of id, a tie by id is a tie by column.
    gallery = gallery.take(np.argsort(gallery.ids))
    prepared = arithmetic.prepare(gallery.vectors)
    own = positions_of(queries.ids, gallery.ids)
    columns = np.arange(len(gallery), dtype=np.uint64) << np.uint64(1)
    at_once = max(1, BLOCK_PAIRS // len(gallery))
    for start in range(0, len(queries), at_once):
        block = slice(start, start + at_once)
        rows = np.flatnonzero(own[block] >= 0)
        vectors = arithmetic.prepare(queries.vectors[block])
        distances = pairwise(arithmetic, vectors, prepared)
        relevance = queries.labels[block, None] == gallery.labels
        distances[rows, own[block][rows]] = np.inf
        relevance[rows, own[block][rows]] = False
        # One integer a pair: distance, then column, then relevance in the last bit. The bits of
        # floats that are not negative sort as the floats do, and integers sort fast.
        keys = distances.view(np.uint32).astype(np.uint64)
        keys <<= np.uint64(32)
        keys |= columns
        keys |= relevance
        keys.sort(axis=1)
        keys &= np.uint64(1)
        yield keys.astype(bool)


def bootstrap_intervals(values: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """95 % percentile intervals of the means, by resampling the rows with replacement.

    Args:
        values: (Q, F), a row for each query.
        resamples: number of resamples.
        seed: of the resampling.

    Returns:
        (F, 2) low and high ends (Efron & Tibshirani 1993, An Introduction to the Bootstrap, 13.3).
    """
    random = np.random.default_rng(seed)
    rows = len(values)
    at_once = max(1, BLOCK_DRAWS // rows)
    means = []
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        drawn = random.integers(rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows)
        means.append(times @ values / rows)
    return np.percentile(np.concatenate(means), INTERVAL, axis=0).T

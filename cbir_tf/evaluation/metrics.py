"""Evaluation of embeddings: every query ranks the gallery.

A gallery item is relevant to a query if it has the query's label or, where images have several
labels, shares at least one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from cbir_tf.config.arguments import of_kind, ranks, whole_number
from cbir_tf.errors import UserError
from cbir_tf.evaluation.bootstrap import bootstrap_intervals
from cbir_tf.evaluation.centroids import nearest_centroid
from cbir_tf.evaluation.label_sets import LabelSets
from cbir_tf.evaluation.rankings import (
    Hits,
    map_at_r,
    normalized_gain,
    recall_at_k,
    score_rankings,
)
from cbir_tf.parallel import blocks
from cbir_tf.progress import progress
from cbir_tf.search import check_k
from cbir_tf.search.distances import (
    find_metric,
    nearest_columns,
    pairwise,
    positions_in,
    sorting_keys,
)
from cbir_tf.search.index import check_dimension, positions_of
from cbir_tf.types import UNLABELLED, Embeddings

Item = TypeVar("Item")
Ranking = Callable[[Embeddings], np.ndarray]
"""From queries to (Q, K) positions in the gallery sorted by id, nearest first; -1 where none.

The query itself must not be in its row; an item that is not in the row counts as not found.
"""

_EMBEDDINGS = "Embeddings(ids, vectors, labels)"
BLOCK_PAIRS = 2**23
BLOCK_RANKED = 2**21


def evaluate(
    queries: Embeddings,
    gallery: Embeddings | None = None,
    k: Sequence[int] = (1, 5, 10),
    metric: str = "cosine",
    *,
    bootstrap: int = 0,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    label_sets: Mapping[str, Collection[str]] | None = None,
    ranking: Ranking | None = None,
) -> dict[str, Any]:
    """Mean metrics over all queries and by class.

    Args:
        queries: labelled embeddings, each of which ranks the gallery.
        gallery: embeddings to search; None: the queries themselves, each left out of its own
            ranking (leave-one-out). A gallery item with a query's id is left out of that query's
            ranking too; unlabelled items are ranked and never relevant.
        k: ranks for recall@k, precision@k, map@k and ndcg@k.
        metric: cosine, euclidean, manhattan or minkowski-P; ties in distance are ranked by id.
        bootstrap: number of resamples for the 95 % percentile intervals; 0: no intervals.
        seed: seed of the resampling.
        class_names: names by label, for the metrics by class; None: the labels as text.
        label_sets: labels of every image by id, where images have several; the single labels are
            then ignored.
        ranking: ranks the gallery in place of the distances, for example a search with
            re-ranking.

    Returns:
        A document ready for JSON::

            {"protocol": "leave-one-out" or "queries against gallery", "metric": ...,
             "queries": number scored, "left_out": number with nothing relevant,
             "gallery": number of items,
             "figures": {name: value}, "intervals": {name: [low, high]},
             "per_class": {class name: {"queries": number, name: value, ...}}}

        The names are those of `per_query`. A query with nothing relevant in the gallery is left
        out of every mean and counted. With label sets, a query counts in each of its classes.

    Raises:
        UserError: as `per_query`, too few class names, or no query has anything relevant in the
            gallery.

    Example:
        >>> found = Embeddings(list("abcd"), [[1, 0], [4, 1], [0, 1], [1, 4]], [0, 0, 1, 1])
        >>> evaluate(found, k=(1,))["figures"]["recall@1"]
        1.0
    """
    bootstrap, seed = whole_number(bootstrap, "bootstrap", 0), whole_number(seed, "seed", 0)
    values = per_query(queries, gallery, k, metric, label_sets, ranking)
    classes = (
        _classes(queries.labels, class_names) if label_sets is None else _sets(queries, label_sets)
    )
    return {
        "protocol": "leave-one-out" if gallery is None else "queries against gallery",
        "metric": metric,
        "gallery": len(queries if gallery is None else gallery),
        **summarize(values, classes, bootstrap, seed),
    }


def summarize(
    values: Mapping[str, np.ndarray],
    classes: Mapping[str, np.ndarray],
    bootstrap: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Means of the metrics of every query: the last five entries of `evaluate`'s document.

    Args:
        values: what `per_query` returned.
        classes: by class name, which queries are of the class: their positions, or (Q,) bool.
        bootstrap: number of resamples for the intervals; 0: no intervals.
        seed: seed of the resampling.

    Raises:
        UserError: no query has anything relevant in the gallery.

    Example:
        >>> summarize({"map": np.array([1.0, 0.5, np.nan])}, {"cat": np.array([True, False, True])})
        {'queries': 2, 'left_out': 1, 'figures': {'map': 0.75}, 'intervals': {}, \
'per_class': {'cat': {'queries': 1, 'map': 1.0}}}
    """
    names = list(values)
    table = np.stack([values[name] for name in names], axis=1)
    scored = ~np.isnan(table[:, 0])
    if not scored.any():
        raise UserError(
            "evaluate: no query has another image of its class in the gallery; "
            "evaluate on images with at least two of a class"
        )
    found = table[scored]
    intervals = bootstrap_intervals(found, bootstrap, seed) if bootstrap else np.empty((0, 2))
    per_class = {}
    rows = np.arange(len(table))
    for name, members in classes.items():
        of_class = rows[members]
        of_class = of_class[scored[of_class]]
        if len(of_class):
            means = zip(names, table[of_class].mean(axis=0).tolist(), strict=True)
            per_class[name] = {"queries": len(of_class), **dict(means)}
    return {
        "queries": int(scored.sum()),
        "left_out": int((~scored).sum()),
        "figures": dict(zip(names, found.mean(axis=0).tolist(), strict=True)),
        "intervals": dict(zip(names, intervals.tolist(), strict=False)),
        "per_class": per_class,
    }


def _classes(labels: np.ndarray, class_names: Sequence[str] | None) -> dict[str, np.ndarray]:
    """Positions of the queries of each class: as many numbers as queries, however many classes."""
    present, counts = np.unique(labels, return_counts=True)
    if class_names is not None and present[-1] >= len(class_names):
        raise UserError(
            f"class_names: {len(class_names)} names, but there is a label {present[-1]}; give one "
            "for each label"
        )
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    names = [str(label) if class_names is None else class_names[label] for label in present]
    return dict(zip(names, members, strict=True))


def _sets(queries: Embeddings, sets: Mapping[str, Collection[str]]) -> dict[str, np.ndarray]:
    labels = LabelSets({id_: sets[id_] for id_ in queries.ids.tolist()})
    by_class = labels.rows(queries.ids).tocsc()
    by_class.sort_indices()
    members = np.split(by_class.indices, by_class.indptr[1:-1])
    return dict(zip(labels.names, members, strict=False))


def per_query(
    queries: Embeddings,
    gallery: Embeddings | None = None,
    k: Sequence[int] = (1, 5, 10),
    metric: str = "cosine",
    label_sets: Mapping[str, Collection[str]] | None = None,
    ranking: Ranking | None = None,
) -> dict[str, np.ndarray]:
    """The metrics of every query; arguments as for `evaluate`.

    They are those of `cbir_tf.evaluation.rankings` and, as centroid_accuracy, that of
    `cbir_tf.evaluation.centroids`. With label sets, the gain of an item, for ndcg, is the Jaccard
    index of its set and the query's, and there is no centroid_accuracy.

    Queries are processed in blocks; about 300 MB of memory are needed besides the vectors.

    Returns:
        Name -> (Q,) float64, in the order of the queries; NaN where nothing is relevant.

    Raises:
        UserError: no queries, an unlabelled query, an image without an entry in the label sets,
            an empty gallery, dimensions that differ, an unknown metric, or a k outside 1..number
            of items that a query can find.

    Example:
        >>> found = Embeddings(list("abc"), [[0], [4], [3]], [0, 1, 0])
        >>> per_query(found, k=(1,), metric="euclidean")["mrr"].tolist()
        [1.0, nan, 0.5]
    """
    _check_queries(queries, labelled=label_sets is None)
    k = ranks(k)
    found = queries if gallery is None else of_kind(gallery, Embeddings, "gallery", _EMBEDDINGS)
    own = bool(np.isin(found.ids, queries.ids).any())
    for rank in k:
        check_k(rank, len(found), own)
    check_dimension(queries.vectors, found.vectors.shape[1])
    # Sorted by id, so that ties broken by column are broken by id.
    found = found.take(np.argsort(found.ids))
    sets = None if label_sets is None else LabelSets(label_sets)
    if ranking is not None:
        scored = list(_scored_rankings(queries, found, ranking, k, sets))
    elif sets is None:
        scored = [
            score_rankings(relevance, relevance.sum(axis=1), k)
            for relevance in _ranked_relevance(queries, found, metric)
        ]
    else:
        scored = [_score_gains(gains, k) for gains in _ranked_gains(queries, found, metric, sets)]
    figures = {name: np.concatenate([block[name] for block in scored]) for name in scored[0]}
    if label_sets is None:
        figures["centroid_accuracy"] = nearest_centroid(queries, found, metric)
    return figures


def figures_to_r(images: Embeddings, metric: str = "cosine") -> dict[str, float]:
    """recall@1 and MAP@R of a leave-one-out search: the same values as `evaluate` has.

    They look at the R nearest of each query alone, R being the number of other images of its class,
    and so need no ranking of all images, which takes several times as long.

    Args:
        images: labelled embeddings, each of which searches the others.
        metric: as for `evaluate`.

    Returns:
        The means by name: recall@1 and map_at_r.

    Raises:
        UserError: an unlabelled image, or no class with two images.

    Example:
        >>> found = Embeddings(list("abcd"), [[1, 0], [4, 1], [0, 1], [1, 4]], [0, 0, 1, 1])
        >>> figures_to_r(found)
        {'recall@1': 1.0, 'map_at_r': 1.0}
    """
    _check_queries(images)
    images = images.take(np.argsort(images.ids))
    scored = []
    for block, own, distances in _distances(images, images, metric):
        relevance = images.labels[block, None] == images.labels
        relevance[own] = False
        relevant = relevance.sum(axis=1)
        nearest = nearest_columns(distances, max(1, relevant.max()))
        hits = Hits.of(np.take_along_axis(relevance, nearest, axis=1))
        scored.append((recall_at_k(hits, relevant, 1), map_at_r(hits, relevant)))
    recall, precision = (np.concatenate(each) for each in zip(*scored, strict=True))
    summary = summarize({"recall@1": recall, "map_at_r": precision}, {})
    figures: dict[str, float] = summary["figures"]
    return figures


def _check_queries(queries: Embeddings, labelled: bool = True) -> None:
    of_kind(queries, Embeddings, "queries", _EMBEDDINGS)
    if not len(queries):
        raise UserError("evaluate: there are no queries to evaluate; choose a split with images")
    if labelled and (queries.labels == UNLABELLED).any():
        unlabelled = str(queries.ids[queries.labels == UNLABELLED][0])
        raise UserError(f"evaluate: query {unlabelled!r} has no label; evaluate on labelled images")


def _score_gains(gains: np.ndarray, k: Sequence[int]) -> dict[str, np.ndarray]:
    """The metrics of whole rankings, from the gain at each rank."""
    relevance = gains > 0
    figures = score_rankings(relevance, relevance.sum(axis=1), k)
    return figures | normalized_gain(gains, -np.sort(-gains, axis=1), k)


def _scored_rankings(
    queries: Embeddings,
    gallery: Embeddings,
    ranking: Ranking,
    k: Sequence[int],
    sets: LabelSets | None,
) -> Iterator[dict[str, np.ndarray]]:
    """The metrics of block after block of queries that `ranking` ranks."""
    own = positions_of(queries.ids, gallery.ids)
    for rows in _shown(list(blocks(len(queries), len(gallery), BLOCK_RANKED))):
        block = queries.take(rows)
        if sets is None:
            gains = (block.labels[:, None] == gallery.labels).astype(np.float32)
        else:
            gains = sets.gains(block.ids, gallery.ids)
        itself = own[rows]
        gains[np.flatnonzero(itself >= 0), itself[itself >= 0]] = 0
        positions = ranking(block)
        found = np.where(positions >= 0, np.take_along_axis(gains, positions, axis=1), 0)
        figures = score_rankings(found > 0, (gains > 0).sum(axis=1), k)
        if sets is not None:
            figures |= normalized_gain(found, -np.sort(-gains, axis=1), k)
        yield figures


def _ranked_relevance(
    queries: Embeddings, gallery: Embeddings, metric: str
) -> Iterator[np.ndarray]:
    """(B, N) bool for block after block of queries: whether the item at each rank is relevant.

    The query itself is last and not relevant.
    """
    for block, own, distances in _distances(queries, gallery, metric):
        relevance = queries.labels[block, None] == gallery.labels
        relevance[own] = False
        keys = sorting_keys(distances, np.arange(len(gallery)))
        keys |= relevance
        keys.sort(axis=1)
        keys &= np.uint64(1)
        yield keys.astype(bool)


def _ranked_gains(
    queries: Embeddings, gallery: Embeddings, metric: str, sets: LabelSets
) -> Iterator[np.ndarray]:
    """(B, N) float32 for block after block of queries: the gain of the item at each rank.

    The query itself is last with gain 0.
    """
    for block, own, distances in _distances(queries, gallery, metric):
        gains = sets.gains(queries.ids[block], gallery.ids)
        gains[own] = 0
        keys = sorting_keys(distances, np.arange(len(gallery)))
        keys.sort(axis=1)
        yield np.take_along_axis(gains, positions_in(keys), axis=1)


def _distances(
    queries: Embeddings, gallery: Embeddings, metric: str
) -> Iterator[tuple[slice, tuple[np.ndarray, np.ndarray], np.ndarray]]:
    """(B, N) distances of block after block of queries, with their own entries in the gallery.

    A query's distance to itself is infinite.
    """
    arithmetic = find_metric(metric)
    prepared = arithmetic.prepare(gallery.vectors)
    positions = positions_of(queries.ids, gallery.ids)
    for block in _shown(list(blocks(len(queries), len(gallery), BLOCK_PAIRS))):
        distances = pairwise(arithmetic, arithmetic.prepare(queries.vectors[block]), prepared)
        rows = np.flatnonzero(positions[block] >= 0)
        own = rows, positions[block][rows]
        distances[own] = np.inf
        yield block, own, distances


def _shown(parts: Sequence[Item]) -> Iterable[Item]:
    """The blocks, with a progress bar if there are several."""
    return progress(parts, description="ranking", unit="blocks") if len(parts) > 1 else parts

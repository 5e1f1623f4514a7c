"""Figures of a ranking, from where in it the relevant items stand. Pure functions.

With R relevant items in the gallery, rel(i) = 1 where the item at rank i = 1, 2, ... is relevant,
and P(i) = (rel(1) + ... + rel(i)) / i:

    recall@k      1 if any of rel(1..k), else 0: the convention of metric learning
    precision@k   P(k)
    map           average precision: sum of P(i) rel(i) over all ranks / R
    map@k         sum of P(i) rel(i) over ranks 1..k / R, trec_eval's map_cut: at most k / R
    map_at_r      sum of P(i) rel(i) over ranks 1..R / R (Musgrave et al. 2020, A Metric Learning
                  Reality Check)
    r_precision   P(R)
    mrr           1 / rank of the first relevant item, 0 where none was found
    ndcg          sum of gain(i) / log2(i + 1) over all ranks, as a share of the same sum of the
                  best ranking there could be (Jarvelin & Kekalainen 2002, Cumulated Gain-based
                  Evaluation of IR Techniques; the gain itself, as trec_eval)
    ndcg@k        both sums over ranks 1..k

Where relevance is not graded, the gain of what is relevant is 1.

The figure of a set of queries is the mean over the queries.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def score_rankings(
    relevance: np.ndarray, relevant: np.ndarray, k: Sequence[int] = (1, 5, 10)
) -> dict[str, np.ndarray]:
    """Score rankings by the formulas above.

    Args:
        relevance: (Q, N) bool, whether the item at each rank is relevant; a ranking shorter than
            N is filled up with False.
        relevant: (Q,) number of relevant items in the gallery, found or not.
        k: ranks for recall@k, precision@k, map@k and ndcg@k.

    Returns:
        Figure name -> (Q,) float64; NaN where nothing is relevant.

    Example:
        >>> ranking = np.array([[True, False, True, False]])
        >>> figures = score_rankings(ranking, np.array([2]), k=(1,))
        >>> {name: float(value.round(3)[0]) for name, value in figures.items()}
        {'recall@1': 1.0, 'precision@1': 1.0, 'map@1': 0.5, 'ndcg@1': 1.0, 'map': 0.833, \
'map_at_r': 0.5, 'r_precision': 0.5, 'mrr': 1.0, 'ndcg': 0.92}
    """
    queries, width = relevance.shape
    # Relevant items are few beside the gallery: the rest of the work is done on them alone.
    rows, columns = np.divmod(np.flatnonzero(relevance), max(width, 1))
    ranks = columns + 1
    found = np.bincount(rows, minlength=queries)
    first = np.cumsum(found) - found
    precision = (np.arange(len(rows)) - first[rows] + 1) / ranks

    def total(within: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        weights = None if values is None else values[within]
        return np.bincount(rows[within], weights=weights, minlength=queries)

    everywhere = np.ones(len(rows), dtype=bool)
    within_r = ranks <= relevant[rows]
    share = 1 / np.where(relevant > 0, relevant, np.nan)
    discounts = 1 / np.log2(ranks + 1)
    ideal = np.cumsum(1 / np.log2(np.arange(relevant.max(initial=0)) + 2))
    ideal = np.concatenate([[np.nan], ideal])
    hits = {rank: total(ranks <= rank) for rank in k}
    figures = {f"recall@{rank}": (hits[rank] > 0).astype(np.float64) for rank in k}
    figures |= {f"precision@{rank}": hits[rank] / rank for rank in k}
    figures |= {f"map@{rank}": total(ranks <= rank, precision) * share for rank in k}
    for rank in k:
        gain = total(ranks <= rank, discounts)
        figures[f"ndcg@{rank}"] = gain / ideal[np.minimum(rank, relevant)]
    figures["map"] = total(everywhere, precision) * share
    figures["map_at_r"] = total(within_r, precision) * share
    figures["r_precision"] = total(within_r) * share
    leading = np.zeros(queries)
    leading[found > 0] = 1 / ranks[first[found > 0]]
    figures["mrr"] = leading
    figures["ndcg"] = total(everywhere, discounts) / ideal[relevant]
    return {name: np.where(relevant > 0, values, np.nan) for name, values in figures.items()}


def normalized_gain(
    gains: np.ndarray, ideal: np.ndarray, k: Sequence[int] = (1, 5, 10)
) -> dict[str, np.ndarray]:
    """NDCG of graded rankings, by the formula above.

    Args:
        gains: (Q, N) gain of the item at each rank, 0 for what is not relevant.
        ideal: (Q, R) gains of all relevant items, downwards, filled up with 0.
        k: ranks for ndcg@k.

    Returns:
        Figure name -> (Q,) float64; NaN where nothing is relevant.

    Example:
        >>> gains, ideal = np.array([[0, 3, 1]]), np.array([[3, 1]])
        >>> figures = normalized_gain(gains, ideal, k=[2])
        >>> {name: float(value.round(3)[0]) for name, value in figures.items()}
        {'ndcg@2': 0.521, 'ndcg': 0.659}
    """
    found, best = _discounted(gains), _discounted(ideal)
    ranks = {f"ndcg@{rank}": rank for rank in k} | {"ndcg": max(gains.shape[1], ideal.shape[1])}
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            name: np.where(
                best[:, -1] > 0,
                found[:, min(rank, gains.shape[1])] / best[:, min(rank, ideal.shape[1])],
                np.nan,
            )
            for name, rank in ranks.items()
        }


def _discounted(gains: np.ndarray) -> np.ndarray:
    """(Q, N + 1) cumulated discounted gain of the first 0..N ranks."""
    discounts = np.log2(np.arange(gains.shape[1]) + 2)
    total = np.cumsum(gains / discounts, axis=1)
    return np.concatenate([np.zeros((len(gains), 1)), total], axis=1)

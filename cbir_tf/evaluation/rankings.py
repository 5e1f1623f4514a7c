"""Retrieval metrics of rankings: pure functions of where in each the relevant items stand.

Every function takes a row for each query:

    relevance   (Q, N) bool, whether the item at each rank is relevant; a ranking shorter than N is
                filled up with False
    relevant    (Q,) number of relevant items in the gallery, found or not: R

or lists of them, and returns (Q,) float64, NaN for a query with nothing relevant in the gallery.
The metric of a set of queries is the mean over the queries. In the formulas rel(i) is 1 where the
item at rank i = 1, 2, ... is relevant, else 0, and P(i) = (rel(1) + ... + rel(i)) / i.

To compute several metrics of the same rankings, give them one `Hits` in place of the array, as
`score_rankings` does: the array is then read only once. An argument of another shape or type is a
UserError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cbir_tf.config.arguments import ranks, whole_number
from cbir_tf.errors import UserError


@dataclass(frozen=True, eq=False)
class Hits:
    """The relevant items of rankings: few beside the gallery, and all that the metrics look at.

    Attributes:
        queries: number of rankings, Q.
        rows: (H,) int64, the ranking of each hit, ascending.
        ranks: (H,) int64, its rank from 1 on, ascending within a ranking.
        precision: (H,) float64, P(rank) of its ranking.
    """

    queries: int
    rows: np.ndarray
    ranks: np.ndarray
    precision: np.ndarray

    @classmethod
    def of(cls, relevance: np.ndarray) -> Hits:
        """The hits of (Q, N) bool relevance.

        Example:
            >>> Hits.of(np.array([[True, False, True]])).ranks.tolist()
            [1, 3]
        """
        queries, width = relevance.shape
        rows, columns = np.divmod(np.flatnonzero(relevance), max(width, 1))
        found = np.bincount(rows, minlength=queries)
        before = (np.cumsum(found) - found)[rows]
        ranks = columns + 1
        return cls(queries, rows, ranks, (np.arange(len(rows)) - before + 1) / ranks)

    def count(self, chosen: np.ndarray) -> np.ndarray:
        """(Q,) number of hits that (H,) bool `chosen` picks."""
        return np.bincount(self.rows[chosen], minlength=self.queries)

    def total(self, chosen: np.ndarray, values: np.ndarray) -> np.ndarray:
        """(Q,) sum of the values, one for each hit that (H,) bool `chosen` picks."""
        return np.bincount(self.rows[chosen], weights=values, minlength=self.queries)


Relevance = np.ndarray | Hits
"""(Q, N) bool, or the hits of it."""


def recall_at_k(relevance: Relevance, relevant: np.ndarray, k: int) -> np.ndarray:
    """recall@k = 1 if any of rel(1), ..., rel(k) is 1, else 0.

    This is the convention of metric learning (Song et al. 2016, Deep Metric Learning via Lifted
    Structured Feature Embedding, https://arxiv.org/abs/1511.06452), not the share of the relevant
    items that was found.

    Example:
        >>> recall_at_k(np.array([[False, True], [True, False]]), np.array([2, 2]), k=1).tolist()
        [0.0, 1.0]
    """
    hits, relevant = _checked(relevance, relevant)
    k = whole_number(k, "k", 1)
    return _where_relevant((hits.count(hits.ranks <= k) > 0).astype(np.float64), relevant)


def precision_at_k(relevance: Relevance, relevant: np.ndarray, k: int) -> np.ndarray:
    """precision@k = P(k); ranks past the end of a ranking count as not relevant.

    Example:
        >>> precision_at_k(np.array([[False, True, True, False]]), np.array([2]), k=2).tolist()
        [0.5]
    """
    hits, relevant = _checked(relevance, relevant)
    k = whole_number(k, "k", 1)
    return _where_relevant(hits.count(hits.ranks <= k) / k, relevant)


def average_precision(
    relevance: Relevance, relevant: np.ndarray, k: int | None = None
) -> np.ndarray:
    """AP = sum of P(i) rel(i) over all ranks / R; its mean over queries is mAP.

    With k the sum ends at rank k, and the mean is trec_eval's map_cut_k, here map@k: as the
    denominator stays R, it is at most k / R.

    Example:
        >>> ranking = np.array([[True, False, True, False]])
        >>> average_precision(ranking, np.array([2])).round(3).tolist()
        [0.833]
        >>> average_precision(ranking, np.array([2]), k=2).tolist()
        [0.5]
    """
    hits, relevant = _checked(relevance, relevant)
    k = None if k is None else whole_number(k, "k", 1)
    chosen = np.ones(len(hits.ranks), dtype=bool) if k is None else hits.ranks <= k
    return _share_of(relevant, hits.total(chosen, hits.precision[chosen]))


def map_at_r(relevance: Relevance, relevant: np.ndarray) -> np.ndarray:
    """MAP@R = sum of P(i) rel(i) over the ranks 1..R / R.

    Musgrave et al. 2020, A Metric Learning Reality Check, https://arxiv.org/abs/2003.08505.

    Example:
        >>> map_at_r(np.array([[True, False, True, False]]), np.array([2])).tolist()
        [0.5]
    """
    hits, relevant = _checked(relevance, relevant)
    chosen = hits.ranks <= relevant[hits.rows]
    return _share_of(relevant, hits.total(chosen, hits.precision[chosen]))


def r_precision(relevance: Relevance, relevant: np.ndarray) -> np.ndarray:
    """R-precision = P(R); trec_eval's Rprec.

    Example:
        >>> r_precision(np.array([[False, True, True, False]]), np.array([2])).tolist()
        [0.5]
    """
    hits, relevant = _checked(relevance, relevant)
    return _share_of(relevant, hits.count(hits.ranks <= relevant[hits.rows]))


def reciprocal_rank(relevance: Relevance, relevant: np.ndarray) -> np.ndarray:
    """RR = 1 / rank of the first relevant item, 0 where none was found; its mean is MRR.

    Example:
        >>> reciprocal_rank(np.array([[False, True, True], [False] * 3]), np.array([2, 1])).tolist()
        [0.5, 0.0]
    """
    hits, relevant = _checked(relevance, relevant)
    first = np.flatnonzero(np.diff(hits.rows, prepend=-1))
    values = np.zeros(hits.queries)
    values[hits.rows[first]] = 1 / hits.ranks[first]
    return _where_relevant(values, relevant)


def ndcg(relevance: Relevance, relevant: np.ndarray, k: int | None = None) -> np.ndarray:
    """NDCG = DCG / DCG of the best ranking, DCG = sum of rel(i) / log2(i + 1) over all ranks.

    With k both sums end at rank k. Jarvelin & Kekalainen 2002, Cumulated Gain-based Evaluation of
    IR Techniques. For graded relevance see `normalized_gain`.

    Example:
        >>> ndcg(np.array([[True, False, True, False]]), np.array([2])).round(3).tolist()
        [0.92]
    """
    hits, relevant = _checked(relevance, relevant)
    k = None if k is None else whole_number(k, "k", 1)
    chosen = np.ones(len(hits.ranks), dtype=bool) if k is None else hits.ranks <= k
    gain = hits.total(chosen, 1 / np.log2(hits.ranks[chosen] + 1))
    best = np.cumsum(1 / np.log2(np.arange(relevant.max(initial=0)) + 2))
    ranks = relevant if k is None else np.minimum(k, relevant)
    return _where_relevant(gain / np.concatenate([[1.0], best])[ranks], relevant)


def score_rankings(
    relevance: np.ndarray, relevant: np.ndarray, k: Sequence[int] = (1, 5, 10)
) -> dict[str, np.ndarray]:
    """All the metrics above in one pass.

    Args:
        relevance: (Q, N) bool, whether the item at each rank is relevant.
        relevant: (Q,) number of relevant items in the gallery.
        k: ranks for recall@k, precision@k, map@k and ndcg@k.

    Returns:
        Name -> (Q,) float64; NaN where nothing is relevant.

    Example:
        >>> ranking = np.array([[True, False, True, False]])
        >>> figures = score_rankings(ranking, np.array([2]), k=(1,))
        >>> {name: float(value.round(3)[0]) for name, value in figures.items()}
        {'recall@1': 1.0, 'precision@1': 1.0, 'map@1': 0.5, 'ndcg@1': 1.0, 'map': 0.833, \
'map_at_r': 0.5, 'r_precision': 0.5, 'mrr': 1.0, 'ndcg': 0.92}
    """
    hits, relevant = _checked(relevance, relevant)
    k = ranks(k)
    figures = {f"recall@{rank}": recall_at_k(hits, relevant, rank) for rank in k}
    figures |= {f"precision@{rank}": precision_at_k(hits, relevant, rank) for rank in k}
    figures |= {f"map@{rank}": average_precision(hits, relevant, rank) for rank in k}
    figures |= {f"ndcg@{rank}": ndcg(hits, relevant, rank) for rank in k}
    return figures | {
        "map": average_precision(hits, relevant),
        "map_at_r": map_at_r(hits, relevant),
        "r_precision": r_precision(hits, relevant),
        "mrr": reciprocal_rank(hits, relevant),
        "ndcg": ndcg(hits, relevant),
    }


def normalized_gain(
    gains: np.ndarray, ideal: np.ndarray, k: Sequence[int] = (1, 5, 10)
) -> dict[str, np.ndarray]:
    """NDCG of graded rankings: as `ndcg`, with a gain in place of rel(i), as trec_eval has it.

    Args:
        gains: (Q, N) gain of the item at each rank, 0 for an item that is not relevant.
        ideal: (Q, R) gains of all relevant items, descending, filled up with 0.
        k: ranks for ndcg@k.

    Returns:
        ndcg and each ndcg@k -> (Q,) float64; NaN where nothing is relevant.

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


def _checked(relevance: Relevance, relevant: np.ndarray) -> tuple[Hits, np.ndarray]:
    """The hits, and (Q,) integer numbers of relevant items; lists are taken for arrays.

    Raises:
        UserError: another shape or type, or a number that is negative or no integer.
    """
    if isinstance(relevance, Hits):
        return relevance, relevant
    found, numbers = _array(relevance, "relevance"), np.atleast_1d(_array(relevant, "relevant"))
    found = found[np.newaxis] if found.ndim == 1 else found
    if found.ndim != 2 or numbers.shape != (len(found),):
        raise UserError(
            f"relevance {found.shape} and relevant {numbers.shape}: should be (queries, ranks) and "
            "(queries,)"
        )
    whole = numbers.astype(np.int64)
    if (whole != numbers).any() or (whole < 0).any():
        raise UserError("relevant: should be the number of relevant items of each query, 0 or more")
    return Hits.of(found != 0), whole


def _array(values: object, name: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError:  # of unequal lengths
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "biuf":
        raise UserError(f"{name}: should be numbers in rows of one length, got {array.dtype}")
    return array


def _share_of(relevant: np.ndarray, total: np.ndarray) -> np.ndarray:
    return _where_relevant(total / np.maximum(relevant, 1), relevant)


def _where_relevant(values: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    return np.where(relevant > 0, values, np.nan)


def _discounted(gains: np.ndarray) -> np.ndarray:
    """(Q, N + 1) cumulated discounted gain of the first 0..N ranks."""
    discounts = np.log2(np.arange(gains.shape[1]) + 2)
    total = np.cumsum(gains / discounts, axis=1)
    return np.concatenate([np.zeros((len(gains), 1)), total], axis=1)

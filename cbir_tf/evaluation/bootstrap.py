"""Intervals and differences of mean metrics, by the bootstrap over queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cbir_tf.config.arguments import whole_number
from cbir_tf.errors import UserError
from cbir_tf.parallel import blocks

BLOCK_DRAWS = 2**22
INTERVAL = (2.5, 97.5)
"""Percentiles of a 95 % interval."""


def bootstrap_means(values: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """Means of the rows, drawn with replacement as often as there are rows.

    Args:
        values: (Q, F), a row for each query.
        resamples: number of resamples.
        seed: seed of the resampling.

    Returns:
        (resamples, F) float64.

    Example:
        >>> bootstrap_means(np.array([[0.0], [1.0]]), resamples=4, seed=1).ravel().tolist()
        [0.5, 1.0, 0.0, 1.0]
    """
    resamples, seed = whole_number(resamples, "resamples", 1), whole_number(seed, "seed", 0)
    random = np.random.default_rng(seed)
    rows = len(values)
    means = []
    for block in blocks(resamples, rows, BLOCK_DRAWS):
        size = block.stop - block.start
        drawn = random.integers(rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows)
        means.append(times @ values / rows)
    return np.concatenate(means)


def bootstrap_intervals(values: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """95 % percentile intervals of the mean of each column.

    The 2.5 and 97.5 % percentiles of `bootstrap_means` (Efron & Tibshirani 1993, An Introduction
    to the Bootstrap, 13.3).

    Args:
        values: (Q, F), a row for each query.
        resamples: number of resamples.
        seed: seed of the resampling.

    Returns:
        (F, 2) float64 low and high ends.

    Example:
        >>> recall = np.array([[1.0]] * 70 + [[0.0]] * 30)
        >>> bootstrap_intervals(recall, resamples=2000).round(1).tolist()
        [[0.6, 0.8]]
    """
    ends: np.ndarray = np.percentile(bootstrap_means(values, resamples, seed), INTERVAL, axis=0)
    return ends.T


@dataclass(frozen=True)
class Difference:
    """A metric of one run minus that of another.

    Attributes:
        mean: mean of the differences by query.
        low: lower end of its 95 % interval.
        high: upper end.
        p_value: two-sided, for the hypothesis of no difference.
        queries: number of queries that both runs have.
    """

    mean: float
    low: float
    high: float
    p_value: float
    queries: int


def paired_bootstrap(
    values: Mapping[str, np.ndarray],
    others: Mapping[str, np.ndarray],
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Differences between the mean metrics of two runs on the same queries.

    With d(q) the difference at query q, and m(1), ..., m(B) the means of B resamples of the d(q):

        mean      (d(1) + ... + d(Q)) / Q
        interval  2.5 and 97.5 % percentiles of the m(b)
        p-value   (1 + number of b with |m(b) - mean| >= |mean|) / (B + 1)

    As both runs find the same queries hard, the difference is known better than either mean. The
    p-value is that of the shifted bootstrap (Smucker et al. 2007, A Comparison of Statistical
    Significance Tests for Information Retrieval Evaluation, https://doi.org/10.1145/1321440.1321528);
    the observed difference counts as one of the resamples, so that it is never 0.

    Args:
        values: (Q,) by name, the metrics of every query (`cbir_tf.evaluation.per_query`); NaN
            where nothing is relevant.
        others: the same of another run, for the same queries in the same order.
        resamples: number of resamples, B.
        seed: seed of the resampling.

    Returns:
        The difference in each metric that both have. Queries with a NaN are left out.

    Raises:
        UserError: the runs share no metric or no query, or differ in the number of queries.

    Example:
        >>> ours, theirs = {"map": np.array([0.5, 0.7, 0.9])}, {"map": np.array([0.4, 0.6, 0.8])}
        >>> round(paired_bootstrap(ours, theirs)["map"].low, 3)
        0.1
    """
    names = [name for name in values if name in others]
    if not names:
        raise UserError("no figure is in both runs; give the same measures of both")
    lengths = {len(each[name]) for name in names for each in (values, others)}
    if len(lengths) > 1:
        raise UserError(
            f"the figures are of {sorted(lengths)} queries: not the same ones; give equal queries"
        )
    differences = np.stack([values[name] - others[name] for name in names], axis=1)
    differences = differences[~np.isnan(differences).any(axis=1)]
    if not len(differences):
        raise UserError("no query has a figure in both runs; give queries with something relevant")
    mean = differences.mean(axis=0)
    means = bootstrap_means(differences, resamples, seed)
    low, high = np.percentile(means, INTERVAL, axis=0)
    # Rounding must not count equal distances as smaller.
    as_far = (np.abs(means - mean) >= np.abs(mean) - 1e-12).sum(axis=0)
    p_values = (as_far + 1) / (resamples + 1)
    columns = zip(mean.tolist(), low.tolist(), high.tolist(), p_values.tolist(), strict=True)
    return {
        name: Difference(*column, queries=len(differences))
        for name, column in zip(names, columns, strict=True)
    }

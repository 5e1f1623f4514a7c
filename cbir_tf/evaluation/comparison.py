"""Two runs on the same queries: is one better, and by how much."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cbir_tf.evaluation.metrics import INTERVAL


@dataclass(frozen=True)
class Difference:
    """A figure of one run less that of another.

    Attributes:
        mean: of the differences by query.
        low: lower end of its 95 % interval.
        high: upper end.
        p_value: two-sided, of there being no difference.
        queries: number of queries both runs have.
    """

    mean: float
    low: float
    high: float
    p_value: float
    queries: int


def paired_bootstrap(
    values: np.ndarray, others: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """The difference of two means over the same queries, by resampling the queries.

    Both runs find the same queries easy and hard, so that the difference is known much better than
    either mean. The p-value is that of the shifted bootstrap (Smucker et al. 2007, A Comparison of
    Statistical Significance Tests for Information Retrieval Evaluation): the share of resamples,
    moved to have mean zero, that are as far from it as the difference found.

    Args:
        values: (Q,) a figure by query; NaN where nothing was to be found.
        others: (Q,) the same of another run, for the same queries in the same order.
        resamples: number of resamples.
        seed: of the resampling.

    Raises:
        ValueError: another number of queries, or none that both have.
    """
    if values.shape != others.shape:
        raise ValueError(f"{values.shape} values beside {others.shape}: not the same queries")
    differences = (values - others)[~np.isnan(values - others)]
    if not len(differences):
        raise ValueError("no query has a figure in both runs")
    mean = float(differences.mean())
    random = np.random.default_rng(seed)
    count, block = len(differences), 100
    means = np.concatenate(
        [
            differences[random.integers(count, size=(block, count))].mean(axis=1)
            for _ in range(-(-resamples // block))
        ]
    )
    low, high = np.percentile(means, INTERVAL)
    as_far = np.abs(means - mean) >= abs(mean) - 1e-12
    return Difference(mean, float(low), float(high), float(as_far.mean()), len(differences))

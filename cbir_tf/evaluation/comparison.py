"""Two runs on the same queries: is one better, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cbir_tf.evaluation.metrics import INTERVAL, bootstrap_means


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
    values: Mapping[str, np.ndarray],
    others: Mapping[str, np.ndarray],
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Difference]:
    """The differences of the means of two runs' figures, by resampling the queries.

    Both runs find the same queries easy and hard, so that the difference is known much better than
    either mean. The p-value is that of the shifted bootstrap (Smucker et al. 2007, A Comparison of
    Statistical Significance Tests for Information Retrieval Evaluation): the share of resamples,
    moved to have mean zero, that are as far from it as the difference found. The difference itself
    counts as one of them, so that the smallest p-value is 1 / (resamples + 1) and never 0.

    Args:
        values: (Q,) by name, the figures of every query (`cbir_tf.evaluation.per_query`); NaN
            where nothing was to be found.
        others: the same of another run, for the same queries in the same order.
        resamples: number of resamples.
        seed: of the resampling.

    Returns:
        The difference in each figure that both have. Queries with a NaN are left out.

    Raises:
        ValueError: no figure or no query that both have, or another number of queries.

    Example:
        >>> ours, theirs = {"map": np.array([0.5, 0.7, 0.9])}, {"map": np.array([0.4, 0.6, 0.8])}
        >>> round(paired_bootstrap(ours, theirs)["map"].low, 3)
        0.1
    """
    names = [name for name in values if name in others]
    if not names:
        raise ValueError("no figure is in both runs")
    lengths = {len(each[name]) for name in names for each in (values, others)}
    if len(lengths) > 1:
        raise ValueError(f"the figures are of {sorted(lengths)} queries: not the same ones")
    differences = np.stack([values[name] - others[name] for name in names], axis=1)
    differences = differences[~np.isnan(differences).any(axis=1)]
    if not len(differences):
        raise ValueError("no query has a figure in both runs")
    mean = differences.mean(axis=0)
    means = bootstrap_means(differences, resamples, seed)
    low, high = np.percentile(means, INTERVAL, axis=0)
    # What is equal but for rounding is as far.
    as_far = (np.abs(means - mean) >= np.abs(mean) - 1e-12).sum(axis=0)
    p_values = (as_far + 1) / (resamples + 1)
    return {
        name: Difference(
            float(mean[column]),
            float(low[column]),
            float(high[column]),
            float(p_values[column]),
            len(differences),
        )
        for column, name in enumerate(names)
    }

"""The paired bootstrap beside scipy's, and what it has to say of known differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cbir_tf.evaluation.comparison import paired_bootstrap


@pytest.mark.parametrize("effect", [0.0, 0.02, 0.2])
def test_interval_and_p_value_are_those_of_other_methods(effect):
    random = np.random.default_rng(3)
    hardness = random.normal(size=400)
    ours = hardness + effect + random.normal(size=400) / 5
    theirs = hardness + random.normal(size=400) / 5
    found = paired_bootstrap(ours, theirs, resamples=20_000)
    sample = (ours - theirs,)
    other = stats.bootstrap(
        sample, np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(0)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=2e-3)
    assert found.p_value == pytest.approx(stats.ttest_rel(ours, theirs).pvalue, abs=0.02)
    assert found.mean == pytest.approx(np.mean(ours - theirs))


def test_pairing_tells_apart_what_separate_intervals_cannot():
    random = np.random.default_rng(0)
    hardness = random.uniform(size=300)
    found = paired_bootstrap(hardness + 0.01, hardness + random.normal(size=300) / 100)
    assert found.low > 0 and found.p_value < 0.01


def test_no_difference_at_all_is_no_evidence():
    found = paired_bootstrap(np.ones(10), np.ones(10))
    assert (found.mean, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_queries_without_a_figure_are_left_out_in_pairs():
    ours, theirs = np.array([1, np.nan, 0.5, 0]), np.array([0.5, 1, 0.5, np.nan])
    found = paired_bootstrap(ours, theirs)
    assert (found.queries, found.mean) == (2, 0.25)
    with pytest.raises(ValueError, match="not the same queries"):
        paired_bootstrap(ours, theirs[:3])
    with pytest.raises(ValueError, match="no query"):
        paired_bootstrap(np.array([np.nan]), np.array([1.0]))

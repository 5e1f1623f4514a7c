"""The paired bootstrap beside scipy's, and what it has to say of known differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cbir_tf.errors import UserError
from cbir_tf.evaluation import paired_bootstrap


@pytest.mark.parametrize("effect", [0.0, 0.02, 0.2])
def test_interval_and_p_value_are_those_of_other_methods(effect):
    random = np.random.default_rng(3)
    hardness = random.normal(size=400)
    ours = hardness + effect + random.normal(size=400) / 5
    theirs = hardness + random.normal(size=400) / 5
    found = paired_bootstrap({"map": ours}, {"map": theirs}, resamples=20_000)["map"]
    sample = (ours - theirs,)
    other = stats.bootstrap(
        sample, np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(0)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=2e-3)
    assert found.p_value == pytest.approx(stats.ttest_rel(ours, theirs).pvalue, abs=0.02)
    flipped = stats.permutation_test(
        sample, np.mean, permutation_type="samples", n_resamples=5_000, rng=np.random.default_rng(0)
    )
    assert found.p_value == pytest.approx(flipped.pvalue, abs=0.02)
    assert found.mean == pytest.approx(np.mean(ours - theirs))


def test_half_of_the_p_values_of_no_difference_are_below_one_half():
    """By definition of a p-value; hits and misses, as recall has them."""
    random = np.random.default_rng(0)
    p_values = [
        paired_bootstrap({"recall@1": one}, {"recall@1": other}, 400, seed)["recall@1"].p_value
        for seed, (one, other) in enumerate((random.random((300, 2, 200)) < 0.7).astype(float))
    ]
    assert np.mean(np.array(p_values) < 0.5) == pytest.approx(0.5, abs=0.12)
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.04)


def test_paired_differences_are_found_where_separate_intervals_overlap():
    random = np.random.default_rng(0)
    hardness = random.uniform(size=300)
    others = hardness + random.normal(size=300) / 100
    found = paired_bootstrap({"map": hardness + 0.01}, {"map": others})["map"]
    assert found.low > 0 and found.p_value < 0.01


def test_no_difference_at_all_is_no_evidence():
    found = paired_bootstrap({"map": np.ones(10)}, {"map": np.ones(10)})["map"]
    assert (found.mean, found.low, found.high, found.p_value) == (0, 0, 0, 1)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_the_other_way_round_is_the_same_with_the_other_sign(pairs):
    one, other = ({"map": np.array(each)} for each in zip(*pairs, strict=True))
    found = paired_bootstrap(one, other, 200)["map"]
    back = paired_bootstrap(other, one, 200)["map"]
    assert (back.mean, back.low, back.high) == pytest.approx((-found.mean, -found.high, -found.low))
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9 or len(pairs) < 10
    assert 1 / 201 <= found.p_value == back.p_value <= 1


def test_figures_together_are_figures_alone():
    random = np.random.default_rng(0)
    ours, theirs = ({name: random.random(50) for name in "ab"} for _ in range(2))
    together = paired_bootstrap(ours, theirs | {"c": random.random(50)}, 100)
    assert list(together) == ["a", "b"]
    for name, alone in together.items():
        again = paired_bootstrap({name: ours[name]}, theirs, 100)[name]
        assert vars(again) == pytest.approx(vars(alone))


def test_queries_without_a_figure_are_left_out_in_pairs():
    ours, theirs = np.array([1, np.nan, 0.5, 0]), np.array([0.5, 1, 0.5, np.nan])
    found = paired_bootstrap({"map": ours}, {"map": theirs})["map"]
    assert (found.queries, found.mean) == (2, 0.25)
    with pytest.raises(UserError, match="not the same"):
        paired_bootstrap({"map": ours}, {"map": theirs[:3]})
    with pytest.raises(UserError, match="no query"):
        paired_bootstrap({"map": np.array([np.nan])}, {"map": np.array([1.0])})
    with pytest.raises(UserError, match="no figure"):
        paired_bootstrap({"map": ours}, {"mrr": theirs})

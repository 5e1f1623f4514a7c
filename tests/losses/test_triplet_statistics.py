"""What a triplet loss sees in a set of embeddings."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir_tf.losses import triplet_statistics


@settings(max_examples=40, deadline=None)
@given(
    batch=st.lists(
        st.tuples(st.integers(0, 2), st.integers(-8, 8), st.integers(-8, 8)), min_size=1, max_size=9
    ),
    margin=st.sampled_from([0.0, 1.0, 4.0]),
)
def test_figures_are_those_of_nested_loops(batch, margin):
    labels = np.array([label for label, *_ in batch])
    points = np.array([point for _, *point in batch], np.float32)
    positives, negatives, active = [], [], []
    for anchor, other in itertools.permutations(range(len(batch)), 2):
        distance = float(np.square(points[anchor] - points[other]).sum())
        (positives if labels[anchor] == labels[other] else negatives).append(distance)
        for third in range(len(batch)):
            if labels[anchor] == labels[other] != labels[third]:
                farther = float(np.square(points[anchor] - points[third]).sum())
                active.append(distance + margin > farther)

    actual = triplet_statistics(labels, points, margin, "squared-L2")
    to_the_middle = np.square(points - points.mean(axis=0, dtype=np.float64)).sum(axis=1)
    expected = {
        "positive_distance": np.mean(positives) if positives else math.nan,
        "negative_distance": np.mean(negatives) if negatives else math.nan,
        "active_fraction": np.mean(active) if active else math.nan,
        "spread": math.sqrt(to_the_middle.mean()),
    }
    assert actual == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True)


def test_a_collapsed_embedding_has_no_spread_and_only_active_triplets():
    embeddings = np.full((32, 8), 0.25, np.float32)
    statistics = triplet_statistics(np.arange(32) // 4, embeddings, margin=0.2)
    assert statistics == {
        "positive_distance": 0,
        "negative_distance": 0,
        "active_fraction": 1,
        "spread": 0,
    }


def test_separate_classes_have_no_active_triplet():
    labels = np.arange(12) // 4
    statistics = triplet_statistics(labels, np.eye(3, dtype=np.float32)[labels], margin=0.2)
    assert statistics["active_fraction"] == 0
    assert statistics["positive_distance"] == 0
    assert statistics["negative_distance"] == pytest.approx(math.sqrt(2))
    # Three unit vectors at right angles lie sqrt(2/3) from their mean.
    assert statistics["spread"] == pytest.approx(math.sqrt(2 / 3))


def test_nothing_to_compare_is_not_a_number():
    statistics = triplet_statistics(np.zeros(0, int), np.zeros((0, 4), np.float32), margin=0.2)
    assert all(math.isnan(value) for value in statistics.values())

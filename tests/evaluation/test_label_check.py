"""Contradicted labels and outliers, against loops over every image."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cbir_tf.evaluation.label_check import contradicted_labels, outliers


@st.composite
def labelled_neighbours(draw):
    count, k = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    labels = st.integers(-1, 3)
    return draw(arrays(np.int64, count, elements=labels)), draw(
        arrays(np.int64, (count, k), elements=labels)
    )


@given(labelled_neighbours(), st.sampled_from([0.5, 0.8, 1.0]))
def test_a_label_is_contradicted_where_a_count_of_its_neighbours_says(given_labels, share):
    labels, neighbours = given_labels
    expected = {}
    for row, label in enumerate(labels.tolist()):
        votes = [each for each in neighbours[row].tolist() if each >= 0]
        members = sum(each == label for each in labels.tolist())
        if label < 0 or not votes or members <= neighbours.shape[1]:
            continue
        most = max(votes.count(each) for each in votes)
        suggested = min(each for each in votes if votes.count(each) == most)
        if suggested != label and most / neighbours.shape[1] >= share:
            expected[row] = (suggested, most / neighbours.shape[1])
    found = contradicted_labels(labels, neighbours, share)
    assert {each.row: (each.suggested, each.share) for each in found} == expected
    assert [each.share for each in found] == sorted((each.share for each in found), reverse=True)
    assert all(each.label == labels[each.row] for each in found)


@given(
    arrays(np.float64, st.tuples(st.integers(1, 20), st.integers(1, 4)), elements=st.floats(0, 9))
)
def test_outliers_lie_beyond_tukeys_outer_fence(distances):
    means = [sum(row) / len(row) for row in distances.tolist()]
    first, third = np.quantile(means, 0.25), np.quantile(means, 0.75)
    found = outliers(distances).tolist()
    for row, mean in enumerate(means):
        gap = mean - (third + 3 * (third - first))
        if third == first:
            assert not found
        elif abs(gap) > 1e-9:
            assert (row in found) == (gap > 0)
    assert [means[row] for row in found] == sorted((means[row] for row in found), reverse=True)


def test_nothing_is_found_where_there_is_nothing():
    assert outliers(np.empty((0, 3))).tolist() == []
    assert contradicted_labels(np.empty(0, np.int64), np.empty((0, 3), np.int64)) == []

"""A sample of a recall is believed only beyond its own error."""

from __future__ import annotations

import numpy as np
import pytest

from cbir_tf.search.distances import between, find_metric
from cbir_tf.search.recall import SAMPLE, RecallSample

METRIC = find_metric("euclidean")
STORED = np.random.default_rng(0).normal(size=(1200, 2))


def exactly(rows: np.ndarray, wanted: int) -> np.ndarray:
    distances = between(METRIC, STORED[rows, np.newaxis], STORED)
    return np.argsort(distances, axis=1)[:, :wanted]


def test_the_share_found_is_that_of_the_true_neighbours():
    def nearly(rows: np.ndarray, wanted: int, missed: int) -> np.ndarray:
        found = exactly(rows, wanted)
        found[:, 1 : 1 + missed] = -1  # not the query, which is its own nearest
        return found

    for recall, tried, expected in (
        (0.5, [9, 6, 4, 0], (0.6, True)),
        (0.95, [9, 6, 4], (0.6, False)),
        (1.0, [4, 0], (1.0, True)),
    ):
        sample = RecallSample(STORED, 2, exactly, recall, seed=0)
        assert sample.least(tried, nearly) == (pytest.approx(expected[0]), expected[1])


@pytest.mark.parametrize(("error", "enough"), [(1.5, False), (2.5, True)])
def test_a_recall_within_two_standard_errors_of_the_target_is_not_enough(error, enough):
    """A tenth of the queries find nothing but themselves, all others everything."""
    share, deviation = 0.9, np.sqrt(0.9 * 0.1)

    def nearly(rows: np.ndarray, wanted: int, _: None) -> np.ndarray:
        found = exactly(rows, wanted)
        found[::10, 1:] = -1
        return found

    recall = share - error * deviation / np.sqrt(SAMPLE)
    reached, surely = RecallSample(STORED, 2, exactly, recall, seed=0).least([None], nearly)
    assert reached == pytest.approx(share)
    assert surely == enough

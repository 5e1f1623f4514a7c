"""The threshold of a match: against a naive search, and on out-of-gallery queries."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbir_tf.errors import UserError
from cbir_tf.retrieval.calibration import Calibration, nearest_of_other_classes
from cbir_tf.types import UNLABELLED, Embeddings


def labelled(count: int, seed: int, classes: int = 4, dimension: int = 3) -> Embeddings:
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(count) % classes)
    vectors = random.normal(size=(count, dimension)) + 3 * np.eye(classes, dimension)[labels]
    return Embeddings([f"{seed}-{each:04d}" for each in range(count)], vectors, labels)


@given(count=st.integers(2, 30), seed=st.integers(0, 99))
def test_an_out_of_gallery_query_is_compared_with_every_other_class(count, seed):
    queries, gallery = labelled(count, seed), labelled(20, seed + 100)
    found = nearest_of_other_classes(queries, gallery, "euclidean")
    for vector, label, distance in zip(queries.vectors, queries.labels, found, strict=True):
        others = [
            math.dist(vector.tolist(), other.tolist())
            for other, their_label in zip(gallery.vectors, gallery.labels, strict=True)
            if their_label != label
        ]
        assert distance == pytest.approx(min(others), rel=1e-6)


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_as_many_new_out_of_gallery_queries_as_wanted_for_find_a_match(rate):
    """Over many calibrations, new out-of-gallery queries match at the set rate, or just below."""
    gallery = labelled(400, 1)
    false = []
    for seed in range(60):
        calibrated = Calibration.measure(labelled(200, 1000 + seed), gallery, "euclidean", rate)
        fresh = nearest_of_other_classes(labelled(200, 5000 + seed), gallery, "euclidean")
        false += [calibrated.matches(each) for each in fresh]
    # 12,000 queries: three standard errors, and the rank's rounding down of 1 in 201.
    error = 3 * math.sqrt(rate * (1 - rate) / len(false)) + 3 * rate / math.sqrt(60 * 200 * rate)
    assert rate - 1 / 201 - error <= np.mean(false) <= rate + error


def test_how_sure_a_match_is_falls_with_the_distance_and_agrees_with_the_threshold():
    calibrated = Calibration.measure(labelled(99, 2), labelled(300, 3), "cosine", 0.1)
    distances = np.linspace(0, 2, 50)
    rates = [calibrated.false_match_rate_at(each) for each in distances]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(1 / 100) and rates[-1] == 1
    for distance, rate in zip(distances, rates, strict=True):
        assert calibrated.matches(distance) == (rate <= 0.1)


def test_it_is_stored_openly_and_read_back(tmp_path):
    calibrated = Calibration.measure(labelled(50, 2), labelled(60, 3), "cosine", 0.1, "digest")
    calibrated.save(tmp_path / "no_match.json")
    assert Calibration.load(tmp_path / "no_match.json") == calibrated
    # One from before there were projections has none.
    values = json.loads((tmp_path / "no_match.json").read_text())
    del values["whitening"]
    (tmp_path / "no_match.json").write_text(json.dumps(values))
    assert Calibration.load(tmp_path / "no_match.json") == calibrated
    (tmp_path / "no_match.json").write_text('{"threshold": 1}')
    with pytest.raises(UserError, match="damaged"):
        Calibration.load(tmp_path / "no_match.json")


def test_a_run_that_cannot_be_calibrated_is_a_one_line_error():
    gallery = labelled(40, 3)
    for rate in (0, 1, -0.5):
        with pytest.raises(UserError, match="must be above 0 and below 1"):
            Calibration.measure(labelled(50, 2), gallery, "cosine", rate)
    with pytest.raises(UserError, match=r"from 0\.02 up"):
        Calibration.measure(labelled(50, 2), gallery, "cosine", 0.01)
    one_class = gallery.take(gallery.labels == 0)
    with pytest.raises(UserError, match="at least two classes"):
        Calibration.measure(one_class, one_class, "cosine", 0.2)
    unlabelled = Embeddings(gallery.ids, gallery.vectors, np.full(40, UNLABELLED))
    with pytest.raises(UserError, match="labelled validation images"):
        Calibration.measure(unlabelled, gallery, "cosine", 0.2)

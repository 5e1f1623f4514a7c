"""Accuracy of the nearest centroid beside naive loops and scikit-learn's classifier."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestCentroid

from cbir_tf.errors import UserError
from cbir_tf.evaluation import evaluate, nearest_centroid
from cbir_tf.search import METRICS
from cbir_tf.types import UNLABELLED, Embeddings


def clusters(count: int, seed: int, prefix: str = "") -> Embeddings:
    random = np.random.default_rng(seed)
    labels = random.integers(5, size=count)
    vectors = random.normal(size=(count, 8)) + 1.5 * np.eye(5, 8)[labels]
    return Embeddings([f"{prefix}{each:04d}" for each in range(count)], vectors, labels)


def naive_distance(metric: str, vector: np.ndarray, points: np.ndarray) -> float:
    """Of a vector to the mean of some."""
    if metric == "cosine":
        lengths = np.linalg.norm(points, axis=1, keepdims=True)
        mean = (points / lengths).mean(axis=0)
        if np.linalg.norm(mean) < 1e-12:
            return 1.0
        return 1 - vector @ mean / np.linalg.norm(vector) / np.linalg.norm(mean)
    difference = vector - points.mean(axis=0)
    return np.abs(difference).sum() if metric == "manhattan" else np.linalg.norm(difference)


def naive_candidates(queries: Embeddings, gallery: Embeddings, metric: str):
    """For each query, the labels whose centroid is the nearest within rounding; None: left out."""
    for id_, vector, label in zip(queries.ids, queries.vectors, queries.labels, strict=True):
        distances = {
            other: naive_distance(
                metric, vector.astype(float), gallery.vectors[members].astype(float)
            )
            for other in set(gallery.labels.tolist()) - {UNLABELLED}
            if (members := (gallery.labels == other) & (gallery.ids != id_)).any()
        }
        if label not in distances:
            yield label, None
        else:
            nearest = min(distances.values())
            yield label, {each for each in distances if distances[each] <= nearest + 1e-6}


@st.composite
def labelled(draw, smallest_label: int = 0):
    """Small whole numbers, and ids that two sets share."""
    row = st.lists(st.integers(-2, 2), min_size=2, max_size=2).filter(any)
    vectors = draw(st.lists(row, min_size=2, max_size=20))
    count = len(vectors)
    ids = draw(st.lists(st.integers(0, 40), min_size=count, max_size=count, unique=True))
    label = st.integers(smallest_label, 3)
    return Embeddings(
        [str(each) for each in ids], vectors, draw(st.lists(label, min_size=count, max_size=count))
    )


@pytest.mark.parametrize("metric", METRICS)
@given(queries=labelled(), gallery=labelled(smallest_label=-1) | st.none())
def test_agrees_with_naive_loops_with_ties_shared_ids_and_classes_of_one(metric, queries, gallery):
    found = nearest_centroid(queries, gallery, metric)
    expected = naive_candidates(queries, queries if gallery is None else gallery, metric)
    for value, (label, nearest) in zip(found, expected, strict=True):
        if nearest is None:
            assert np.isnan(value)
        elif label not in nearest:
            assert value == 0
        elif nearest == {label}:
            assert value == 1
        else:  # a tie within rounding
            assert value in (0, 1)


def test_is_scikit_learns_classifier():
    queries, gallery = clusters(150, 1, "q"), clusters(300, 2)
    classifier = NearestCentroid().fit(gallery.vectors, gallery.labels)
    correct = classifier.predict(queries.vectors) == queries.labels
    assert np.array_equal(nearest_centroid(queries, gallery, "euclidean"), correct)
    assert evaluate(queries, gallery, metric="euclidean")["figures"]["centroid_accuracy"] == (
        pytest.approx(correct.mean())
    )


def test_a_query_does_not_draw_the_centroid_to_itself():
    """Without itself, the class of each is the other vector alone, farther than the other class."""
    found = Embeddings(list("abcd"), [[0, 4], [0, -4], [0.5, 4.5], [0.5, -4.5]], [0, 0, 1, 1])
    assert nearest_centroid(found, metric="euclidean").tolist() == [0, 0, 0, 0]
    others = Embeddings(list("efgh"), found.vectors, found.labels)
    assert nearest_centroid(found, others, "euclidean").tolist() == [1, 1, 1, 1]


def test_equally_near_centroids_go_by_label():
    gallery = Embeddings(["a", "b"], [[1, 0], [-1, 0]], [7, 3])
    queries = Embeddings(["p", "q"], [[0, 1], [0, 1]], [3, 7])
    assert nearest_centroid(queries, gallery, "euclidean").tolist() == [1, 0]


def test_directions_that_cancel_out_leave_none():
    """Without the last, [2, -2] and [-2, 2] are its class: at distance 1, the other at 1.46."""
    vectors = [[2, -2], [-1, -1], [-2, 2], [-1, -2], [-1, 2]]
    found = Embeddings(list("abcde"), vectors, [2, 1, 2, 1, 2])
    assert nearest_centroid(found).tolist()[4] == 1


def test_blocks_do_not_show(monkeypatch):
    images = clusters(300, 3)
    whole = nearest_centroid(images)
    monkeypatch.setattr("cbir_tf.evaluation.centroids.BLOCK_PAIRS", 64)
    assert np.array_equal(nearest_centroid(images), whole)


def test_an_unknown_metric_is_a_one_line_error():
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        nearest_centroid(clusters(5, 0), metric="cosin")

"""Classifiers agree with scikit-learn, with loops and with the true probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from cbir_tf.errors import UserError
from cbir_tf.retrieval.classifiers import LinearMachine, NearestVote, fit_classifier
from cbir_tf.types import Embeddings

NAMES = ("knn", "svm")


def blobs(count: int, classes: int = 3, seed: int = 0, distance: float = 2.0) -> Embeddings:
    """Normal clouds around the ends of the axes."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=count)
    vectors = random.normal(size=(count, 4)) + distance * np.eye(classes, 4)[labels]
    return Embeddings([f"{seed}-{each:05d}" for each in range(count)], vectors, 10 * labels)


def likeliest(classifier, vectors) -> np.ndarray:
    return classifier.labels[classifier.probabilities(vectors).argmax(axis=1)]


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
@pytest.mark.parametrize("neighbours", [1, 7])
def test_votes_are_those_of_scikit_learns_classifier(metric, neighbours):
    training, queries = blobs(90), blobs(40, seed=1)
    theirs = KNeighborsClassifier(neighbours, metric=metric).fit(training.vectors, training.labels)
    votes = theirs.predict_proba(queries.vectors) * neighbours
    ours = NearestVote(training, metric, neighbours)
    assert ours.labels.tolist() == theirs.classes_.tolist() == [0, 10, 20]
    np.testing.assert_allclose(
        ours.probabilities(queries.vectors), (votes + 1 / 3) / (neighbours + 1)
    )


@given(seed=st.integers(0, 99), neighbours=st.integers(1, 12))
def test_an_image_has_no_vote_on_itself(seed, neighbours):
    training = blobs(10, seed=seed)
    found = NearestVote(training, "euclidean", neighbours).probabilities(
        training.vectors, training.ids
    )
    classes = np.unique(training.labels)
    count = min(neighbours, 9)
    for row, vector in enumerate(training.vectors):
        others = [each for each in range(10) if each != row]
        others.sort(key=lambda each: np.linalg.norm(training.vectors[each] - vector))
        votes = [
            sum(training.labels[each] == label for each in others[:count]) for label in classes
        ]
        expected = [(each + 1 / len(classes)) / (count + 1) for each in votes]
        np.testing.assert_allclose(found[row], expected)


def test_the_linear_machine_decides_as_scikit_learns():
    training, queries = blobs(300), blobs(200, seed=1)
    scale = np.sqrt(np.square(training.vectors).sum(axis=1).mean())
    theirs = LinearSVC(random_state=0).fit(training.vectors / scale, training.labels)
    ours = likeliest(LinearMachine(training, "euclidean"), queries.vectors)
    assert (ours == theirs.predict(queries.vectors / scale)).mean() > 0.98


def test_of_two_clouds_the_linear_machine_gives_the_true_probabilities():
    training, queries = blobs(3000, classes=2), blobs(500, classes=2, seed=1)
    # Bayes' rule for two normal clouds of variance 1, at 2 on the first axis and on the second.
    x, y, *_ = queries.vectors.T
    expected = 1 / (1 + np.exp(2 * (x - y)))
    found = LinearMachine(training, "euclidean").probabilities(queries.vectors)[:, 1]
    assert np.abs(found - expected).mean() < 0.03


def test_predicted_probabilities_match_the_share_of_correct_predictions():
    training, queries = blobs(2000, classes=4), blobs(4000, classes=4, seed=1)
    machine = LinearMachine(training, "euclidean")
    said = machine.probabilities(queries.vectors)
    right = machine.labels[said.argmax(axis=1)] == queries.labels
    for low, high in ((0.3, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.0)):
        some = (low <= said.max(axis=1)) & (said.max(axis=1) < high)
        assert some.sum() > 100
        assert right[some].mean() == pytest.approx(said.max(axis=1)[some].mean(), abs=0.08)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_images_in_any_order_give_the_same_probabilities(name):
    training, queries = blobs(60), blobs(20, seed=1)
    first = fit_classifier(name, training, "cosine").probabilities(queries.vectors)
    shuffled = training.take(np.random.default_rng(0).permutation(60))
    again = fit_classifier(name, shuffled, "cosine").probabilities(queries.vectors)
    assert np.array_equal(first, again)
    np.testing.assert_allclose(first.sum(axis=1), 1)
    assert (first > 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("labels", [[0, 0, 0, 0, 1, 1, 2], [0, 0, 1, 2], [0, 1], [0, 1, 2]])
def test_small_classes_do(name, labels):
    vectors = 10 * np.eye(3)[labels] + np.random.default_rng(0).normal(size=(len(labels), 3))
    training = Embeddings([f"{each}" for each in range(len(labels))], vectors, labels)
    classifier = fit_classifier(name, training, "euclidean", neighbours=1)
    classes = sorted(set(labels))
    assert likeliest(classifier, 10 * np.eye(3)[classes]).tolist() == classes


@pytest.mark.parametrize("name", NAMES)
def test_unlabelled_images_teach_nothing_and_one_class_is_too_few(name):
    training, queries = blobs(60), blobs(20, seed=1)
    more = Embeddings(
        [*training.ids, "new"],
        np.vstack([training.vectors, queries.vectors[:1]]),
        [*training.labels, -1],
    )
    expected = fit_classifier(name, training, "cosine").probabilities(queries.vectors)
    found = fit_classifier(name, more, "cosine").probabilities(queries.vectors)
    assert np.array_equal(found, expected)
    with pytest.raises(UserError, match="two or more classes"):
        fit_classifier(name, training.take(training.labels == 10), "cosine")


@pytest.mark.parametrize("name", NAMES)
def test_vectors_of_another_model_are_refused(name):
    classifier = fit_classifier(name, blobs(60), "cosine")
    with pytest.raises(UserError, match="dimension is 4"):
        classifier.probabilities(np.ones((2, 5)))

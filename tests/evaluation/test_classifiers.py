"""Classifiers: fitted to the training vectors alone, measured on others, alike every time."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from cbir_tf.errors import UserError
from cbir_tf.evaluation.classifier_comparison import CLASSIFIERS, _that_fit, classify
from cbir_tf.evaluation.table import format_classifiers
from cbir_tf.types import Embeddings


def blobs(count: int, seed: int, spread: float = 1.0, classes: int = 3) -> Embeddings:
    """Classes around corners 4 apart, in two numbers of very different size and two of noise."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = np.array([[0, 0], [4, 0], [0, 4], [4, 4]])[labels]
    vectors = np.hstack([centres, np.zeros((count, 2))]) + random.normal(0, spread, (count, 4))
    ids = [f"{seed}/{number}" for number in range(count)]
    return Embeddings(ids, vectors * [1000, 0.001, 1, 1], labels)


def without_seconds(result):
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in result["classifiers"]]
    return result | {"classifiers": rows}


@pytest.mark.slow
def test_every_classifier_separates_blobs_at_any_scale_of_the_vectors():
    result = classify(blobs(90, 0), blobs(60, 1), bootstrap=200)
    assert [row["name"] for row in result["classifiers"]] == list(CLASSIFIERS)
    assert (result["training"], result["test"], result["dimensions"]) == (90, 60, 4)
    assert result["folds"] == 5
    assert result["most_frequent_class"] == pytest.approx(1 / 3)
    for row in result["classifiers"]:
        assert row["accuracy"] > 0.9, row
        assert row["macro_f1"] == pytest.approx(row["accuracy"], abs=0.02)
        low, high = row["interval"]
        assert low <= row["accuracy"] <= high
        assert 0.85 < row["cross_validation"] <= 1
        assert row["seconds"] >= 0
    text = format_classifiers(result)
    assert "random forest" in text and "60 test images, fitted to 90" in text
    again = classify(blobs(90, 0), blobs(60, 1), bootstrap=200)
    assert without_seconds(again) == without_seconds(result)


def test_figures_are_those_of_a_loop_over_the_test_images():
    """Nearest neighbours, k and weights fixed by what is found, counted by hand."""
    training, test = blobs(30, 0, spread=2), blobs(45, 1, spread=2)
    (row,) = classify(training, test, ["knn"], bootstrap=0)["classifiers"]
    mean, deviation = training.vectors.mean(axis=0), training.vectors.std(axis=0)
    known, asked = ((each.vectors - mean) / deviation for each in (training, test))
    k, weights = row["parameters"]["n_neighbors"], row["parameters"]["weights"]
    predicted = []
    for vector in asked:
        distances = np.sqrt(((known - vector) ** 2).sum(axis=1))
        votes = np.zeros(3)
        for place in np.argsort(distances)[:k]:
            vote = 1 / distances[place] if weights == "distance" else 1
            votes[training.labels[place]] += vote
        predicted.append(int(votes.argmax()))
    right = [ours == label for ours, label in zip(predicted, test.labels, strict=True)]
    scores = []
    for label in range(3):
        hits = sum(
            ours == label and truth == label
            for ours, truth in zip(predicted, test.labels, strict=True)
        )
        scores.append(2 * hits / (predicted.count(label) + (test.labels == label).sum()))
    assert "interval" not in row
    assert row["accuracy"] == pytest.approx(sum(right) / 45)
    assert row["macro_f1"] == pytest.approx(sum(scores) / 3)
    assert row["accuracy"] < 1


def test_unlabelled_images_are_left_out_and_small_classes_have_fewer_folds():
    training = blobs(9, 0)
    extended = Embeddings(
        [*training.ids, "x"], np.vstack([training.vectors, [[9, 9, 9, 9]]]), [*training.labels, -1]
    )
    result = classify(extended, blobs(9, 1), ["knn"], bootstrap=0)
    assert (result["training"], result["folds"]) == (9, 3)
    assert result["classifiers"][0]["parameters"]["n_neighbors"] <= 6


def test_classes_with_fewer_than_two_training_images_are_left_out_and_named(caplog):
    training, test = blobs(30, 0), blobs(12, 1, classes=4)
    extended = Embeddings(
        [*training.ids, "x"], np.vstack([training.vectors, [[9, 9, 9, 9]]]), [*training.labels, 4]
    )
    names = ["a", "b", "c", "unseen", "single"]
    result = classify(extended, test, ["knn"], bootstrap=0, class_names=names)
    assert (result["training"], result["test"]) == (30, 9)
    assert result["left_out"] == {"unseen": [0, 3], "single": [1, 0]}
    alone = classify(training, test.take(test.labels < 3), ["knn"], bootstrap=0)
    assert without_seconds(result) == without_seconds(alone) | {"left_out": result["left_out"]}
    assert "single, with 1 training images" in caplog.text
    assert "3 test images: unseen, single" in format_classifiers(result)


@pytest.mark.parametrize(
    ("training", "test", "message"),
    [
        (blobs(3, 0), blobs(9, 1), "two images each"),
        (blobs(9, 0, classes=1), blobs(9, 1, classes=1), "two classes"),
        (blobs(9, 0), Embeddings(["a"], np.ones((1, 4)), [7]), "no test image has a class"),
        (blobs(9, 0), Embeddings(["a"], np.ones((1, 4)), [-1]), "no labelled image"),
    ],
)
def test_embeddings_that_cannot_be_classified_are_a_one_line_error(training, test, message):
    with pytest.raises(UserError, match=message):
        classify(training, test, ["nb"])


def test_an_unknown_classifier_names_the_nearest():
    with pytest.raises(UserError, match="no 'svn'; did you mean 'svm'"):
        classify(blobs(9, 0), blobs(9, 1), ["svn"])


def test_a_classifier_of_too_large_tables_is_left_out_and_named(caplog):
    logger = logging.getLogger("cbir_tf")
    logger.addHandler(caplog.handler)
    try:
        assert _that_fit(["lr", "knn", "rf"], 50_000, 500) == ["lr", "knn"]
        assert _that_fit(["rf"], 5_000, 10) == ["rf"]
        with pytest.raises(UserError, match="60,502 images of 22,634 classes"):
            _that_fit(list(CLASSIFIERS), 60_502, 22_634)
    finally:
        logger.removeHandler(caplog.handler)
    assert "random forest: too large" in caplog.text

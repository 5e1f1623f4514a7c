"""The confusion matrix and the list of mistakes."""

from __future__ import annotations

import csv
import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as reference_confusion

from cbir_tf.errors import UserError
from cbir_tf.evaluation import Mistake, confusion_matrix, mistakes
from cbir_tf.evaluation.confusion import write_confusions
from cbir_tf.search import make_index
from cbir_tf.types import Embeddings, Results

GALLERY = Embeddings(["z", "m", "a"], np.eye(3), [2, 1, 0])
QUERIES = Embeddings(["q1", "q2", "q3", "q0"], np.ones((4, 3)), [0, 2, 1, 1])
FOUND = Results(
    [["a", "m"], ["m", "z"], ["a", "m"], ["z", "m"]],
    [[0.1, 0.2], [0.3, 0.4], [0.25, 0.5], [0.3, 0.9]],
)


def test_rows_are_the_query_and_columns_its_nearest_neighbour():
    expected = [[1, 0, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert confusion_matrix(FOUND, QUERIES, GALLERY, classes=4).toarray().tolist() == expected


def test_the_nearest_wrong_neighbour_comes_first_and_ties_go_by_query_id():
    assert mistakes(FOUND, QUERIES, GALLERY) == [
        Mistake("q3", "a", 1, 0, 0.25),
        Mistake("q0", "z", 1, 2, float(np.float32(0.3))),
        Mistake("q2", "m", 2, 1, float(np.float32(0.3))),
    ]


def test_the_matrix_is_that_of_scikit_learn_and_holds_every_mistake():
    random = np.random.default_rng(0)
    labels = random.integers(4, size=90)
    images = Embeddings(
        [f"{each:03d}" for each in random.permutation(90)],
        random.normal(size=(90, 5)) + np.eye(4, 5)[labels],
        labels,
    )
    found = make_index("nearest_neighbors").fit(images).search(images.vectors, 3, images.ids)
    label_of = dict(zip(images.ids.tolist(), labels.tolist(), strict=True))
    nearest = [label_of[each] for each in found.ids[:, 0].tolist()]
    matrix = confusion_matrix(found, images, images, classes=4).toarray()
    assert np.array_equal(matrix, reference_confusion(labels, nearest))
    assert len(mistakes(found, images, images)) == 90 - np.trace(matrix) > 0


@pytest.mark.parametrize("unlabelled", ["queries", "gallery"])
def test_an_image_without_label_is_a_one_line_error(unlabelled):
    queries, gallery = QUERIES, GALLERY
    if unlabelled == "queries":
        queries = Embeddings(QUERIES.ids, QUERIES.vectors, [0, 2, 1, -1])
    else:
        gallery = Embeddings(GALLERY.ids, GALLERY.vectors, [-1, 1, 0])
    culprit = "q0" if unlabelled == "queries" else "z"
    with pytest.raises(UserError, match=f"'{culprit}' has no label"):
        confusion_matrix(FOUND, queries, gallery, classes=3)


def test_as_many_classes_as_images_take_memory_by_the_images(tmp_path):
    classes = 22_634
    ids = [f"{each:05d}" for each in range(classes)]
    images = Embeddings(ids, np.ones((classes, 1)), range(classes))
    found = Results(np.roll(images.ids, -1)[:, None], np.zeros((classes, 1)))
    tracemalloc.start()
    matrix = confusion_matrix(found, images, images, classes)
    names = [f"class {each}" for each in range(classes)]
    write_confusions(tmp_path / "table.csv", matrix, names)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 60e6  # the whole matrix would be 4 GB
    assert matrix.sum() == classes and matrix[5, 6] == 1 and matrix[5, 5] == 0
    with (tmp_path / "table.csv").open() as file:
        assert sum(1 for _ in file) == classes + 1


def test_the_table_has_every_count_the_wrong_ones_first(tmp_path):
    queries = Embeddings(list("abcdef"), np.ones((6, 1)), [0, 0, 0, 1, 1, 2])
    gallery = Embeddings(list("xyz"), np.ones((3, 1)), [0, 1, 2])
    found = Results([["x"], ["y"], ["y"], ["z"], ["y"], ["z"]], np.zeros((6, 1)))
    path = tmp_path / "table.csv"
    matrix = confusion_matrix(found, queries, gallery, 4)
    write_confusions(path, matrix, ["red, dark", "green", "blue", "none"])
    _, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    assert rows == [
        ["red, dark", "green", "2", "0.6667"],
        ["green", "blue", "1", "0.5000"],
        ["red, dark", "red, dark", "1", "0.3333"],
        ["green", "green", "1", "0.5000"],
        ["blue", "blue", "1", "1.0000"],
    ]


def test_a_label_beyond_the_classes_is_a_one_line_error():
    with pytest.raises(UserError, match="classes=2, but there is a label 2"):
        confusion_matrix(FOUND, QUERIES, GALLERY, classes=2)

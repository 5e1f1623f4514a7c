"""The confusion matrix and the mistakes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from scipy.sparse import coo_array

from cbir_tf.plots.confusion import _figure, confusion_matrix_png, mistakes_grid
from cbir_tf.plots.grids import NeighbourRow

MATRIX = np.array([[8, 2, 0], [1, 3, 0], [0, 0, 0]])
NAMES = ["hat", "coat", "shoe_$x$"]


def test_colours_are_shares_of_the_true_class():
    figure = _figure(MATRIX, NAMES, "t")
    shares = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shares, [[0.8, 0.2, 0], [0.25, 0.75, 0], [0, 0, 0]])
    assert figure.axes[0].images[0].get_clim() == (0, 1)


def test_counts_stand_in_their_cells_and_zeros_are_left_out():
    written = {
        text.get_position()[::-1]: text.get_text()
        for text in _figure(MATRIX, NAMES, "t").axes[0].texts
    }
    assert written == {(0, 0): "8", (0, 1): "2", (1, 0): "1", (1, 1): "3"}


def test_rows_are_true_and_columns_predicted_classes():
    axes = _figure(MATRIX, NAMES, "t").axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true class", "predicted class")
    assert [each.get_text() for each in axes.get_yticklabels()] == NAMES
    assert [each.get_text() for each in axes.get_xticklabels()] == NAMES
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_the_summary_counts_the_diagonal():
    texts = [each.get_text() for each in _figure(MATRIX, NAMES, "Test split").texts]
    assert texts == ["Test split", "14 images, 78.6% of them on the diagonal"]


@pytest.mark.parametrize("classes", [1, 2, 5, 10, 40])
def test_numbers_fit_their_cells_and_names_do_not_touch(classes):
    matrix = np.full((classes, classes), 12_345)
    figure = _figure(matrix, [f"class {each} " * 9 for each in range(classes)], "t")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    cell = axes.get_window_extent().width / classes
    assert all(text.get_window_extent().width < cell for text in axes.texts)
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        boxes = [each.get_window_extent() for each in labels]
        assert not any(one.overlaps(two) for one, two in pairwise(boxes))
        assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)


def test_a_hundred_classes_are_all_named_with_letters_that_can_be_read():
    figure = _figure(np.eye(100, dtype=int) * 37, [f"class {each}" for each in range(100)], "t")
    labels = figure.axes[0].get_yticklabels()
    assert len(labels) == 100
    assert min(each.get_size() for each in labels) >= 7
    assert min(each.get_size() for each in figure.axes[0].texts) >= 7


def test_of_very_many_classes_the_most_confused_are_shown_whatever_their_number(tmp_path):
    classes = 22_634
    wrong = [(7, 20_000, 9), (21_000, 3, 5), *((each, each + 1, 1) for each in range(500, 700, 2))]
    true, found, counts = np.array([*wrong, *((each, each, 40) for each in range(classes))]).T
    matrix = coo_array((counts, (true, found)), shape=(classes, classes)).tocsr()
    names = [f"class {each}" for each in range(classes)]
    figure = _figure(matrix, names, "t")
    axes = figure.axes[0]
    shown = [each.get_text() for each in axes.get_yticklabels()]
    assert len(shown) == len(axes.texts) - 2 - 48 == 100  # the diagonal, and 50 pairs of classes
    assert {"class 7", "class 20000", "class 21000", "class 3"} <= set(shown)
    title, summary = (each.get_text() for each in figure.texts)
    assert title == "t: the 100 most confused of 22,634 classes"
    assert summary.startswith("905,474 images, 100.0%")
    # Shares are those of the whole class: 9 of the 49 images of class 7 are taken for another.
    row, column = shown.index("class 7"), shown.index("class 20000")
    assert axes.images[0].get_array()[row, column] == pytest.approx(9 / 49)
    with Image.open(confusion_matrix_png(tmp_path / "m.png", matrix, names)) as picture:
        assert max(picture.size) < 6000


def test_a_matrix_of_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        confusion_matrix_png(tmp_path / "m.png", MATRIX, ["a", "b"])
    with pytest.raises(ValueError, match="counts"):
        confusion_matrix_png(tmp_path / "m.png", -MATRIX, NAMES)
    assert not list(tmp_path.iterdir())


def test_mistakes_are_drawn_as_queries_with_neighbours(tmp_path):
    gray = np.full((9, 9), 99, np.uint8)
    row = NeighbourRow(gray, "q.jpg\nhat", [gray] * 2, ["coat\n0.1", "hat\n0.2"], [False, True])
    paths = [mistakes_grid(tmp_path / f"{count}.png", [row] * count) for count in (0, 1, 3)]
    heights = [Image.open(path).height for path in paths]
    assert heights == sorted(heights)
    assert heights[0] < heights[2]

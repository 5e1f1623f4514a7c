"""The images of each class as bars."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cbir_tf.plots.classes import MOST_BARS, _figure, class_counts
from cbir_tf.types import SPLITS


def _bars(figure) -> dict[str, list[tuple[float, float]]]:
    """Where each bar begins and ends, downwards, by split."""
    return {
        bars.get_label(): [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars]
        for bars in figure.axes[0].containers
    }


def test_bars_are_sorted_and_parted_by_split():
    labels = np.array([2, 0, 2, 2, 0, -1, 2])
    split = np.array(["train", "test", "train", "", "train", "train", "test"])
    figure = _figure(labels, split, ["a", "nobody", "c"], "classes")
    assert [each.get_text() for each in figure.axes[0].get_yticklabels()] == ["c", "a"]
    assert _bars(figure) == {
        "train": [(0, 2), (0, 1)],
        "test": [(2, 3), (1, 2)],
        "in no split": [(3, 4), (2, 2)],
    }
    assert [each.get_text() for each in figure.axes[0].texts] == ["4", "2"]
    assert figure.axes[0].yaxis_inverted()


def test_of_very_many_classes_the_largest_are_shown():
    labels = np.repeat(np.arange(200), np.arange(1, 201))
    names = [f"class {number}" for number in range(200)]
    figure = _figure(labels, np.full(len(labels), "train"), names, "all")
    shown = [each.get_text() for each in figure.axes[0].get_yticklabels()]
    assert shown == names[: -MOST_BARS - 1 : -1]
    assert figure.texts[0].get_text() == "all: the 80 largest of 200"


@given(
    st.lists(st.tuples(st.integers(-1, 4), st.sampled_from([*SPLITS, ""])), max_size=12),
    st.lists(st.text(max_size=60), min_size=5, max_size=5),
)
@settings(max_examples=8, deadline=None)
def test_any_classes_make_a_picture(tmp_path_factory, images, names):
    labels, split = [label for label, _ in images], [split for _, split in images]
    path = tmp_path_factory.mktemp("classes") / "classes.png"
    with Image.open(class_counts(path, np.array(labels, int), np.array(split, str), names)) as made:
        assert min(made.size) >= 200


@pytest.mark.parametrize("labels", [[], [-1, -1]])
def test_no_labels_make_a_note(labels):
    figure = _figure(np.array(labels, int), np.full(len(labels), ""), ["a"], "classes")
    assert not figure.axes
    assert figure.texts[-1].get_text() == "No image has a label."

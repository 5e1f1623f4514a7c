"""Sets of labels and levels from columns of metadata."""

from __future__ import annotations

import pytest

from cbir_tf.errors import UserError
from cbir_tf.evaluation.columns import label_sets_of, level_of
from cbir_tf.types import ImageSet

NAMES = ("cat", "dog", "kite")


def images(*rows: tuple[int, dict[str, str | float]]) -> ImageSet:
    labels = [label for label, _ in rows]
    ids = [f"{number}.jpg" for number in range(len(rows))]
    metadata = tuple(columns for _, columns in rows)
    return ImageSet(ids, (b"",) * len(rows), labels, [""] * len(rows), NAMES, metadata)


def test_a_list_in_a_column_is_a_set_of_labels():
    found = images((0, {"all": "cat, dog"}), (1, {"all": "dog"}), (2, {}), (-1, {"all": 7}))
    assert label_sets_of(found, "all") == {
        "0.jpg": ["cat", "dog"],
        "1.jpg": ["dog"],
        "2.jpg": [],
        "3.jpg": ["7"],
    }


def test_a_column_with_one_value_a_class_is_a_level():
    found = images(
        (0, {"kind": "animal"}),
        (1, {"kind": "animal"}),
        (0, {}),
        (0, {"kind": "animal"}),
        (2, {"year": 2}),
        (-1, {"kind": "what is unlabelled has no say"}),
    )
    assert level_of(found, "kind") == {"cat": "animal", "dog": "animal"}
    assert level_of(found, "year") == {"kite": "2"}


def test_a_class_with_two_values_is_a_one_line_error():
    found = images((0, {"kind": "pet"}), (1, {"kind": "pet"}), (0, {"kind": "prey"}))
    with pytest.raises(UserError) as caught:
        level_of(found, "kind")
    for word in ("'kind'", "'cat'", "'0.jpg' has 'pet'", "'2.jpg' has 'prey'"):
        assert word in str(caught.value)


def test_a_column_that_is_not_there_names_the_nearest():
    with pytest.raises(UserError, match="no column 'knd'; did you mean 'kind'"):
        level_of(images((0, {"kind": "pet"})), "knd")
    with pytest.raises(UserError, match="no column 'kind'; the images have no metadata"):
        label_sets_of(images((0, {})), "kind")

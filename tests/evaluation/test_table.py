"""The figures as text."""

from __future__ import annotations

from cbir_tf.evaluation import format_classes, format_table

RESULT = {
    "protocol": "leave-one-out",
    "metric": "cosine",
    "queries": 10,
    "left_out": 1,
    "gallery": 11,
    "figures": {"recall@1": 0.9, "map": 0.76543},
    "intervals": {"recall@1": [0.8, 1.0], "map": [0.7, 0.8]},
    "per_class": {
        "a|b": {"queries": 6, "recall@1": 1.0, "map": 0.5},
        "owl": {"queries": 4, "recall@1": 0.75, "map": 0.25},
    },
}


def test_the_table_shows_all_measures_in_aligned_columns():
    assert (
        format_table(RESULT)
        == """\
leave-one-out: 10 queries, 1 left out with nothing relevant, 11 images in the gallery, \
cosine distance

| figure   |   value |    95 % interval |
|:---------|--------:|-----------------:|
| recall@1 |  0.9000 | 0.8000 to 1.0000 |
| map      |  0.7654 | 0.7000 to 0.8000 |"""
    )


def test_the_table_names_the_splits_where_they_are_known():
    table = format_table(RESULT | {"split": "test", "gallery_split": "train"})
    assert table.startswith("leave-one-out: 10 test queries, 1 left out")
    assert ", 11 train images in the gallery, " in table


def test_without_intervals_their_column_is_left_out():
    table = format_table(RESULT | {"intervals": {}, "left_out": 0})
    assert "interval" not in table
    assert "left out" not in table
    assert "| map      |  0.7654 |" in table


def test_classes_have_a_row_each_and_a_bar_in_a_name_does_not_break_the_table():
    assert (
        format_classes(RESULT, ["recall@1"])
        == """\
| class   |   queries |   recall@1 |
|:--------|----------:|-----------:|
| a\\|b    |         6 |     1.0000 |
| owl     |         4 |     0.7500 |"""
    )
    assert "map" in format_classes(RESULT)

"""The figures as text."""

from __future__ import annotations

from cbir_tf.evaluation import format_classes, format_table

RESULT = {
    "protocol": "leave-one-out",
    "metric": "cosine",
    "queries": 10,
    "left_out": 1,
    "gallery": 11,
    "figures": {"recall@1": 0.9, "map@1": 0.0035, "map": 0.76543, "map_at_r": 0.5},
    "intervals": {
        "recall@1": [0.8, 1.0],
        "map@1": [0, 1],
        "map": [0.7, 0.8],
        "map_at_r": [0.4, 0.6],
    },
    "per_class": {
        "owl": {"queries": 4, "recall@1": 0.75, "map@1": 0.1, "map": 0.25, "map_at_r": 0.5},
        "a|b": {"queries": 6, "recall@1": 1.0, "map@1": 0.1, "map": 0.5, "map_at_r": 0.25},
        "cow": {"queries": 6, "recall@1": 0.5, "map@1": 0.1, "map": 0.5, "map_at_r": 0.75},
    },
}


def test_the_table_shows_the_measures_but_map_at_k_in_aligned_columns():
    assert (
        format_table(RESULT)
        == """\
leave-one-out: 10 queries, 1 left out with nothing relevant, 11 images in the gallery, \
cosine distance

| figure   |   value |    95 % interval |
|:---------|--------:|-----------------:|
| recall@1 |  0.9000 | 0.8000 to 1.0000 |
| map      |  0.7654 | 0.7000 to 0.8000 |
| map_at_r |  0.5000 | 0.4000 to 0.6000 |"""
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


def test_classes_have_a_row_each_the_worst_first_and_a_bar_does_not_break_the_table():
    assert (
        format_classes(RESULT, ["recall@1"])
        == """\
| class   |   queries |   recall@1 |
|:--------|----------:|-----------:|
| cow     |         6 |     0.5000 |
| owl     |         4 |     0.7500 |
| a\\|b    |         6 |     1.0000 |"""
    )
    rows = format_classes(RESULT).splitlines()[2:]
    assert [row.split("|")[1].split("\\")[0].strip() for row in rows] == ["a", "owl", "cow"]


def test_of_very_many_classes_a_few_are_shown_and_the_rest_is_counted():
    rows = {
        f"{each:05d}": {"queries": 2, "recall@1": each / 30_000, "map_at_r": each / 30_000}
        for each in range(22_634)
    }
    table = format_classes(RESULT | {"per_class": rows}, ["recall@1", "map_at_r"], most=10)
    assert table.startswith("the 10 worst of 22,634 classes by map_at_r")
    assert len(table.splitlines()) == 14 and "| 00009 " in table and "| 00010 " not in table

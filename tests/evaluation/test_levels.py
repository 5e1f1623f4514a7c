"""Figures at the levels of a hierarchy of classes."""

from __future__ import annotations

import numpy as np
import pytest

from cbir_tf.errors import UserError
from cbir_tf.evaluation import evaluate, evaluate_levels, read_levels
from cbir_tf.types import Embeddings

CLASSES = ["cat", "chair", "dog", "table"]
KIND = {"cat": "animal", "dog": "animal", "chair": "furniture", "table": "furniture"}


def images(prefix: str, seed: int) -> Embeddings:
    random = np.random.default_rng(seed)
    labels = random.integers(-1, 4, size=60)
    return Embeddings(
        [f"{prefix}{each}" for each in range(60)], random.normal(size=(60, 4)), labels
    )


def test_the_figures_of_a_level_are_those_of_its_own_labels():
    """Labels of the level written down one by one, beside the mapping."""
    gallery, queries = images("g", 0), images("q", 1)
    queries = queries.take(queries.labels >= 0)
    results = evaluate_levels(queries, gallery, {"kind": KIND}, CLASSES, k=(1, 5), bootstrap=20)
    kinds = np.array([0, 1, 0, 1, -1])
    at_level = [
        Embeddings(each.ids, each.vectors, kinds[each.labels]) for each in (queries, gallery)
    ]
    names = ["animal", "furniture"]
    assert results == {"kind": evaluate(*at_level, (1, 5), bootstrap=20, class_names=names)}


def test_a_wider_level_finds_no_less_in_first_place():
    queries = images("q", 2)
    queries = queries.take(queries.labels >= 0)
    own = {name: name for name in CLASSES}
    results = evaluate_levels(queries, None, {"class": own, "kind": KIND}, CLASSES, k=(1,))
    figures = {level: each["figures"] for level, each in results.items()}
    assert figures["class"] == evaluate(queries, k=(1,))["figures"]
    assert figures["kind"]["recall@1"] >= figures["class"]["recall@1"]
    assert list(results["kind"]["per_class"]) == ["animal", "furniture"]


def test_only_classes_that_are_there_need_a_name():
    queries = images("q", 3)
    queries = queries.take(np.isin(queries.labels, [0, 2]))
    animals = {"cat": "animal", "dog": "animal"}
    result = evaluate_levels(queries, None, {"kind": animals}, CLASSES, k=(1,))["kind"]
    assert result["figures"]["recall@1"] == 1
    with pytest.raises(UserError, match="level 'kind' has no name for the class 'dog'"):
        evaluate_levels(queries, None, {"kind": {"cat": "animal"}}, CLASSES, k=(1,))


def test_levels_are_read_from_a_table(tmp_path):
    path = tmp_path / "levels.csv"
    path.write_text('class,kind,alive\ncat,animal,yes\n\n"chair, high",furniture,no\n')
    assert read_levels(path) == {
        "kind": {"cat": "animal", "chair, high": "furniture"},
        "alive": {"cat": "yes", "chair, high": "no"},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a line such as class,super-category"),
        ("class\ncat\n", "expected a line such as"),
        ("class,kind\n", "a line for each class"),
        ("class,kind,kind\ncat,a,b\n", "expected a line such as"),
        ("class,kind\ncat\n", "'cat' lacks a name"),
        ("class,kind\ncat, \n", "lacks a name"),
        ("class,kind\ncat,a\ncat,b\n", "'cat' is listed twice"),
    ],
)
def test_an_invalid_table_of_levels_is_a_one_line_error(tmp_path, text, message):
    path = tmp_path / "levels.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_levels(path)
    assert "levels.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv: could not be read"):
        read_levels(tmp_path / "none.csv")


def test_names_of_a_file_are_in_the_form_in_which_classes_are_named(tmp_path):
    path = tmp_path / "levels.csv"
    path.write_text("class,kind\nCafe\u0301,place\n", encoding="utf-8")
    assert read_levels(path) == {"kind": {"Caf\u00e9": "place"}}

"""The values that travel check themselves."""

from __future__ import annotations

import numpy as np
import pytest

from cbir_tf.config import Config
from cbir_tf.errors import UserError
from cbir_tf.run import Run
from cbir_tf.types import Embeddings, ImageSet, Results


def image_set(**changes) -> ImageSet:
    values = {
        "ids": ["b", "a", "c"],
        "sources": (b"1", b"2", b"3"),
        "labels": [0, 1, -1],
        "split": ["train", "test", ""],
        "class_names": ("cat", "dog"),
    }
    return ImageSet(**(values | changes))


def test_taking_keeps_the_parts_together():
    taken = image_set().take(np.array([2, 0]))
    assert list(taken.ids) == ["c", "b"]
    assert taken.sources == (b"3", b"1")
    assert list(taken.labels) == [-1, 0]
    assert list(image_set().of_split("test").ids) == ["a"]


@pytest.mark.parametrize(
    "changes",
    [{"ids": ["a", "a", "c"]}, {"labels": [0, 1, 2]}, {"labels": [0, 1]}, {"labels": [0, 1, -2]}],
)
def test_an_inconsistent_image_set_is_refused(changes):
    with pytest.raises(ValueError, match="ImageSet"):
        image_set(**changes)


def test_the_arrays_of_a_value_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        image_set().labels[0] = 1


@pytest.mark.parametrize(
    ("vectors", "message"),
    [([[1.0, np.nan], [0, 0]], "not finite"), ([1.0, 2.0], r"\(N, D\)"), ([[1.0]], "length")],
)
def test_bad_embeddings_are_refused(vectors, message):
    with pytest.raises(ValueError, match=message):
        Embeddings(["a", "b"], np.array(vectors), [0, 1])


@pytest.mark.parametrize(
    ("ids", "distances", "message"),
    [
        ([["a", "b"]], [[2.0, 1.0]], "sorted"),
        ([["b", "a"]], [[1.0, 1.0]], "sorted"),
        ([["a", "a"]], [[1.0, 2.0]], "twice"),
        ([["a"]], [[1.0, 2.0]], r"\(Q, k\)"),
    ],
)
def test_neighbours_out_of_order_are_refused(ids, distances, message):
    with pytest.raises(ValueError, match=message):
        Results(ids, distances)


def test_missing_neighbours_are_empty_and_infinitely_far():
    Results([["a", "", ""]], [[0.5, np.inf, np.inf]])


def test_a_run_of_another_configuration_is_refused_naming_the_key(tmp_path):
    config = Config.check({"data": {"source": "digits"}, "name": "one"})
    (tmp_path / "config.yaml").write_text(config.dump())
    assert Run.at(tmp_path, config).config == config
    other = Config.check({"data": {"source": "digits"}, "name": "one", "loss": {"margin": 0.5}})
    with pytest.raises(UserError, match=r"loss\.margin: 0\.5 here, 0\.2 there"):
        Run.at(tmp_path, other)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "holiday.txt").write_text("mine")
    config = Config.check({"data": {"source": "digits"}})
    for replace in (False, True):
        with pytest.raises(UserError, match="no run"):
            Run.at(tmp_path, config, replace)
    with pytest.raises(UserError, match="no run there"):
        Run.open(tmp_path)

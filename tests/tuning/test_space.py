"""What a search chooses from, and what it refuses."""

from __future__ import annotations

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbir_tf.config import Config
from cbir_tf.config.ranges import Choices, Range
from cbir_tf.errors import UserError
from cbir_tf.tuning.space import make_space, split_overrides, written_space


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "some.yaml"
    path.write_text("data: {source: digits, split: {by: stratified}}\n")
    return partial(Config.load, path)


def space_of(load, *overrides: str, fixed=(), file=None):
    with_fixed = lambda more: load([*fixed, *more])  # noqa: E731
    searched, rest = split_overrides(overrides)
    assert not rest
    return make_space(written_space(searched, fixed, file), with_fixed)


def error_line(load, *overrides: str, **options) -> str:
    with pytest.raises(UserError) as error:
        space_of(load, *overrides, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_whether_numbers_are_whole_is_for_the_key_to_say(load):
    space = space_of(
        load,
        "model.dropout=0..0.5",
        "loss.margin=0..1",
        "model.embedding_size=32..256 step 32",
        "optimizer.learning_rate=1e-5..1e-2 log",
        "training.epochs=1..4",
    )
    assert space == (
        Range("loss.margin", 0.0, 1.0, None, False, False),
        Range("model.dropout", 0.0, 0.5, None, False, False),
        Range("model.embedding_size", 32, 256, 32, False, True),
        Range("optimizer.learning_rate", 1e-5, 1e-2, None, True, False),
        Range("training.epochs", 1, 4, None, False, True),
    )
    assert [each.count for each in space] == [math.inf, math.inf, 8, math.inf, 4]
    assert space[2].examples() == ["32", "64", "96", "128", "160", "192", "224", "256"]


def test_choices_are_any_values_of_the_configuration_file(load, tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text(
        "loss.margin: 0.1 | 0.2 | 0.5\n"
        "model:\n  hidden: [[], [512], [1024, 512]]\n  embedding_size: [null, 8]\n"
        "optimizer.learning_rate: 1e-5..1e-2 log\n"
    )
    searched = "schedule=constant|{name: warmup_cosine, warm_up: 2}"
    space = space_of(load, searched, file=file)
    assert [each for each in space if isinstance(each, Choices)] == [
        Choices("loss.margin", ("0.1", "0.2", "0.5")),
        Choices("model.embedding_size", ("null", "8")),
        Choices("model.hidden", ("[]", "[512]", "[1024, 512]")),
        Choices("schedule", ("constant", "{name: warmup_cosine, warm_up: 2}")),
    ]


def test_a_plain_value_is_set_for_all_trials():
    searched, fixed = split_overrides(
        ["a=1..2", "data.path=../photos", "b=x|y", "c=-1e-3..2. log", "d=1..", "e=.5"]
    )
    assert searched == ["a=1..2", "b=x|y", "c=-1e-3..2. log"]
    assert fixed == ["data.path=../photos", "d=1..", "e=.5"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((), ["nothing to tune", "low..high"]),
        (("loss.margn=0..1",), ["unknown key 'loss.margn'", "'margin'"]),
        (("optimizer.learning_rate=0..1",), ["optimizer.learning_rate", "greater than 0"]),
        (("model.embedding_size=8..32.5",), ["model.embedding_size", "32.5"]),
        (("model.pooling=average|maxx",), ["model.pooling", "'max'"]),
        (("optimizer.learning_rate=1e-2..1e-5 log",), ["below its end"]),
        (("model.dropout=0..0.5 log",), ["above 0"]),
        (("model.dropout=0.1..0.5 logg",), ["'logg'", "did you mean 'log'"]),
        (("model.dropout=0.1..0.5 log step 0.1",), ["log or step"]),
        (("model.dropout=0..0.5 step 0.2",), ["miss the end", "0.4"]),
        (("training.epochs=1..9 step 0.5",), ["whole number"]),
        (("model.dropout=0..0.5 step 0",), ["above 0"]),
        (("loss.margin=0.1|",), ["empty", "null"]),
        (("loss.margin=0.1|0.1",), ["each once"]),
        (("loss.margin=0.1|0.2", "loss.margin=0..1"), ["tuned already"]),
        (("training.epochs=0..3",), ["trains nothing"]),
        (("seed=0..9",), ["measured by"]),
        (("data.split.validation=0.1..0.2",), ["measured by"]),
        (("evaluation.bootstrap=1..9",), ["no effect on training"]),
        (("loss=triplet_hard|reconstruction",), ["val_loss", "val_map_at_r", "training.monitor"]),
        (("search.pca=8..64", "model.embedding_size=32..128"), ["search.pca"]),
    ],
)
def test_an_invalid_range_is_a_one_line_error(load, overrides, words):
    line = error_line(load, *overrides)
    for word in words:
        assert word in line


def test_conflicting_values_are_refused_before_the_first_trial(load):
    overrides = ("data.batch.sampler=balanced|shuffled", "loss=triplet_hard|cross_entropy")
    line = error_line(load, *overrides, fixed=("training.monitor=val_accuracy",))
    assert "val_accuracy needs loss: cross_entropy" in line


def test_a_loss_is_not_searched_by_its_own_value(load):
    line = error_line(load, "loss.margin=0..1", fixed=("training.monitor=val_loss",))
    assert "val_loss" in line
    assert space_of(load, "model.dropout=0..0.5", fixed=("training.monitor=val_loss",))


def test_a_key_is_searched_or_set(load):
    assert "leave one" in error_line(load, "loss.margin=0..1", fixed=("loss.margin=0.5",))


def test_a_single_value_in_the_file_of_the_space_is_refused(load, tmp_path):
    (tmp_path / "space.yaml").write_text("training: {epochs: 5}\n")
    assert "neither a range nor choices" in error_line(load, file=tmp_path / "space.yaml")


@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 60))
def test_the_steps_of_a_range_are_those_of_range(low, step, steps):
    values = list(range(low, low + step * steps + 1, step))
    parameter = Range("key", values[0], values[-1], step, False, True)
    assert parameter.count == len(values)
    assert parameter.ends() == [str(values[0]), str(values[-1])]
    if len(values) <= 50:
        assert parameter.examples() == [str(each) for each in values]
    else:
        assert set(map(int, parameter.examples())) < set(range(values[0], values[-1] + 1))

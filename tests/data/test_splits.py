"""Splitting images into train, validation and test."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cbir_tf.config.data import Split
from cbir_tf.data.grouped_split import groups_of_column
from cbir_tf.data.splits import apply_split
from cbir_tf.errors import UserError
from cbir_tf.types import UNLABELLED, ImageSet

PARTS = ("train", "validation", "test")


def image_set(labels, split=None) -> ImageSet:
    """Images with these labels, named so that order by id is not order of creation."""
    labels = np.array(labels, dtype=np.int64)
    names = [f"{(number * 7919) % 10007:05d}" for number in range(len(labels))]
    classes = tuple(f"class {number}" for number in range(labels.max(initial=0) + 1))
    return ImageSet(
        np.array(names),
        tuple(name.encode() for name in names),
        labels,
        np.full(len(labels), "") if split is None else np.array(split),
        classes,
    )


def sizes(images: ImageSet) -> tuple[int, ...]:
    return tuple(int((images.split == name).sum()) for name in PARTS)


class_sizes = st.lists(st.integers(1, 30), min_size=2, max_size=8)


def labels_of(counts: list[int]) -> list[int]:
    return [label for label, count in enumerate(counts) for _ in range(count)]


@st.composite
def counted(draw) -> tuple[list[int], tuple[int, int, int]]:
    """Class sizes, and numbers for train, validation, test that fit."""
    counts = draw(class_sizes)
    train = draw(st.integers(1, sum(counts)))
    validation = draw(st.integers(0, sum(counts) - train))
    test = draw(st.integers(0, sum(counts) - train - validation))
    return counts, (train, validation, test)


@given(counted(), st.integers(0, 99))
def test_numbers_are_met_exactly_and_classes_keep_their_proportion(case, seed):
    counts, numbers = case
    train, validation, test = numbers
    split = Split(by="stratified", train=train, validation=validation, test=test)
    images = apply_split(image_set(labels_of(counts)), split, seed)
    assert sizes(images) == numbers
    ample = all(Fraction(train * count, sum(counts)) >= 1 for count in counts)
    for label, count in enumerate(counts):
        # Parts are filled one after the other, each within one of its share of what is left.
        for tolerance, name, number in zip((1, 2, 3), PARTS, numbers, strict=True):
            share = Fraction(number * count, sum(counts))
            got = int(((images.labels == label) & (images.split == name)).sum())
            assert not ample or abs(got - share) < tolerance
    if train >= len(counts):
        assert set(images.labels[images.split == "train"]) == set(range(len(counts)))


@given(class_sizes, st.floats(0.2, 0.9), st.floats(0, 0.99), st.integers(0, 99))
def test_shares_are_met_to_the_nearest_image(counts, train, rest, seed):
    total = sum(counts)
    validation = (1 - train) * rest
    assume(train * total >= 1 and (validation == 0 or validation * total >= 1))
    split = Split(by="stratified", train=train, validation=validation, test=None)
    images = apply_split(image_set(labels_of(counts)), split, seed)
    assert sum(sizes(images)) == total
    for got, share in zip(sizes(images), (train, validation), strict=False):
        assert abs(got - share * total) <= 1


@given(class_sizes, st.sampled_from(["stratified", "class"]), st.integers(0, 99), st.randoms())
def test_the_split_depends_on_ids_and_seed_and_not_on_the_order(counts, by, seed, random):
    assume(sum(counts) >= 8 and len(counts) >= 4)
    split = Split(by=by, validation=1, test=1)
    images = image_set(labels_of(counts))
    order = list(range(len(images)))
    random.shuffle(order)
    straight = apply_split(images, split, seed)
    shuffled = apply_split(images.take(np.array(order)), split, seed)
    by_id = dict(zip(straight.ids.tolist(), straight.split.tolist(), strict=True))
    assert by_id == dict(zip(shuffled.ids.tolist(), shuffled.split.tolist(), strict=True))
    assert straight.ids.tolist() == images.ids.tolist()
    assert straight.sources == images.sources


def test_another_seed_gives_another_split():
    images = image_set(labels_of([50, 50]))
    split = Split(by="stratified")
    first, second = (apply_split(images, split, seed).split for seed in (0, 1))
    assert (first != second).any()


def test_the_default_shares_of_a_hundred_are_70_15_15():
    images = apply_split(image_set(labels_of([60, 40])), Split(by="stratified"), 0)
    assert sizes(images) == (70, 15, 15)
    counts = Counter(zip(images.split.tolist(), images.labels.tolist(), strict=True))
    assert counts["train", 0] == 42
    assert counts["validation", 0] == 9
    assert counts["test", 0] == 9


def test_few_shot_takes_the_numbers_and_leaves_the_rest_for_the_test():
    split = Split(by="stratified", train=184, validation=183, test=None)
    images = apply_split(image_set(labels_of([764, 1052, 784, 733, 984])), split, 0)
    assert sizes(images) == (184, 183, 4317 - 184 - 183)


def test_numbers_below_the_total_leave_images_in_no_split():
    split = Split(by="stratified", train=4, validation=2, test=2)
    images = apply_split(image_set(labels_of([10, 10])), split, 0)
    assert Counter(images.split.tolist()) == {"train": 4, "validation": 2, "test": 2, "": 12}


def test_a_rare_class_is_trained_on_rather_than_only_tested():
    for seed in range(20):
        split = Split(by="stratified", train=5, validation=10, test=None)
        images = apply_split(image_set(labels_of([97, 1, 1, 1])), split, seed)
        assert set(images.labels[images.split == "train"]) == {0, 1, 2, 3}


def test_unlabelled_images_are_in_no_split():
    labels = [0, 1] * 10 + [UNLABELLED] * 5
    images = apply_split(image_set(labels), Split(by="stratified"), 0)
    assert set(images.split[images.labels == UNLABELLED]) == {""}
    assert (images.split[images.labels != UNLABELLED] != "").all()
    told = image_set(labels, split=["train"] * 10 + ["validation"] * 10 + ["train"] * 5)
    assert sizes(apply_split(told, Split(), 0)) == (10, 10, 0)


def test_unlabelled_images_are_split_where_no_label_is_needed():
    halves = Split(by="stratified", train=0.5, validation=0.25, test=None)
    images = apply_split(image_set([UNLABELLED] * 40), halves, 0, by_label=False)
    assert sizes(images) == (20, 10, 10)
    assert set(images.labels) == {UNLABELLED}
    mixed = apply_split(image_set([0, 1] * 8 + [UNLABELLED] * 8), halves, 0, by_label=False)
    for label in (0, 1, UNLABELLED):
        assert sizes(mixed.take(mixed.labels == label)) == (4, 2, 2)
    told = image_set([UNLABELLED] * 20, split=["train"] * 20)
    assert sizes(apply_split(told, Split(validation=5), 0, by_label=False)) == (15, 5, 0)
    whole = Split(by="class", validation=0, test=0)
    classes = apply_split(image_set([0, 1, 2, UNLABELLED]), whole, 0, by_label=False)
    assert classes.split[-1] == ""


@given(st.integers(4, 20), st.integers(0, 99), st.data())
def test_by_class_no_class_is_in_two_parts(classes, seed, data):
    validation = data.draw(st.integers(0, classes - 2))
    test = data.draw(st.integers(0, classes - 2 - validation))
    split = Split(by="class", validation=validation, test=test)
    images = apply_split(image_set(labels_of([3] * classes)), split, seed)
    parts = [set(images.labels[images.split == name].tolist()) for name in PARTS]
    assert [len(part) for part in parts] == [classes - validation - test, validation, test]
    assert len(set.union(*parts)) == classes


def test_by_class_shares_count_classes_and_not_images():
    split = Split(by="class", train=None, validation=0.2, test=0.4)
    images = apply_split(image_set(labels_of([1, 2, 3, 4, 50])), split, 0)
    parts = [len(set(images.labels[images.split == name].tolist())) for name in PARTS]
    assert parts == [2, 1, 2]


def test_a_given_split_is_kept():
    split = ["train", "validation", "test", "train", ""]
    images = apply_split(image_set([0, 1, 0, 1, 0], split), Split(), 0)
    assert images.split.tolist() == split


def test_a_missing_validation_split_is_cut_from_train_and_the_test_split_kept():
    given_split = ["train"] * 100 + ["test"] * 20
    labels = [0, 1] * 50 + [0] * 20
    images = apply_split(image_set(labels, given_split), Split(validation=0.1), 0)
    assert sizes(images) == (90, 10, 20)
    assert (images.split[100:] == "test").all()
    assert (images.labels[images.split == "validation"] == 0).sum() == 5


def test_validation_zero_cuts_nothing():
    images = image_set([0, 1] * 5, ["train"] * 10)
    assert sizes(apply_split(images, Split(validation=0), 0)) == (10, 0, 0)


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"by": "given"}, ["no split of its own", "data.split.by=stratified"]),
        ({"by": "stratified", "train": 30, "validation": 0, "test": 0}, ["train 30", "20"]),
        ({"by": "stratified", "train": 0.9, "validation": 0.2}, ["train 0.9", "20 labelled"]),
        ({"by": "stratified", "train": None, "test": None}, ["only one can be null"]),
        ({"by": "stratified", "validation": 0.01}, ["data.split.validation", "0.01", "20"]),
        ({"by": "stratified", "train": 0, "test": None}, ["for training", "data.split.train"]),
        ({"by": "class", "validation": 1, "test": 0}, ["1 of 2 classes", "at least 2"]),
    ],
)
def test_impossible_splits_say_what_to_change(split, words):
    with pytest.raises(UserError) as error:
        apply_split(image_set([0, 1] * 10), Split(**split), 0)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


# --- images in no split -------------------------------------------------------------------------


def test_labelled_images_without_a_given_split_are_counted_and_named(caplog):
    split = ["train", "train", "validation", "test", "", "", ""]
    images = image_set([0, 1, 0, 1, 0, 1, UNLABELLED], split)
    assert apply_split(images, Split(), 0).split.tolist() == split
    first = min(images.ids[4:6])
    assert f"2 images with a label have no split, and are used nowhere, the first {first}" in (
        caplog.text
    )


# --- groups -------------------------------------------------------------------------------------


@st.composite
def grouped(draw) -> tuple[list[int], list[int]]:
    """Labels, and groups of which some cross classes."""
    labels = labels_of(draw(st.lists(st.integers(4, 30), min_size=2, max_size=6)))
    most = draw(st.integers(1, 6))
    groups = [number // most for number in range(len(labels))]
    return labels, draw(st.permutations(groups))


@given(grouped(), st.integers(0, 99), st.randoms())
def test_no_group_is_in_two_splits_and_sizes_are_near(case, seed, random):
    labels, groups = case
    images, groups = image_set(labels), np.array(groups)
    largest = np.bincount(groups).max()
    assume(len(labels) * 0.15 > largest)
    split = Split(by="stratified")
    found = apply_split(images, split, seed, groups=groups)
    for number in set(groups.tolist()):
        assert len(set(found.split[groups == number].tolist())) == 1
    assert sum(sizes(found)) == len(labels)
    for got, share in zip(sizes(found), (0.7, 0.15, 0.15), strict=True):
        assert abs(got - share * len(labels)) <= largest + 1
    order = np.array(random.sample(range(len(labels)), len(labels)))
    again = apply_split(images.take(order), split, seed, groups=groups[order])
    assert dict(zip(found.ids.tolist(), found.split.tolist(), strict=True)) == dict(
        zip(again.ids.tolist(), again.split.tolist(), strict=True)
    )


@given(st.lists(st.integers(10, 40), min_size=2, max_size=6), st.integers(0, 99))
def test_groups_of_one_image_are_split_as_images_are(counts, seed):
    labels = labels_of(counts)
    groups = np.arange(len(labels))
    alone = apply_split(image_set(labels), Split(by="stratified"), seed)
    found = apply_split(image_set(labels), Split(by="stratified"), seed, groups=groups)
    assert sizes(found) == sizes(alone)
    assert set(found.labels[found.split == "train"]) == set(range(len(counts)))
    for label, count in enumerate(counts):
        share = ((found.labels == label) & (found.split == "train")).sum() / count
        assert share == pytest.approx(0.7, abs=0.2)


def test_a_given_split_keeps_the_test_images_of_a_divided_group(caplog):
    split = ["train", "train", "train", "validation", "validation", "test", ""]
    images = image_set([0, 1, 0, 1, 0, 1, 0], split)
    found = apply_split(images, Split(), 0, groups=np.array([1, 2, 3, 3, 4, 1, 2]))
    assert found.split.tolist() == ["", "train", "", "validation", "validation", "test", ""]
    assert "2 images left out" in caplog.text


def test_a_validation_split_cut_from_train_keeps_groups():
    groups = np.repeat(np.arange(20), 5)
    images = image_set([0, 1] * 50, ["train"] * 100)
    found = apply_split(images, Split(validation=0.2), 3, groups=groups)
    assert sizes(found) == (80, 20, 0)
    validation = set(groups[found.split == "validation"].tolist())
    assert len(validation) == 4
    assert not validation & set(groups[found.split == "train"].tolist())


def test_groups_too_large_for_a_split_are_an_error():
    with pytest.raises(UserError, match=r"no group is left for test.* largest of 2 groups"):
        split = Split(by="stratified", train=0.5, validation=0.25, test=0.25)
        apply_split(image_set([0, 1] * 10), split, 0, groups=np.repeat([0, 1], 10))


def test_a_column_groups_equal_values_and_leaves_the_others_alone():
    images = image_set([0] * 6)
    metadata = ({"n": 1}, {"n": 1.0}, {"n": "Caf\u00e9"}, {"n": "Cafe\u0301"}, {}, {})
    images = ImageSet(
        images.ids, images.sources, images.labels, images.split, images.class_names, metadata
    )
    assert groups_of_column(images, "n").tolist() == [0, 0, 1, 1, 2, 3]
    with pytest.raises(UserError, match="no column 'nn'; did you mean 'n'"):
        groups_of_column(images, "nn")

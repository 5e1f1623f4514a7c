"""Batches of positions: balanced as promised, decided by seed and epoch alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cbir_tf.config.data import Batch
from cbir_tf.data.sampling import (
    balanced_batches,
    epoch_batches,
    shuffled_batches,
    steps_per_epoch,
)
from cbir_tf.errors import UserError

class_sizes = st.lists(st.integers(0, 9), min_size=1, max_size=8)
at_least_two = st.integers(2, 6)
seeds = st.integers(0, 2**70)
epochs = st.integers(0, 1000)


def labels_of(sizes: list[int]) -> np.ndarray:
    """Labels of classes of these sizes, well mixed, with three unlabelled images among them."""
    labels = np.concatenate([np.repeat(np.arange(len(sizes)), sizes), [-1, -1, -1]])
    return np.random.default_rng(7).permutation(labels)


def rounds(drawn: list, size: int) -> list[list]:
    return [drawn[start : start + size] for start in range(0, len(drawn), size)]


@given(sizes=class_sizes, p=at_least_two, k=at_least_two, seed=seeds, epoch=epochs)
def test_a_balanced_batch_has_p_classes_with_all_they_can_give_up_to_k(sizes, p, k, seed, epoch):
    usable = {name: size for name, size in enumerate(sizes) if size > 1}
    assume(usable)
    labels = labels_of(sizes)
    for positions in balanced_batches(labels, p, k, seed, epoch, steps=7):
        assert len(set(positions)) == len(positions)
        counts = Counter(labels[positions].tolist())
        assert len(counts) == min(p, len(usable))
        assert counts == {name: min(k, usable[name]) for name in counts}


@given(sizes=class_sizes, p=at_least_two, k=at_least_two, seed=seeds)
def test_classes_and_their_images_all_come_once_before_any_comes_again(sizes, p, k, seed):
    usable = {name: size for name, size in enumerate(sizes) if size > 1}
    assume(usable)
    labels = labels_of(sizes)
    batches = balanced_batches(labels, p, k, seed, epoch=0, steps=20)
    drawn = np.concatenate(batches)
    for name, size in usable.items():
        for each in rounds(drawn[labels[drawn] == name].tolist(), size):
            assert len(set(each)) == len(each)
    names = [list(dict.fromkeys(labels[positions].tolist())) for positions in batches]
    for each in rounds([name for batch in names for name in batch], len(usable)):
        assert len(set(each)) == len(each)


@given(sizes=class_sizes, seed=seeds, epoch=epochs)
def test_the_same_seed_and_epoch_give_the_same_batches_and_a_longer_epoch_goes_on(
    sizes, seed, epoch
):
    assume(max(sizes) > 1)
    labels = labels_of(sizes)
    for sampler in ("balanced", "shuffled"):
        batch = Batch(sampler=sampler, size=4, classes=3, images_per_class=2)
        short = epoch_batches(labels, batch, seed, epoch, steps=3)
        long = epoch_batches(labels, batch, seed, epoch, steps=9)
        for one, other in zip(short, long, strict=False):
            np.testing.assert_array_equal(one, other)


def test_epochs_and_seeds_differ():
    labels = np.repeat(np.arange(5), 20)
    for sampler in ("balanced", "shuffled"):
        batch = Batch(sampler=sampler, size=8, classes=4, images_per_class=4)
        firsts = [
            tuple(epoch_batches(labels, batch, seed, epoch)[0])
            for seed in range(5)
            for epoch in range(5)
        ]
        assert len(set(firsts)) == 25


def test_classes_are_drawn_evenly_whatever_their_sizes():
    labels = np.repeat(np.arange(6), [500, 100, 50, 20, 8, 4])
    batches = balanced_batches(labels, 4, 4, seed=0, epoch=0, steps=300)
    counts = Counter(labels[np.concatenate(batches)].tolist())
    assert counts == dict.fromkeys(range(6), 300 * 4 * 4 // 6)


@given(count=st.integers(1, 60), size=st.integers(2, 20), seed=seeds, epoch=epochs)
def test_shuffled_batches_are_full_and_repeat_no_image(count, size, seed, epoch):
    batches = shuffled_batches(count, size, seed, epoch)
    assert len(batches) == max(1, count // size)
    assert {len(positions) for positions in batches} == {min(size, count)}
    drawn = np.concatenate(batches)
    assert len(set(drawn)) == len(drawn) and drawn.min() >= 0 and drawn.max() < count


@given(count=st.integers(1, 30), size=st.integers(2, 20), seed=seeds)
def test_a_longer_shuffled_epoch_goes_through_all_images_again(count, size, seed):
    batches = shuffled_batches(count, size, seed, epoch=0, steps=12)
    assert all(len(set(positions)) == min(size, count) for positions in batches)
    for each in rounds(np.concatenate(batches).tolist(), count)[:-1]:
        assert sorted(each) == list(range(count))


@pytest.mark.parametrize(
    ("batch", "steps"),
    [
        (Batch(sampler="shuffled", size=8), 4),  # 38 / 8
        (Batch(sampler="shuffled", size=64), 1),
        (Batch(classes=2, images_per_class=5), 4),  # 36 usable / 8, of 2 * (5 + 5 + 4 + 2) / 4
        (Batch(classes=2, images_per_class=2), 9),  # 36 / 4
        (Batch(classes=8, images_per_class=8), 1),  # 36 / (8 + 8 + 4 + 2), rounded down
    ],
)
def test_an_epoch_has_as_many_batches_as_the_images_fill(batch, steps):
    labels = np.concatenate([np.repeat(np.arange(5), [20, 10, 4, 2, 1]), [-1]])
    assert steps_per_epoch(labels, batch) == steps
    assert len(epoch_batches(labels, batch, 0, 0)) == steps


def test_without_a_pair_or_without_images_there_is_nothing_to_train_on():
    with pytest.raises(UserError, match="no class has two images"):
        balanced_batches(np.array([0, 1, 2, -1, -1]), 2, 2, seed=0, epoch=0)
    with pytest.raises(UserError, match="no class has two images"):
        steps_per_epoch(np.array([], np.int64), Batch())
    with pytest.raises(UserError, match="no images"):
        shuffled_batches(0, 8, seed=0, epoch=0)

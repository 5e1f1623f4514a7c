"""The images of each batch: pure functions of the labels, the seed and the epoch.

The batches of an epoch do not depend on earlier epochs, so that a resumed run uses the same batches
as an uninterrupted one.
"""

from __future__ import annotations

import numpy as np

from cbir_tf.config.data import Batch
from cbir_tf.errors import UserError


class _Deck:
    """Cards drawn in random order, shuffled again when all have been drawn.

    Each round draws each card exactly once; a hand never has a card twice, even across two rounds.
    """

    def __init__(self, cards: np.ndarray, random: np.random.Generator) -> None:
        self.cards = cards
        self.random = random
        self.left = random.permutation(cards)

    def draw(self, count: int) -> np.ndarray:
        """A hand of `count` different cards, or of all if there are fewer."""
        hand, self.left = self.left[:count], self.left[count:]
        missing = min(count, len(self.cards)) - len(hand)
        if missing:
            fresh = self.random.permutation(self.cards)
            position = np.flatnonzero(~np.isin(fresh, hand))[:missing]
            hand = np.concatenate([hand, fresh[position]])
            self.left = np.delete(fresh, position)
        return hand


def balanced_batches(
    labels: np.ndarray,
    classes: int,
    images_per_class: int,
    seed: int,
    epoch: int,
    *,
    steps: int | None = None,
) -> list[np.ndarray]:
    """P x K batches: P classes with K images each.

    Classes are drawn equally often, whatever their sizes: in random order, each once before any is
    drawn again; likewise the images within a class. A batch never has an image twice. A class with
    fewer than K images contributes all of them, and the batch is smaller; a class with a single
    image is never drawn, as it has no positive pair. With fewer than P classes, every batch has
    all of them.

    Args:
        labels: (N,) integers; images with a negative label (unlabelled) are left out.
        classes: P.
        images_per_class: K.
        seed: of the run, not negative.
        epoch: counted from 0.
        steps: number of batches; None: as many as the images fill, at least one.

    Returns:
        Arrays of int64 positions into `labels`, at most P * K long.

    Raises:
        UserError: no class has two images.

    Example:
        >>> labels = np.array([0, 0, 0, 1, 1, 2, 2, -1])
        >>> batches = balanced_batches(labels, classes=2, images_per_class=2, seed=0, epoch=0)
        >>> [np.unique(labels[batch], return_counts=True)[1].tolist() for batch in batches]
        [[2, 2]]
    """
    members = _members(labels)
    if steps is None:
        steps = _balanced_steps(members, classes, images_per_class)
    random = np.random.default_rng([seed, epoch])
    images = [_Deck(positions, random) for positions in members]
    names = _Deck(np.arange(len(members)), random)
    return [
        np.concatenate([images[each].draw(images_per_class) for each in names.draw(classes)])
        for _ in range(steps)
    ]


def shuffled_batches(
    count: int, size: int, seed: int, epoch: int, *, steps: int | None = None
) -> list[np.ndarray]:
    """Shuffled batches: a random permutation of all images, cut into batches.

    Args:
        count: number of images.
        size: images per batch; all images, if there are fewer.
        seed: of the run, not negative.
        epoch: counted from 0.
        steps: number of batches; None: the full ones, so that an incomplete last batch is dropped
            unless it is the only one. After the last image, all images are shuffled again.

    Returns:
        Arrays of int64 positions below `count`.

    Raises:
        UserError: there are no images.

    Example:
        >>> first, second = shuffled_batches(count=6, size=3, seed=0, epoch=0)
        >>> sorted([*first.tolist(), *second.tolist()])
        [0, 1, 2, 3, 4, 5]
    """
    if steps is None:
        steps = _shuffled_steps(count, size)
    deck = _Deck(np.arange(count), np.random.default_rng([seed, epoch]))
    return [deck.draw(size) for _ in range(steps)]


def epoch_batches(
    labels: np.ndarray, batch: Batch, seed: int, epoch: int, *, steps: int | None = None
) -> list[np.ndarray]:
    """One epoch's batches, by the sampler of the configuration.

    Args:
        labels: (N,) integers.
        batch: the sampler and its sizes.
        seed: of the run, not negative.
        epoch: counted from 0.
        steps: number of batches; None: `steps_per_epoch`.

    Returns:
        Arrays of int64 positions into `labels`.

    Raises:
        UserError: from `balanced_batches` and `shuffled_batches`.
    """
    if batch.sampler == "balanced":
        return balanced_batches(
            labels, batch.classes, batch.images_per_class, seed, epoch, steps=steps
        )
    return shuffled_batches(len(labels), batch.size, seed, epoch, steps=steps)


def steps_per_epoch(labels: np.ndarray, batch: Batch) -> int:
    """Number of batches that the images fill, at least one.

    Args:
        labels: (N,) integers.
        batch: the sampler and its sizes.

    Raises:
        UserError: from `balanced_batches` and `shuffled_batches`.
    """
    if batch.sampler == "balanced":
        return _balanced_steps(_members(labels), batch.classes, batch.images_per_class)
    return _shuffled_steps(len(labels), batch.size)


def _members(labels: np.ndarray) -> list[np.ndarray]:
    """The positions of each class that has at least two images."""
    labels = np.asarray(labels)
    order = np.argsort(labels, kind="stable")
    names, starts = np.unique(labels[order], return_index=True)
    groups = np.split(order, starts[1:])
    usable = [
        group for name, group in zip(names, groups, strict=False) if name >= 0 and len(group) > 1
    ]
    if not usable:
        raise UserError(
            "data: no class has two images to train on; give more images per class, "
            "or set data.batch.sampler=shuffled"
        )
    return usable


def _balanced_steps(members: list[np.ndarray], classes: int, images_per_class: int) -> int:
    """Number of usable images divided by the expected batch size."""
    sizes = np.array([len(group) for group in members])
    expected = min(classes, len(members)) * np.minimum(sizes, images_per_class).mean()
    return max(1, int(sizes.sum() / expected))


def _shuffled_steps(count: int, size: int) -> int:
    if count == 0:
        raise UserError("data: there are no images to train on; check data.path and data.split")
    return max(1, count // size)

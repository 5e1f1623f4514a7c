"""Training, validation and test images."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from cbir_tf.config.data import Split
from cbir_tf.data.grouped_split import split_groups
from cbir_tf.errors import UserError
from cbir_tf.types import SPLITS, UNLABELLED, ImageSet

log = logging.getLogger(__name__)

_LEFT_OUT = ""
_NAME = "U10"  # the longest is "validation"


def apply_split(
    images: ImageSet,
    split: Split,
    seed: int,
    by_label: bool = True,
    groups: np.ndarray | None = None,
) -> ImageSet:
    """The same images in the same order, each assigned to a split.

    The outcome depends on ids, labels, groups and the seed alone, never on the order of the
    images. Images beyond the configured numbers get the empty split, and so do unlabelled ones
    with `by_label`.

    Args:
        images: N images; their `split` is used only with `by: given`.
        split: the method, and the size of each split: a number of images (or classes), or a share.
        seed: not negative.
        by_label: leave unlabelled images out; otherwise they are split like one more class, except
            with `by: class`.
        groups: (N,) integers, equal for images that are to be in one split; None: each is alone.

    Raises:
        UserError: the source has no split of its own, or the numbers are impossible.

    Example:
        >>> ids, labels = ["a", "b", "c", "d"], [0, 0, 1, 1]
        >>> images = ImageSet(ids, [b""] * 4, labels, [""] * 4, ("cat", "dog"))
        >>> half = Split(by="stratified", train=0.5, validation=0, test=None)
        >>> sorted(apply_split(images, half, seed=0).split.tolist())
        ['test', 'test', 'train', 'train']
    """
    by_id = np.argsort(images.ids, kind="stable")
    labels = images.labels[by_id]
    if not by_label and split.by != "class":
        labels = labels - UNLABELLED  # from 0 on, and 0 is the class of the unlabelled
    labelled = labels != UNLABELLED
    generator = np.random.default_rng(seed)
    group_of = None if groups is None else groups[by_id]
    if split.by == "given":
        names = _given(images.split[by_id], labels, split, generator, group_of)
        _report_left_out(images.ids[by_id][labelled & (names == _LEFT_OUT)])
    elif split.by == "stratified":
        names = _stratified(labels, split, generator, group_of)
        beyond = int((labelled & (names == _LEFT_OUT)).sum())
        if beyond:
            log.info("%d labelled images are in no split, as data.split asks for fewer", beyond)
    else:
        names = _by_class(labels, split, generator)
    names = np.where(labelled, names, _LEFT_OUT)
    if group_of is not None:
        names = _without_divided(names, group_of, images.ids[by_id])
    if not (names == "train").any():
        raise UserError(
            f"data.split: none of the {labelled.sum()} images to split is for training; "
            "mark some as train, or set data.split.by=stratified and data.split.train"
        )
    unlabelled = len(images) - labelled.sum()
    if unlabelled:
        log.info("%d unlabelled images are in no split", unlabelled)

    in_order = np.empty_like(names)
    in_order[by_id] = names
    return replace(images, split=in_order)


def _given(
    names: np.ndarray,
    labels: np.ndarray,
    split: Split,
    generator: np.random.Generator,
    group_of: np.ndarray | None,
) -> np.ndarray:
    """The source's own split; a missing validation split is cut from train."""
    if not (names != _LEFT_OUT).any():
        raise UserError(
            "data.split: this source has no split of its own; set it: "
            "data.split.by=stratified or data.split.by=class"
        )
    if not (names == "test").any():
        log.warning("this source has no test split; data.split.by=stratified cuts one")
    train = np.flatnonzero((names == "train") & (labels != UNLABELLED))
    if (names == "validation").any() or not len(train):
        return names
    whole = split.model_copy(update={"train": None, "test": 0})
    names = names.astype(_NAME)
    groups = None if group_of is None else group_of[train]
    names[train] = _stratified(labels[train], whole, generator, groups)
    return names


def _report_left_out(ids: np.ndarray) -> None:
    if len(ids):
        log.warning(
            "%d images with a label have no split, and are used nowhere, the first %s; give them "
            "one, or set data.split.by=stratified",
            len(ids),
            ids[0],
        )


def _stratified(
    labels: np.ndarray,
    split: Split,
    generator: np.random.Generator,
    group_of: np.ndarray | None,
) -> np.ndarray:
    """Split by image: each class in proportion, and each in train if the numbers allow it."""
    if group_of is not None:
        labelled = np.flatnonzero(labels != UNLABELLED)
        sizes = _sizes(split, len(labelled), "images")
        names = np.full(len(labels), _LEFT_OUT, dtype=_NAME)
        names[labelled] = split_groups(labels[labelled], group_of[labelled], sizes, generator)
        return names
    shuffled = generator.permutation(np.flatnonzero(labels != UNLABELLED))
    sizes = _sizes(split, len(shuffled), "images")
    _, classes, left = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    shares = []
    for name, size in zip(SPLITS, sizes, strict=True):
        share = _in_proportion(left, size)
        if name == "train" and size >= len(left):
            share = _none_without(share)
        left = left - share
        shares.append(share)

    names = np.full(len(labels), _LEFT_OUT, dtype=_NAME)
    for number in range(len(left)):
        members = shuffled[classes == number]
        ends = np.cumsum([share[number] for share in shares])
        for name, part in zip(SPLITS, np.split(members, ends), strict=False):
            names[part] = name
    return names


def _by_class(labels: np.ndarray, split: Split, generator: np.random.Generator) -> np.ndarray:
    """Split by class: every image of a class goes where the class goes."""
    classes = generator.permutation(np.unique(labels[labels != UNLABELLED]))
    sizes = _sizes(split, len(classes), "classes")
    if sizes[0] < 2:
        raise UserError(
            f"data.split.train: {sizes[0]} of {len(classes)} classes is left for training, "
            "which needs at least 2; give data.split.validation and data.split.test fewer"
        )
    names = np.full(len(labels), _LEFT_OUT, dtype=_NAME)
    for name, part in zip(SPLITS, np.split(classes, np.cumsum(sizes)), strict=False):
        names[np.isin(labels, part)] = name
    return names


def _without_divided(names: np.ndarray, group_of: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The splits without the images whose group is also in a later one: it is what is measured."""
    place = np.array([(_LEFT_OUT, *SPLITS).index(name) for name in names.tolist()])
    _, number = np.unique(group_of, return_inverse=True)
    latest = np.zeros(number.max(initial=-1) + 1, dtype=place.dtype)
    np.maximum.at(latest, number, place)
    divided = (place > 0) & (place < latest[number])
    if divided.any():
        log.warning(
            "data.split.group: %d images left out, as others of their group are in a later split, "
            "the first %s",
            divided.sum(),
            ids[divided][0],
        )
    return np.where(divided, _LEFT_OUT, names)


def _sizes(split: Split, available: int, what: str) -> tuple[int, int, int]:
    """The number of images or classes in train, validation and test."""
    asked = (split.train, split.validation, split.test)
    text = ", ".join(
        f"{name} {'null' if each is None else each}"
        for name, each in zip(SPLITS, asked, strict=True)
    )
    if split.train is None and split.test is None:
        raise UserError(f"data.split: {text}: only one can be null, that is, take what is left")
    wanted = [each * available if isinstance(each, float) else each for each in asked]
    left = available - sum(each for each in wanted if each is not None)
    if left < -1e-6:
        raise UserError(f"data.split: {text} is more than the {available} labelled {what}")
    left = max(left, 0)
    exact = np.array([left if each is None else each for each in wanted], dtype=float)
    unused = max(available - exact.sum(), 0)
    sizes = _whole(np.append(exact, unused))[:3]
    for name, each, size in zip(SPLITS, asked, sizes, strict=True):
        if size == 0 and each:
            raise UserError(
                f"data.split.{name}: {each} of {available} labelled {what} is less than one; "
                "give it more, or 0 for none"
            )
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


def _whole(exact: np.ndarray) -> np.ndarray:
    """Whole numbers near these, with their sum, by the largest remainder."""
    floors = np.floor(exact + 1e-9)
    missing = round(exact.sum() - floors.sum())
    largest = np.argsort(floors - exact, kind="stable")[:missing]
    floors[largest] += 1
    return floors.astype(np.int64)


def _in_proportion(counts: np.ndarray, total: int) -> np.ndarray:
    """Share out `total` in proportion to `counts` (not above them), by the largest remainder."""
    everything = max(int(counts.sum()), 1)
    shares, remainders = np.divmod(counts * total, everything)
    largest = np.argsort(-remainders, kind="stable")[: total - shares.sum()]
    shares[largest] += 1
    return shares


def _none_without(shares: np.ndarray) -> np.ndarray:
    """Give one to each that has none, taken from those that have most."""
    shares = shares.copy()
    for empty in np.flatnonzero(shares == 0):
        shares[shares.argmax()] -= 1
        shares[empty] = 1
    return shares

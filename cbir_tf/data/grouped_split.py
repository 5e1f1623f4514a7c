"""A stratified split that keeps groups of images together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cbir_tf.data.text import nfc, text_of
from cbir_tf.errors import UserError, nearest
from cbir_tf.progress import logger
from cbir_tf.types import SPLITS, ImageSet

DUPLICATES = "duplicates"
"""The value of data.split.group that stands for images of the same picture."""


def groups_of_column(images: ImageSet, column: str) -> np.ndarray:
    """(N,) group numbers of images: equal where they have the same value in a metadata column.

    An image without a value is a group of its own.

    Raises:
        UserError: no image has the column.

    Example:
        >>> metadata = ({"person": "Ada"}, {"person": "Bo"}, {"person": "Ada"}, {})
        >>> images = ImageSet(list("abcd"), (b"",) * 4, [0] * 4, [""] * 4, ("x",), metadata)
        >>> groups_of_column(images, "person").tolist()
        [0, 1, 0, 2]
    """
    names = sorted({nfc(name) for each in images.metadata for name in each})
    if nfc(column) not in names:
        advice = nearest(column, [*names, DUPLICATES])
        raise UserError(f"data.split.group: no column {column!r}; {advice}")
    numbers: dict[str | int, int] = {}
    groups = []
    for row, columns in enumerate(images.metadata):
        value = next((value for name, value in columns.items() if nfc(name) == nfc(column)), None)
        key = row if value is None else nfc(text_of(value))
        groups.append(numbers.setdefault(key, len(numbers)))
    alone = sum(isinstance(key, int) for key in numbers)
    if alone:
        logger.info("data.split.group: %d images have no %s, and are in no group", alone, column)
    return np.array(groups, dtype=np.int64)


def split_groups(
    labels: np.ndarray, groups: np.ndarray, sizes: Sequence[int], generator: np.random.Generator
) -> np.ndarray:
    """Assign whole groups to splits, near the wanted sizes and each class in proportion.

    Large groups come first. Each goes where there is room for it and where its classes are farthest
    from their share; the first of a class to train, if there is room.

    Args:
        labels: (N,) classes.
        groups: (N,) group numbers.
        sizes: wanted numbers of images in train, validation and test.
        generator: of the order of groups of one size.

    Returns:
        (N,) names of splits, empty for images beyond the sizes.

    Raises:
        UserError: a split gets no group, as all are too large.
    """
    wanted = np.array([*sizes, max(len(labels) - sum(sizes), 0)], dtype=float)
    _, classes, totals = np.unique(labels, return_inverse=True, return_counts=True)
    members, counts = _groups(groups, classes)
    order = generator.permutation(len(members))
    order = order[np.argsort([-len(members[each]) for each in order], kind="stable")]

    room = wanted.copy()
    # The share of each class that each split still lacks.
    lacking = np.repeat(wanted[:, None] / max(len(labels), 1), len(totals), axis=1)
    trained = np.zeros(len(totals), dtype=bool)
    names = np.full(len(labels), "", dtype="U10")
    for group in order.tolist():
        present, shares = counts[group]
        size = len(members[group])
        shares = shares / totals[present]
        score = lacking[:, present] @ shares / shares.sum() + room / max(len(labels), 1)
        if not trained[present].all():
            score[0] += 1
        fits = (wanted > 0) & (room >= size)
        chosen = int(np.where(fits, score, -np.inf).argmax() if fits.any() else room.argmax())
        room[chosen] -= size
        lacking[chosen, present] -= shares
        if chosen == 0:
            trained[present] = True
        if chosen < len(SPLITS):
            names[members[group]] = SPLITS[chosen]
    for name, size in zip(SPLITS, sizes, strict=True):
        if size and not (names == name).any():
            raise UserError(
                f"data.split.group: no group is left for {name}, which should have {size} of "
                f"{len(labels)} images; the largest of {len(members)} groups has "
                f"{max(map(len, members))}; choose another column or other sizes"
            )
    return names


def _groups(
    groups: np.ndarray, classes: np.ndarray
) -> tuple[list[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
    """Positions of the images of each group; and its classes with their number of images."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    members = np.split(order, starts) if len(order) else []
    return members, [np.unique(classes[each], return_counts=True) for each in members]

"""Images that are there again: anywhere, or in another split, where they flatter the figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from cbir_tf.data.inspection import Inspection
from cbir_tf.parallel import blocks
from cbir_tf.types import SPLITS

NEAR = 20
"""Largest distance, in bits of 256, at which two pictures count as the same. Among some 8,000
photos of clothes and flowers every pair up to 24 bits was seen to be the same picture, the first
other at 25; copies scaled to 0.5 to 2 times and compressed again are within 14. Cropped copies are
mostly farther, and mirrored ones not found."""
FEWEST_BITS = 48
"""Pictures with fewer bits set (even, almost blank, or smaller than the hash) look alike without
being so, and are compared by digest alone."""
_PAIRS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Duplicate:
    """An image and the one most like it in another split.

    Attributes:
        kind: exact: the same bytes; near: the same picture by its difference hash.
        id, split: the image: of validation or test.
        other_id, other_split: its like: of train, or of validation for a test image.
        distance: bits that differ, of 256; 0 if exact.
    """

    kind: Literal["exact", "near"]
    id: str
    split: str
    other_id: str
    other_split: str
    distance: int


def cross_split_duplicates(inspection: Inspection, max_distance: int = NEAR) -> list[Duplicate]:
    """Duplicates across splits: for each image its nearest in each earlier split, if near enough.

    Train comes before validation, validation before test. An exact duplicate goes before a near
    one, the smaller id before the larger. 50,000 against 10,000 images take seconds and some
    100 MB.

    Args:
        inspection: images in no split are passed over.
        max_distance: most differing bits of a near duplicate; -1 for exact ones only.

    Returns:
        Exact ones first, then by distance, then by ids.
    """
    images = inspection.images
    positions = {name: np.flatnonzero(images.split == name) for name in SPLITS}
    positions = {name: each[np.argsort(images.ids[each])] for name, each in positions.items()}
    found = []
    for earlier, later in combinations(SPLITS, 2):
        exact = dict(_exact(inspection.digests, positions[later], positions[earlier]))
        others = np.array([each for each in positions[later] if each not in exact], dtype=np.intp)
        near = _nearest(inspection.hashes, others, positions[earlier], max_distance)
        found += [
            Duplicate(
                "exact" if here in exact else "near",
                str(images.ids[here]),
                later,
                str(images.ids[there]),
                earlier,
                distance,
            )
            for here, there, distance in [*((a, b, 0) for a, b in exact.items()), *near]
        ]
    return sorted(found, key=lambda each: (each.kind, each.distance, each.id, each.other_id))


def near_pairs(hashes: np.ndarray, max_distance: int = NEAR) -> Iterator[tuple[np.ndarray, ...]]:
    """Every pair of pictures within a distance, block by block, so that memory stays small.

    50,000 pictures, 1.25 billion pairs, take seconds.

    Args:
        hashes: (N, 4) uint64, as of `inspection.difference_hash`; those of fewer than
            `FEWEST_BITS` bits are in no pair.
        max_distance: most differing bits, of 256.

    Yields:
        Positions of some pairs: two (P,) int64 arrays, first and second, first < second.
    """
    telling = np.flatnonzero(is_telling(hashes))
    hashes = hashes[telling]
    for block in blocks(len(hashes), len(hashes), _PAIRS_AT_ONCE):
        start = block.start
        rows, columns, _ = _within(hashes[block], hashes[start:], max_distance)
        later = columns > rows
        yield telling[start + rows[later]], telling[start + columns[later]]


def _exact(digests: np.ndarray, here: np.ndarray, there: np.ndarray) -> Iterator[tuple[int, int]]:
    """Positions of images with the same bytes, each with the first of `there`."""
    first = {str(digests[each]): int(each) for each in there[::-1]}
    for each in here:
        other = first.get(str(digests[each]))
        if other is not None:
            yield int(each), other


def _nearest(
    hashes: np.ndarray, here: np.ndarray, there: np.ndarray, max_distance: int
) -> Iterator[tuple[int, int, int]]:
    """Positions of images within the distance: each of `here` with its nearest of `there`."""
    telling = is_telling(hashes)
    here, there = here[telling[here]], there[telling[there]]
    for some in blocks(len(here), len(there), _PAIRS_AT_ONCE):
        block = here[some]
        rows, columns, distances = _within(hashes[block], hashes[there], max_distance)
        order = np.lexsort((columns, distances, rows))
        first = order[np.diff(rows[order], prepend=-1) > 0]
        for row, column, distance in zip(
            rows[first], columns[first], distances[first], strict=True
        ):
            yield int(block[row]), int(there[column]), int(distance)


def is_telling(hashes: np.ndarray) -> np.ndarray:
    """(N,) whether a picture's hash has enough bits set to be compared."""
    telling: np.ndarray = np.bitwise_count(hashes).sum(axis=1) >= FEWEST_BITS
    return telling


def _within(
    queries: np.ndarray, gallery: np.ndarray, max_distance: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and Hamming distances of the pairs within the distance.

    Word by word: the bits that differ in the first words already rule most pairs out.
    """
    distances = np.bitwise_count(queries[:, :1] ^ gallery[None, :, 0])
    rows, columns = np.nonzero(distances <= max_distance)
    total = distances[rows, columns].astype(np.int64)
    for word in range(1, queries.shape[1]):
        total += np.bitwise_count(queries[rows, word] ^ gallery[columns, word])
        kept = total <= max_distance
        rows, columns, total = rows[kept], columns[kept], total[kept]
    return rows, columns, total

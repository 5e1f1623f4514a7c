"""Groups of duplicate images, the one to keep first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cbir_tf.data.decode import picture_size
from cbir_tf.data.duplicates import NEAR, is_telling, near_pairs
from cbir_tf.data.inspection import Inspection

Kind = Literal["keep", "exact", "near", "similar"]


@dataclass(frozen=True)
class Copy:
    """One image of a group.

    Attributes:
        kind: keep: the first of its group; exact: the same bytes as one before it; near: by
            difference hash the same picture as one before it, in one step or by way of others;
            similar: in the group by the further pairs alone.
        position: of the image in the inspection.
        width, height: of the picture held upright, in pixels.
        size: of the file, in bytes.
        bits: by which its difference hash differs from the first one's, of 256.
    """

    kind: Kind
    position: int
    width: int
    height: int
    size: int
    bits: int


def duplicate_groups(
    inspection: Inspection,
    further_pairs: Iterable[tuple[np.ndarray, ...]] = (),
    max_distance: int = NEAR,
) -> list[tuple[Copy, ...]]:
    """Connected groups of images with the same bytes or pictures, or paired otherwise.

    In a group the picture of most pixels comes first, then the largest file, then the first id.

    Args:
        inspection: N images.
        further_pairs: positions, first and second, of images that belong together.
        max_distance: most differing bits of two pictures taken for the same.

    Returns:
        The groups of two and more, the largest first, then by id of their first.

    Raises:
        ImageError, OSError: a file has gone since it was inspected.
    """
    same_bytes = np.unique(inspection.digests, return_inverse=True)[1]
    same_picture = _merged(same_bytes, _near_pairs(inspection.hashes, max_distance))
    together = _merged(same_picture, further_pairs)
    order = np.argsort(together, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(together[order])) + 1)
    found = [
        _in_order(inspection, members.tolist(), same_bytes, same_picture)
        for members in groups
        if len(members) > 1
    ]
    ids = inspection.images.ids
    return sorted(found, key=lambda group: (-len(group), str(ids[group[0].position])))


def _near_pairs(hashes: np.ndarray, max_distance: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Pairs that lead from each picture to all near it, equal hashes in one step to their first.

    Thousands of copies of one picture would make millions of pairs that say nothing new.
    """
    distinct, first, which = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    telling = np.flatnonzero(is_telling(hashes))
    yield telling, first[which[telling]]
    for one, other in near_pairs(distinct, max_distance):
        yield first[one], first[other]


def _merged(labels: np.ndarray, pairs: Iterable[tuple[np.ndarray, ...]]) -> np.ndarray:
    """(N,) numbers, equal where the labels are or where a chain of pairs leads."""
    for one, other in pairs:
        if len(one):
            edges = (np.ones(len(one), dtype=bool), (labels[one], labels[other]))
            graph = coo_array(edges, shape=(len(labels), len(labels)))
            labels = connected_components(graph, directed=False)[1][labels]
    return labels


def _in_order(
    inspection: Inspection, members: list[int], same_bytes: np.ndarray, same_picture: np.ndarray
) -> tuple[Copy, ...]:
    """The group, the one to keep first; each with its kind of copy."""
    images, hashes = inspection.images, inspection.hashes
    looks = {each: _look(images.sources[each]) for each in members}

    def preference(position: int) -> tuple[int, int, str]:
        width, height, size = looks[position]
        return -width * height, -size, str(images.ids[position])

    members = sorted(members, key=preference)
    bits = np.bitwise_count(hashes[members] ^ hashes[members[0]]).sum(axis=1)
    contents: set[int] = set()
    pictures: set[int] = set()
    copies: list[Copy] = []
    for position, differing in zip(members, bits.tolist(), strict=True):
        content, picture = int(same_bytes[position]), int(same_picture[position])
        kind: Kind = "similar" if copies else "keep"
        if content in contents:
            kind = "exact"
        elif picture in pictures:
            kind = "near"
        contents.add(content)
        pictures.add(picture)
        copies.append(Copy(kind, position, *looks[position], differing))
    return tuple(copies)


def _look(source: Path | bytes) -> tuple[int, int, int]:
    """Width, height and bytes."""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    return *picture_size(source), size

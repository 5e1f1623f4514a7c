"""Groups of duplicate images; the image to keep comes first."""

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
from cbir_tf.types import UNLABELLED, ImageSet

Kind = Literal["keep", "exact", "near", "similar"]


@dataclass(frozen=True)
class Copy:
    """One image of a group.

    Attributes:
        kind: keep: first image of the group; exact: the same bytes as an earlier image of the
            group; near: the same picture as an earlier image by difference hash, directly or over
            other images; similar: in the group by the further pairs alone.
        position: of the image in the inspection.
        width, height: of the upright image, in pixels.
        size: of the file, in bytes.
        bits: number of bits, of 256, in which its difference hash differs from the first image's.
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
    """Connected groups of images with the same bytes, the same picture, or a further pair.

    The first image of a group is the one of most pixels, then of the largest file, then of the
    first id.

    Args:
        inspection: N images.
        further_pairs: positions, first and second, of further pairs of duplicates.
        max_distance: largest number of differing bits of duplicates.

    Returns:
        The groups of at least two images, the largest first, then by id of the first image.

    Raises:
        ImageError, OSError: a file was removed since the inspection.
    """
    same_bytes = np.unique(inspection.digests, return_inverse=True)[1]
    same_picture = picture_groups(inspection, max_distance)
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


def picture_groups(inspection: Inspection, max_distance: int = NEAR) -> np.ndarray:
    """(N,) group numbers: equal for images of one picture, directly or over other images.

    Args:
        inspection: N images.
        max_distance: largest number of differing bits of duplicates.
    """
    same_bytes = np.unique(inspection.digests, return_inverse=True)[1]
    return _merged(same_bytes, _near_pairs(inspection.hashes, max_distance))


@dataclass(frozen=True)
class Contradiction:
    """Images of one picture that have not all the same label.

    Attributes:
        ids: of the labelled ones, ascending.
        labels: name of the class of each.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]

    def __str__(self) -> str:
        pairs = zip(self.ids, self.labels, strict=True)
        return ", ".join(f"{id_} ({label})" for id_, label in pairs)


def contradictions(images: ImageSet, groups: np.ndarray) -> list[Contradiction]:
    """The groups whose images have several labels, in order of their first id.

    Args:
        images: N images, in any split.
        groups: (N,) of `picture_groups`.
    """
    labelled = np.flatnonzero(images.labels != UNLABELLED)
    order = labelled[np.lexsort((images.ids[labelled], groups[labelled]))]
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    found = [
        Contradiction(
            tuple(images.ids[members].tolist()),
            tuple(images.class_names[label] for label in images.labels[members]),
        )
        for members in np.split(order, starts)
        if len(set(images.labels[members].tolist())) > 1
    ]
    return sorted(found, key=lambda each: each.ids)


def _near_pairs(hashes: np.ndarray, max_distance: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Pairs that connect each image to all near ones; equal hashes are paired with their first.

    All pairs of thousands of copies would be millions, without connecting more images.
    """
    distinct, first, which = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    telling = np.flatnonzero(is_telling(hashes))
    yield telling, first[which[telling]]
    for one, other in near_pairs(distinct, max_distance):
        yield first[one], first[other]


def _merged(labels: np.ndarray, pairs: Iterable[tuple[np.ndarray, ...]]) -> np.ndarray:
    """(N,) group numbers: equal for equal labels and for images connected by a chain of pairs."""
    for one, other in pairs:
        if len(one):
            edges = (np.ones(len(one), dtype=bool), (labels[one], labels[other]))
            graph = coo_array(edges, shape=(len(labels), len(labels)))
            labels = connected_components(graph, directed=False)[1][labels]
    return labels


def _in_order(
    inspection: Inspection, members: list[int], same_bytes: np.ndarray, same_picture: np.ndarray
) -> tuple[Copy, ...]:
    """The images of a group with their kinds, the image to keep first."""
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
    """Width and height in pixels, size in bytes."""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    return *picture_size(source), size

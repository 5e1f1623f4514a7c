"""The values that travel through cbir_tf: ImageSet, Embeddings, Neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SPLITS = ("train", "validation", "test")
UNLABELLED = -1


def _distinct(ids: np.ndarray, what: str) -> None:
    values, counts = np.unique(ids, return_counts=True)
    if len(values) != len(ids):
        raise ValueError(
            f"{what}: ids must be unique, {str(values[counts > 1][0])!r} is there twice"
        )


def _frozen(values: Sequence | np.ndarray, dtype: type | None = None) -> np.ndarray:
    array = np.asarray(values, dtype=dtype).view()
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images by name, not yet decoded.

    Attributes:
        ids: (N,) unique stable strings.
        sources: N paths or encoded image bytes.
        labels: (N,) int64 in 0..C-1, or -1 for unlabelled.
        split: (N,) strings: train, validation, test, or empty where there is none.
        class_names: C names; the label counts into them.
        metadata: N mappings of further columns, text or numbers by name; or none for all.
    """

    ids: np.ndarray
    sources: tuple[Path | bytes, ...]
    labels: np.ndarray
    split: np.ndarray
    class_names: tuple[str, ...]
    metadata: tuple[Mapping[str, str | float], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", _frozen(self.ids, np.str_))
        object.__setattr__(self, "sources", tuple(self.sources))
        object.__setattr__(self, "labels", _frozen(self.labels, np.int64))
        object.__setattr__(self, "split", _frozen(self.split, np.str_))
        object.__setattr__(self, "class_names", tuple(self.class_names))
        object.__setattr__(self, "metadata", tuple(self.metadata) or ({},) * len(self.ids))
        lengths = {len(self.ids), len(self.sources), len(self.labels), len(self.split)}
        lengths.add(len(self.metadata))
        if len(lengths) != 1:
            raise ValueError(f"ImageSet: ids, sources, labels, split differ in length: {lengths}")
        _distinct(self.ids, "ImageSet")
        classes = len(self.class_names)
        if len(self) and not (self.labels.min() >= -1 and self.labels.max() < classes):
            raise ValueError(f"ImageSet: labels must be within -1..{classes - 1}")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, which: np.ndarray) -> ImageSet:
        """The images at these positions, or where this mask is true, in that order."""
        positions = np.arange(len(self))[which]
        return ImageSet(
            self.ids[positions],
            tuple(self.sources[each] for each in positions),
            self.labels[positions],
            self.split[positions],
            self.class_names,
            tuple(self.metadata[each] for each in positions),
        )

    def of_split(self, name: str) -> ImageSet:
        """The images of one split."""
        return self.take(self.split == name)


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors by id.

    Attributes:
        ids: (N,) unique strings.
        vectors: (N, D) float32, finite.
        labels: (N,) int64, or -1 for unlabelled.
    """

    ids: np.ndarray
    vectors: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", _frozen(self.ids, np.str_))
        object.__setattr__(self, "vectors", _frozen(self.vectors, np.float32))
        object.__setattr__(self, "labels", _frozen(self.labels, np.int64))
        if self.vectors.ndim != 2:
            raise ValueError(f"Embeddings: vectors must be (N, D), got {self.vectors.shape}")
        if not len(self.ids) == len(self.vectors) == len(self.labels):
            raise ValueError("Embeddings: ids, vectors and labels differ in length")
        _distinct(self.ids, "Embeddings")
        if not np.isfinite(self.vectors).all():
            bad = self.ids[~np.isfinite(self.vectors).all(axis=1)][0]
            raise ValueError(f"Embeddings: the vector of {str(bad)!r} is not finite")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, which: np.ndarray | slice) -> Embeddings:
        """The rows at these positions, of this slice, or where this mask is true."""
        return Embeddings(self.ids[which], self.vectors[which], self.labels[which])


@dataclass(frozen=True, eq=False)
class Neighbours:
    """What a search found, nearest first.

    Attributes:
        ids: (Q, k) strings; empty string where fewer than k were found (distance infinite).
        distances: (Q, k) float32, each row ascending; equal distances in order of id.
    """

    ids: np.ndarray
    distances: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", _frozen(self.ids, np.str_))
        object.__setattr__(self, "distances", _frozen(self.distances, np.float32))
        if self.ids.ndim != 2 or self.ids.shape != self.distances.shape:
            raise ValueError(
                f"Neighbours: ids {self.ids.shape} and distances {self.distances.shape} "
                "must both be (Q, k)"
            )
        nearer, farther = self.distances[:, :-1], self.distances[:, 1:]
        tied = nearer == farther
        in_order = self.ids[:, :-1][tied] <= self.ids[:, 1:][tied]
        if not ((nearer < farther) | tied).all() or not in_order.all():
            raise ValueError("Neighbours: rows must be sorted by (distance, id)")
        by_id = np.sort(self.ids, axis=1)
        if ((by_id[:, :-1] == by_id[:, 1:]) & (by_id[:, 1:] != "")).any():
            raise ValueError("Neighbours: a row names the same id twice")

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, k: int) -> Neighbours:
        """The k nearest of each row, filled up with empty ids where it has fewer."""
        missing = max(0, k - self.ids.shape[1])
        return Neighbours(
            np.pad(self.ids[:, :k], ((0, 0), (0, missing)), constant_values=""),
            np.pad(self.distances[:, :k], ((0, 0), (0, missing)), constant_values=np.inf),
        )

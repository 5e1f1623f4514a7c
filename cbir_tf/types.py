"""The values that travel through cbir_tf: images, embeddings, queries, results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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


def _frozen(values: Sequence[object] | np.ndarray, dtype: type | None = None) -> np.ndarray:
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


def _nothing() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True, eq=False)
class QueryBatch:
    """Queries that are searched for together, in the same way.

    Attributes:
        vectors: (Q, D) float32, in the space of the gallery's vectors: whitened, where these are
            (`cbir_tf.retrieval.gallery.Gallery.queries`).
        ids: (Q,) strings. The gallery's image of that id is left out of the query's neighbours;
            an empty string is an out-of-gallery query.
        candidates: (M,) ids of the gallery to choose from; None: all of it.
        class_probabilities: (Q, C) of the class router's classes; None: what the router's own
            classifier gives the vectors, if there is a router.

    Example:
        >>> batch = QueryBatch([[0.6, 0.8]])
        >>> len(batch), batch.ids.tolist()
        (1, [''])
    """

    vectors: np.ndarray
    ids: np.ndarray = field(default_factory=_nothing)
    candidates: np.ndarray | None = None
    class_probabilities: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", _frozen(self.vectors, np.float32))
        ids = self.ids if len(self.ids) else [""] * len(self.vectors)
        object.__setattr__(self, "ids", _frozen(ids, np.str_))
        if self.candidates is not None:
            object.__setattr__(self, "candidates", _frozen(self.candidates, np.str_))
        if self.vectors.ndim != 2 or len(self.ids) != len(self.vectors):
            raise ValueError(
                f"QueryBatch: vectors {self.vectors.shape} must be (Q, D), and the {len(self.ids)} "
                "ids as many"
            )

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, which: slice | np.ndarray) -> QueryBatch:
        """The queries at these positions, or where this mask is true."""
        classes = self.class_probabilities
        return QueryBatch(
            self.vectors[which],
            self.ids[which],
            self.candidates,
            None if classes is None else classes[which],
        )


@dataclass(frozen=True)
class Prediction:
    """The predicted class of a query.

    Attributes:
        name: of the class.
        probability: predicted by the classifier, 0..1.
    """

    name: str
    probability: float


@dataclass(frozen=True)
class Hit:
    """One image that a search found.

    Attributes:
        id: of the image.
        distance: from the query.
        label: name of its class, None for an unlabelled image.
        metadata: further columns, text or numbers by name.
        path: of its file; None for an image that is not a file.
        is_missing: whether the file was not there when the image was found.
    """

    id: str
    distance: float
    label: str | None
    metadata: Mapping[str, str | float]
    path: Path | None
    is_missing: bool = False


@dataclass(frozen=True, eq=False)
class Results:
    """What a search found for each of Q queries, nearest first.

    Attributes:
        ids: (Q, k) strings; an empty string where fewer than k were found (distance infinite).
        distances: (Q, k) float32, each row ascending; equal distances in order of id.
        labels: (Q, k) int64, counting into `class_names`; -1 for unlabelled or not found.
        class_names: names by label.
        metadata: further columns of each image found, by id; empty if not looked up.
        paths: files of the images found, by id; likewise.
        missing: ids of those found whose files are not there; likewise.
        prediction: predicted class of each query; None if the search has no class router.
        is_match: (Q,) bool, whether the nearest image is near enough to be a match; None where no
            threshold was calibrated for this search.
        vectors: (Q, D) float32 of the queries, as they were compared; or none.

    Example:
        >>> found = Results([["b", "c"]], [[0.1, 0.4]], [[0, -1]], ("rose",))
        >>> [(hit.id, hit.label) for hit in found.hits()]
        [('b', 'rose'), ('c', None)]
    """

    ids: np.ndarray
    distances: np.ndarray
    labels: np.ndarray = field(default_factory=_nothing)
    class_names: tuple[str, ...] = ()
    metadata: Mapping[str, Mapping[str, str | float]] = field(default_factory=dict)
    paths: Mapping[str, Path | None] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    prediction: tuple[Prediction, ...] | None = None
    is_match: np.ndarray | None = None
    vectors: np.ndarray = field(default_factory=_nothing)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", _frozen(self.ids, np.str_))
        object.__setattr__(self, "distances", _frozen(self.distances, np.float32))
        labels = self.labels if np.size(self.labels) else np.full(self.ids.shape, UNLABELLED)
        object.__setattr__(self, "labels", _frozen(labels, np.int64))
        if self.ids.ndim != 2 or {self.distances.shape, self.labels.shape} != {self.ids.shape}:
            raise ValueError(
                f"Results: ids {self.ids.shape}, distances {self.distances.shape} and labels "
                f"{self.labels.shape} must all be (Q, k)"
            )
        nearer, farther = self.distances[:, :-1], self.distances[:, 1:]
        tied = nearer == farther
        in_order = self.ids[:, :-1][tied] <= self.ids[:, 1:][tied]
        if not ((nearer < farther) | tied).all() or not in_order.all():
            raise ValueError("Results: rows must be sorted by (distance, id)")
        by_id = np.sort(self.ids, axis=1)
        if ((by_id[:, :-1] == by_id[:, 1:]) & (by_id[:, 1:] != "")).any():
            raise ValueError("Results: a row names the same id twice")

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, k: int) -> Results:
        """The k nearest of each row, filled up with empty ids where it has fewer."""
        missing = ((0, 0), (0, max(0, k - self.ids.shape[1])))
        return replace(
            self,
            ids=np.pad(self.ids[:, :k], missing, constant_values=""),
            distances=np.pad(self.distances[:, :k], missing, constant_values=np.inf),
            labels=np.pad(self.labels[:, :k], missing, constant_values=UNLABELLED),
        )

    def of_query(self, row: int) -> Results:
        """The results of one query."""
        one = slice(row, row + 1)
        return replace(
            self,
            ids=self.ids[one],
            distances=self.distances[one],
            labels=self.labels[one],
            prediction=None if self.prediction is None else self.prediction[one],
            is_match=None if self.is_match is None else self.is_match[one],
            vectors=self.vectors[one],
        )

    def hits(self, query: int = 0) -> list[Hit]:
        """The images found for one query, nearest first."""
        names = (*self.class_names, None)
        count = int(np.isfinite(self.distances[query]).sum())  # what was not found comes last
        rows = zip(
            self.ids[query, :count].tolist(),
            self.distances[query, :count].tolist(),
            self.labels[query, :count].tolist(),
            strict=True,
        )
        return [
            Hit(
                id_,
                distance,
                names[label],
                self.metadata.get(id_, {}),
                self.paths.get(id_),
                id_ in self.missing,
            )
            for id_, distance, label in rows
        ]

"""Two-step search: predict the class of a query, then search the images of that class.

A classifier gives a query the probability p(c) of each class c, and each image of the gallery has a
class. With d the distance of an image of class c, and c* the most probable class of the query:

- hard: the images of c* come first, ordered by d, then those of the next most probable class, and
  so on, so that k images are found if the gallery has k.
- soft: images are ordered by d * (p(c*) / p(c)) ** weight. Images of c* keep their distance; the
  less probable the class of an image, the larger its distance. A weight of 0 is plain search; with
  a growing weight the order approaches that of hard, except that images at a distance of 0 stay
  first. A p(c) below 1e-6 counts as 1e-6.

Both are exact over the whole gallery, with every index: each class that can contain one of the k
first images is searched separately. Hard searches a part of the gallery; soft searches all of it,
then the classes of sufficient probability once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cbir_tf.config.search import TwoStep
from cbir_tf.parallel import blocks
from cbir_tf.retrieval.classifiers import Classifier
from cbir_tf.search.index import Finder, positions_of
from cbir_tf.types import Embeddings, Prediction

LEAST_PROBABILITY = 1e-6
BLOCK_PROBABILITIES = 2**22


@dataclass(frozen=True, eq=False)
class ClassRouter:
    """Directs a query to the images of its most probable classes.

    Attributes:
        classifier: predicts the probabilities of C classes.
        names: C class names.
        class_of: (N,) int64, class of each gallery image in order of id, as a position in the
            classifier's labels.
        settings: mode and weight are used.
    """

    classifier: Classifier
    names: tuple[str, ...]
    class_of: np.ndarray
    settings: TwoStep

    def take(self, which: np.ndarray) -> ClassRouter:
        """The router of a part of the gallery, given by positions or by a mask."""
        return replace(self, class_of=self.class_of[which])

    def with_added(
        self, before: np.ndarray, more: Embeddings, class_names: Sequence[str]
    ) -> ClassRouter:
        """The router of a larger gallery.

        Args:
            before: (M,) positions in this gallery at which the new images are inserted.
            more: M new images, in order of id.
            class_names: names by label.
        """
        classes = route_by_label(self.classifier, more, class_names, self.settings).class_of
        return replace(self, class_of=np.insert(self.class_of, before, classes))

    def predictions(self, probabilities: np.ndarray) -> tuple[Prediction, ...]:
        """The most probable class of each of (Q, C) rows."""
        best = probabilities.argmax(axis=1)
        return tuple(
            Prediction(self.names[number], float(row[number]))
            for number, row in zip(best.tolist(), probabilities, strict=True)
        )

    def tiers(self, positions: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """The tier of each image: images of a lower tier come first, whatever their distance.

        Args:
            positions: (Q, K) of gallery images, -1 for none.
            probabilities: (Q, C).

        Returns:
            (Q, K) int64. hard: number of classes more probable than the image's class; soft: 0.
        """
        if self.settings.mode == "soft":
            return np.zeros(positions.shape, dtype=np.int64)
        return np.take_along_axis(_likely(probabilities)[1], self.class_of[positions], axis=1)

    def factors(self, positions: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """The factors on the distances; arguments as for `tiers`.

        Returns:
            (Q, K) float64. soft: (p(c*) / p(c)) ** weight; hard: 1.
        """
        if self.settings.mode == "hard":
            return np.ones(positions.shape)
        return np.take_along_axis(self._factors(probabilities), self.class_of[positions], axis=1)

    def find(
        self,
        finder: Finder,
        queries: np.ndarray,
        k: int,
        self_positions: np.ndarray,
        candidate_positions: np.ndarray | None,
        probabilities: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The first k images for each query, searched class by class.

        Args:
            finder: of the gallery.
            queries: (Q, D) float32.
            k: number of images for each query.
            self_positions: (Q,) position of the query itself, -1 for an out-of-gallery query.
            candidate_positions: positions to search, ascending; None: all.
            probabilities: (Q, C).

        Returns:
            (Q, k) int64 positions in order, and float32 distances: those of the finder times
            `factors`, ascending within each tier. With fewer than k images the rest is -1 and
            infinite.
        """
        if candidate_positions is None:
            members = self._members
        else:
            members = self._members_of(candidate_positions)
        sizes = np.array([len(each) for each in members])
        if self.settings.mode == "hard":
            needed = self._needed(sizes, k, self_positions, probabilities)
        else:
            # A search among given positions is exact with every index.
            everything = np.arange(len(self.class_of))
            chosen = everything if candidate_positions is None else candidate_positions
            nearest = finder.find(queries, k, self_positions, chosen)
            needed = self._can_come_first(*nearest, probabilities)
        needed = needed & (sizes > 0)
        positions, distances = [], []
        for number, of_class in enumerate(members):
            rows = np.flatnonzero(needed[:, number])
            if not len(rows):
                continue
            width = min(k, len(of_class))
            found = np.full((len(queries), width), -1)
            their = np.full((len(queries), width), np.inf, dtype=np.float32)
            found[rows], their[rows] = finder.find(
                queries[rows], width, self_positions[rows], of_class
            )
            positions.append(found)
            distances.append(their)
        if not positions:
            return np.full((len(queries), k), -1), np.full((len(queries), k), np.inf, np.float32)
        candidates = np.concatenate(positions, axis=1)
        tiers = self.tiers(candidates, probabilities)
        weighed = weigh(np.concatenate(distances, axis=1), self.factors(candidates, probabilities))
        tiers[candidates < 0] = len(members)
        return ordered(candidates, weighed, tiers, k)

    def _factors(self, probabilities: np.ndarray) -> np.ndarray:
        """(Q, C) factor of each class in soft mode."""
        shares = np.maximum(probabilities, LEAST_PROBABILITY)
        factors: np.ndarray = (shares.max(axis=1, keepdims=True) / shares) ** self.settings.weight
        return factors

    @cached_property
    def _members(self) -> list[np.ndarray]:
        """Positions of the images of each class."""
        return self._members_of(np.arange(len(self.class_of)))

    def _members_of(self, positions: np.ndarray) -> list[np.ndarray]:
        """These positions, ascending, grouped by class."""
        class_of = self.class_of[positions]
        ends = np.cumsum(np.bincount(class_of, minlength=len(self.names)))
        return np.split(positions[np.argsort(class_of, kind="stable")], ends[:-1])

    def _needed(
        self, sizes: np.ndarray, k: int, self_positions: np.ndarray, probabilities: np.ndarray
    ) -> np.ndarray:
        """(Q, C) in hard mode: whether the more probable classes have fewer than k images."""
        order, rank = _likely(probabilities)
        findable = np.tile(sizes, (len(self_positions), 1))
        stored = np.flatnonzero(self_positions >= 0)
        # One too few if the query itself is not a candidate; one more class is searched then.
        findable[stored, self.class_of[self_positions[stored]]] -= 1
        in_order = np.take_along_axis(findable, order, axis=1)
        before = np.cumsum(in_order, axis=1) - in_order
        return np.take_along_axis(before, rank, axis=1) < k

    def _can_come_first(
        self, found: np.ndarray, distances: np.ndarray, probabilities: np.ndarray
    ) -> np.ndarray:
        """(Q, C) in soft mode: whether a class may contain one of the first k images.

        The distance of an image of a class is at least the smallest distance of all images times
        the factor of the class.
        """
        last = weigh(distances, self.factors(found, probabilities)).max(axis=1, keepdims=True)
        least = weigh(distances[:, :1], self._factors(probabilities))
        return np.asarray(least <= last)


def route_by_label(
    classifier: Classifier, gallery: Embeddings, class_names: Sequence[str], settings: TwoStep
) -> ClassRouter:
    """The router over the classes of a run.

    The class of a gallery image is its label. For an image without a label, or with a label that
    the classifier does not know, it is the class that the classifier predicts.

    Args:
        classifier: fitted to training images of the same model.
        gallery: ids ascending.
        class_names: names by label.
        settings: mode and weight are used.
    """
    class_of = positions_of(gallery.labels, classifier.labels)
    unknown = np.flatnonzero(class_of < 0)
    if len(unknown):
        some = gallery.take(unknown)
        class_of[unknown] = predicted(classifier, some.vectors, some.ids)
    names = tuple(class_names[label] for label in classifier.labels.tolist())
    return ClassRouter(classifier, names, class_of, settings)


def predicted(classifier: Classifier, vectors: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(N,) int64: position of the most probable class in the classifier's labels."""
    best = np.empty(len(vectors), dtype=np.int64)
    for rows in blocks(len(vectors), len(classifier.labels), BLOCK_PROBABILITIES):
        best[rows] = classifier.probabilities(vectors[rows], ids[rows]).argmax(axis=1)
    return best


def weigh(distances: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Float32 distances times factors; finite distances stay finite.

    Example:
        >>> weigh(np.float32([1, np.inf]), np.array([2.0, 2.0])).tolist()
        [2.0, inf]
    """
    most = np.where(np.isinf(distances), np.inf, np.finfo(np.float32).max / 4)
    return np.asarray(np.minimum(distances * factors, most), dtype=np.float32)


def ordered(
    positions: np.ndarray, distances: np.ndarray, tiers: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first k of each row, ordered by tier, distance and position (that is, id)."""
    order = np.lexsort((positions, distances, tiers), axis=-1)[:, :k]
    missing = ((0, 0), (0, max(0, k - order.shape[1])))
    return (
        np.pad(np.take_along_axis(positions, order, axis=1), missing, constant_values=-1),
        np.pad(np.take_along_axis(distances, order, axis=1), missing, constant_values=np.inf),
    )


def _likely(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Q, C) classes, the most probable first, ties by label; and the rank of each class."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(order.shape[1]), order.shape), axis=1)
    return order, rank

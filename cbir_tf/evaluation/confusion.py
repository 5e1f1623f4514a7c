"""Which classes a search confuses, judged by the label of the nearest neighbour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cbir_tf.errors import UserError
from cbir_tf.search.index import positions_of
from cbir_tf.types import UNLABELLED, Embeddings, Results


@dataclass(frozen=True)
class Mistake:
    """A query whose nearest neighbour has another class.

    Attributes:
        query: id of the query.
        neighbour: id of its nearest neighbour.
        query_label: label of the query.
        neighbour_label: label of the neighbour.
        distance: distance between the two.
    """

    query: str
    neighbour: str
    query_label: int
    neighbour_label: int
    distance: float


def confusion_matrix(
    neighbours: Results, queries: Embeddings, gallery: Embeddings, classes: int
) -> np.ndarray:
    """M[i, j] = number of queries with label i whose nearest neighbour has label j.

    Args:
        neighbours: a row for each query; only the nearest counts.
        queries: labelled embeddings.
        gallery: labelled embeddings in which the neighbours were found.
        classes: number of classes, C.

    Returns:
        (C, C) int64.

    Raises:
        UserError: a label is missing.

    Example:
        >>> gallery = Embeddings(["a", "b"], [[0], [1]], [0, 1])
        >>> queries = Embeddings(["q", "r", "s"], [[0], [1], [1]], [0, 1, 0])
        >>> found = Results(np.array([["a"], ["b"], ["b"]]), np.zeros((3, 1), np.float32))
        >>> confusion_matrix(found, queries, gallery, classes=2).tolist()
        [[1, 1], [0, 1]]
    """
    nearest = _nearest_labels(neighbours, queries, gallery)
    pairs = queries.labels * classes + nearest
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def mistakes(neighbours: Results, queries: Embeddings, gallery: Embeddings) -> list[Mistake]:
    """Queries whose nearest neighbour has another class, the nearest first.

    Args:
        neighbours: a row for each query; only the nearest counts.
        queries: labelled embeddings.
        gallery: labelled embeddings in which the neighbours were found.

    Returns:
        The mistakes sorted by (distance, query id): the smaller the distance, the more confident
        the mistake.

    Raises:
        UserError: a label is missing.

    Example:
        >>> gallery = Embeddings(["a", "b"], [[0], [1]], [0, 1])
        >>> queries = Embeddings(["q", "r"], [[0], [1]], [0, 0])
        >>> found = Results(np.array([["a"], ["b"]]), np.zeros((2, 1), np.float32))
        >>> [(each.query, each.neighbour) for each in mistakes(found, queries, gallery)]
        [('r', 'b')]
    """
    nearest = _nearest_labels(neighbours, queries, gallery)
    wrong = [
        Mistake(
            query=str(queries.ids[row]),
            neighbour=str(neighbours.ids[row, 0]),
            query_label=int(queries.labels[row]),
            neighbour_label=int(nearest[row]),
            distance=float(neighbours.distances[row, 0]),
        )
        for row in np.flatnonzero(nearest != queries.labels)
    ]
    return sorted(wrong, key=lambda mistake: (mistake.distance, mistake.query))


def _nearest_labels(neighbours: Results, queries: Embeddings, gallery: Embeddings) -> np.ndarray:
    """(Q,) labels of the nearest neighbours."""
    if len(neighbours) != len(queries):
        raise ValueError(f"{len(neighbours)} rows of neighbours for {len(queries)} queries")
    order = np.argsort(gallery.ids)
    positions = positions_of(neighbours.ids[:, 0], gallery.ids[order])
    if (positions < 0).any():
        unknown = str(neighbours.ids[positions < 0, 0][0])
        raise ValueError(f"the neighbour {unknown!r} is not in the gallery")
    nearest: np.ndarray = gallery.labels[order][positions]
    for ids, labels in ((queries.ids, queries.labels), (neighbours.ids[:, 0], nearest)):
        if (labels == UNLABELLED).any():
            raise UserError(
                f"confusion matrix: {str(ids[labels == UNLABELLED][0])!r} has no label; "
                "use labelled images only"
            )
    return nearest

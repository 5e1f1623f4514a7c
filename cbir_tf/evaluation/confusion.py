"""Which classes are taken for which: the label of the nearest neighbour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cbir_tf.errors import UserError
from cbir_tf.search.index import positions_of
from cbir_tf.types import UNLABELLED, Embeddings, Results


@dataclass(frozen=True)
class Mistake:
    """A query whose nearest neighbour is of another class.

    Attributes:
        query: its id.
        neighbour: id of the nearest.
        query_label: label of the query.
        neighbour_label: label of the nearest.
        distance: between the two.
    """

    query: str
    neighbour: str
    query_label: int
    neighbour_label: int
    distance: float


def confusion_matrix(
    neighbours: Results, queries: Embeddings, gallery: Embeddings, classes: int
) -> np.ndarray:
    """How often a query of one class has its nearest neighbour in another.

    Args:
        neighbours: of the queries, row by row; only the nearest counts.
        queries: labelled.
        gallery: where the neighbours were found, labelled.
        classes: number of classes, C.

    Returns:
        (C, C) int64: row the query's class, column its nearest neighbour's.

    Raises:
        UserError: a label is missing.
    """
    nearest = _nearest_labels(neighbours, queries, gallery)
    pairs = queries.labels * classes + nearest
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def mistakes(neighbours: Results, queries: Embeddings, gallery: Embeddings) -> list[Mistake]:
    """Queries whose nearest neighbour is of another class, the worst first.

    Args:
        neighbours: of the queries, row by row; only the nearest counts.
        queries: labelled.
        gallery: where the neighbours were found, labelled.

    Returns:
        The mistakes by distance, the most certain one (the nearest) first, then by query id.

    Raises:
        UserError: a label is missing.
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
        stranger = str(neighbours.ids[positions < 0, 0][0])
        raise ValueError(f"the gallery has no {stranger!r}, which is among the neighbours")
    nearest = gallery.labels[order][positions]
    for ids, labels in ((queries.ids, queries.labels), (neighbours.ids[:, 0], nearest)):
        if (labels == UNLABELLED).any():
            raise UserError(
                f"{str(ids[labels == UNLABELLED][0])!r} has no label; "
                "confusion is between labelled images"
            )
    return nearest
